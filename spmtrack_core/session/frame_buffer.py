"""The last images as they arrived, found by stamp. Not thread-safe."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any

# The clock was set back if so many late images arrive one after another, each newer than the one
# before, while no image of the old clock comes. A stream of two cameras whose stamps differ has
# such runs too, but shorter ones: the next image of the leading camera ends them.
_RUN = 3
_MIN_INTERVALS, _MAX_WAIT = 2.5, 1.0  # of the images before, and s: so long no other image comes


class Order(Enum):
    """Place of an image in the stream."""

    NEWEST = "newest"
    LATE = "late"
    """Older than the newest one, which has overtaken it: it does not count."""
    CLOCK_JUMPED = "clock jumped"
    """The clock was set back: images of later stamps were removed."""


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
    """At most ``max_images`` images of together ``max_bytes``, but always the newest one.

    Besides, the last three late ones are kept until it is known whether the clock was set back.
    """

    def __init__(self, max_images: int = 30, max_bytes: float = float("inf")) -> None:
        """Raises ``ValueError`` if there is no room for an image."""
        if max_images < 1:
            raise ValueError(f"max_images is {max_images}: expected at least 1")
        self._max_images, self._max_bytes = max_images, max_bytes
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._late: list[Frame] = []  # since the newest image, in the order of their stamps
        self._interval = 0.0  # s between the arrivals of the newest image and the one before
        # Stamp and arrival of the last image of the leading clock. They outlast a jump: if that
        # clock goes on, its interval tells that the images come from two cameras.
        self._leading = (0, 0.0)

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
        newest = self.newest
        if newest is not None and frame.stamp_ns < newest.stamp_ns:
            in_order = [each for each in self._late if each.stamp_ns <= frame.stamp_ns]
            self._late = [*in_order, frame][-_RUN:]
            silence = min(_MIN_INTERVALS * self._interval, _MAX_WAIT)
            if len(self._late) < _RUN or frame.arrival - newest.arrival < silence:
                return Order.LATE
            # What is older than the new images stays: a single stamp in the future is not worth
            # the others.
            while self._frames and self._frames[-1].stamp_ns > self._late[0].stamp_ns:
                self._bytes -= self._frames.pop().size
            for each in self._late:
                self._append(each)
            self._interval = (frame.arrival - self._late[0].arrival) / (_RUN - 1)
            self._late = []
            return Order.CLOCK_JUMPED
        leading_stamp, before = self._leading
        if frame.stamp_ns >= leading_stamp:
            self._leading = (frame.stamp_ns, frame.arrival)
        elif newest is not None:
            before = newest.arrival
        self._interval = frame.arrival - before if newest is not None else 0.0
        self._late = []
        self._append(frame)
        return Order.NEWEST

    def _append(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._bytes += frame.size
        while len(self._frames) > self._max_images or (
            self._bytes > self._max_bytes and len(self._frames) > 1
        ):
            self._bytes -= self._frames.popleft().size

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
        self._late = []
        self._bytes, self._interval, self._leading = 0, 0.0, (0, 0.0)
