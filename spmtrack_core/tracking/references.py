"""The reference frames of a target: a buffer of past frames, and the rule that chooses three.

The published code keeps a crop of every frame and embeds the chosen ones again for each frame.
Here a frame is stored as the tokens that the network takes, in a buffer of fixed size: once it is
full, every second entry is dropped and from then on every second frame is stored, so that the
entries stay evenly spread over the video.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Encoded: TypeAlias = tuple[Any, ...]
"""A reference frame as the network takes it: arrays of NumPy, or tensors on a device."""

REFERENCES = 3
"""Reference frames R of SPMTrack, the template among them."""


def select_references(stored: int, rule: str) -> tuple[int, int, int]:
    """Frame indices of the three reference frames when frames 0 .. ``stored`` - 1 are stored.

    Every rule takes the template, index 0. ``half_segments`` adds the middles of both halves,
    ``thirds`` the ends of the first two thirds (SPMTrack, section 3.3). ``template_twice`` adds
    the template again and the middle, so that the given box outweighs the predictions of a weak
    network. Raises ``ValueError`` for ``stored`` below 1 and for another rule.

    >>> [select_references(13, rule) for rule in ("half_segments", "thirds", "template_twice")]
    [(0, 3, 9), (0, 4, 8), (0, 0, 6)]
    """
    if stored < 1:
        raise ValueError(f"reference frames are chosen from at least one frame; got {stored}")
    half, few = stored // 2, stored <= REFERENCES
    first = 0, min(1, stored - 1), stored - 1
    rules = {
        "half_segments": first if few else (0, half // 2, half + half // 2),
        "thirds": first if few else (0, stored // 3, 2 * stored // 3),
        "template_twice": (0, 0, half),
    }
    if rule not in rules:
        raise ValueError(f"rule must be one of {', '.join(rules)}; got {rule!r}")
    return rules[rule]


def last_uses(frames: int, rule: str) -> NDArray[np.int64]:
    """(frames,) the last frame of a video for which each frame is a reference frame; -1: never.

    >>> last_uses(6, "half_segments").tolist()
    [5, 5, 3, 5, -1, -1]
    """
    last = np.full(frames, -1)
    for frame in range(1, frames):
        last[list(select_references(frame, rule))] = frame
    return last


class ExactReferences:
    """As ``ReferenceBuffer``, but exactly what a rule chooses in a video of known length.

    A frame is kept, as float32, until it is chosen for the last time: at most a third of the
    video's frames at once for ``thirds``, 23 % for ``half_segments``.
    """

    def __init__(self, frames: int, rule: str) -> None:
        self.rule = rule
        self.last = last_uses(frames, rule)
        self.kept: dict[int, Encoded] = {}
        self.ending: dict[int, list[int]] = {}
        for frame, last in enumerate(self.last.tolist()):
            self.ending.setdefault(last, []).append(frame)
        self.frames = 0

    @property
    def keeps_next(self) -> bool:
        """Whether the next frame is ever chosen; others need not be cropped."""
        return self.frames == 0 or (self.frames < len(self.last) and self.last[self.frames] >= 0)

    def skip(self) -> None:
        """Count a frame that is not kept."""
        for frame in self.ending.get(self.frames, ()):
            if frame:
                self.kept.pop(frame, None)
        self.frames += 1

    def append(self, *frame: Any) -> None:
        """Add the next frame."""
        number = self.frames
        self.skip()
        self.kept[number] = frame

    def template(self) -> list[Encoded]:
        """The template in place of every reference frame."""
        return [self.kept[0]] * REFERENCES

    def gather(self, rule: str) -> list[Encoded]:
        """The R reference frames for the next frame.

        Raises ``ValueError`` beyond the announced length, or for another rule.
        """
        if rule != self.rule or self.frames >= len(self.last):
            raise ValueError(
                f"exact references were made for {len(self.last)} frames by rule {self.rule}; "
                f"got frame {self.frames + 1} by rule {rule}"
            )
        return [self.kept[frame] for frame in select_references(self.frames, rule)]


class ReferenceBuffer:
    """Past frames as the network takes them, in memory that is allocated once.

    A frame is one or several float32 arrays of the given ``shapes``; ``empty`` of the engine
    allocates them. Entry ``i`` is frame ``i * stride``; the template is entry 0 and never leaves.
    """

    def __init__(
        self,
        capacity: int,
        *shapes: tuple[int, ...],
        stride: int = 1,
        empty: Callable[[tuple[int, ...]], Any] = np.empty,
    ) -> None:
        self.capacity = capacity
        self.parts = tuple(empty((capacity, *shape)) for shape in shapes)
        self.stride = stride
        self.frames = 0
        """Frames added or skipped so far."""
        self.entries = 0

    @property
    def keeps_next(self) -> bool:
        """Whether the stride falls on the next frame; other frames need not be cropped."""
        return self.frames % self.stride == 0

    def skip(self) -> None:
        """Count a frame that is not kept."""
        self.frames += 1

    def append(self, *frame: Any) -> None:
        """Add the next frame; it is kept if the stride falls on it."""
        if self.keeps_next and self.entries == self.capacity:
            kept = (self.entries + 1) // 2
            for part in self.parts:
                for entry in range(1, kept):
                    part[entry] = part[2 * entry]
            self.entries = kept
            self.stride *= 2
        if self.keeps_next:
            for part, array in zip(self.parts, frame, strict=True):
                part[self.entries] = array
            self.entries += 1
        self.frames += 1

    def nearest(self, frame_index: int) -> int:
        """The stored frame index nearest to ``frame_index``; the earlier of two."""
        entry = (frame_index + (self.stride - 1) // 2) // self.stride
        return min(entry, self.entries - 1) * self.stride

    def template(self) -> list[Encoded]:
        """The template in place of every reference frame."""
        return [tuple(part[0] for part in self.parts)] * REFERENCES

    def gather(self, rule: str) -> list[Encoded]:
        """The R reference frames for the next frame, as views of the buffer."""
        wanted = select_references(self.frames, rule)
        entries = [self.nearest(frame) // self.stride for frame in wanted]
        return [tuple(part[entry] for part in self.parts) for entry in entries]
