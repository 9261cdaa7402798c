"""The last images as they arrived, found by stamp. Not thread-safe."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any

# An image that is late by no more was overtaken on its way; otherwise the clock has jumped.
_MAX_DELAY_NS = 200_000_000


class Order(Enum):
    """Place of an image in the stream."""

    NEWEST = "newest"
    LATE = "late"
    """A single image overtaken by a newer one: it is not stored."""
    CLOCK_JUMPED = "clock jumped"
    """The clock was set back: older images were removed."""


@dataclass(frozen=True)
class Frame:
    """One received image, not decoded yet."""

    number: int
    """Position in the order of arrival, from 1; unlike stamps it neither repeats nor jumps."""
    stamp_ns: int
    message: Any
    frame_id: str = ""
    size: int = 0
    """Bytes of image data."""
    arrival: float = 0.0
    """s of the monotonic clock."""


class FrameBuffer:
    """At most ``max_images`` images of together ``max_bytes``, but always the newest one."""

    def __init__(self, max_images: int = 30, max_bytes: float = float("inf")) -> None:
        """Raises ``ValueError`` if there is no room for an image."""
        if max_images < 1:
            raise ValueError(f"max_images is {max_images}: expected at least 1")
        self._max_images, self._max_bytes = max_images, max_bytes
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._last_was_late = False

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def oldest(self) -> Frame | None:
        """The image that is removed next."""
        return self._frames[0] if self._frames else None

    @property
    def newest(self) -> Frame | None:
        """The image that was added last."""
        return self._frames[-1] if self._frames else None

    def add(self, frame: Frame) -> Order:
        """Store an image, unless it is late."""
        order = self._order(frame)
        self._last_was_late = order is Order.LATE
        if order is Order.LATE:
            return order
        if order is Order.CLOCK_JUMPED:
            self.clear()
        self._frames.append(frame)
        self._bytes += frame.size
        while len(self._frames) > self._max_images or (
            self._bytes > self._max_bytes and len(self._frames) > 1
        ):
            self._bytes -= self._frames.popleft().size
        return order

    def since(self, stamp_ns: int, after: int = 0) -> list[Frame]:
        """The image of this stamp and all newer ones; of stamp 0 only the newest image.

        Images up to the number ``after`` are left out. Empty if there is no such image.
        """
        frames = [frame for frame in self._frames if frame.number > after]
        if not stamp_ns:
            return frames[-1:]
        stamps = [frame.stamp_ns for frame in frames]
        return frames[stamps.index(stamp_ns) :] if stamp_ns in stamps else []

    def clear(self) -> None:
        """Remove all images."""
        self._frames.clear()
        self._bytes, self._last_was_late = 0, False

    def _order(self, frame: Frame) -> Order:
        newest = self.newest
        if newest is None or frame.stamp_ns >= newest.stamp_ns:
            return Order.NEWEST
        delay = newest.stamp_ns - frame.stamp_ns
        # Two late images in a row mean that the clock was set back by a little.
        if delay > _MAX_DELAY_NS or self._last_was_late:
            return Order.CLOCK_JUMPED
        return Order.LATE
