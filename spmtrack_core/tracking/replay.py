"""Tracks in recorded images as the node would have done, without ROS and without its clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from spmtrack_core.data.bag import BagImage
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.followed import BoxXywh, Reason, Target
from spmtrack_core.tracking.propose import propose_box
from spmtrack_core.tracking.result import SeveralTargetTracker


@dataclass(frozen=True)
class Start:
    """A target to follow, given by its box in one image, or by a point."""

    box_xywh: BoxXywh
    """With ``point``: x and y of the point, and sizes that are ignored."""
    id: str
    label: str = "object"
    number: int = 0
    """The first image of this number or a later one ..."""
    stamp_ns: int = 0
    """... and of this stamp or a later one is that image."""
    point: bool = False
    """The target is given by a point on it; its box is proposed from the image."""

    def is_due(self, image: BagImage) -> bool:
        """Whether the box belongs to this image, if it belonged to none before."""
        return image.number >= self.number and image.stamp_ns >= self.stamp_ns


class ReplayedImage(NamedTuple):
    """An image that was processed."""

    frame: BagImage
    image: Image | None
    """None before the first target, and where it cannot be read."""
    targets: tuple[Target, ...]
    """In the order of their start."""
    seconds: float
    """Time of decoding and tracking."""
    error: str = ""
    """Why the image cannot be read; empty if it can be."""
    failed: tuple[str, ...] = ()
    """A sentence on each target that could not be started in this image."""


def newest_only(
    images: Iterable[BagImage],
    seconds: Callable[[], float],
    speed: float = 1.0,
    keep: Callable[[BagImage], bool] = lambda image: False,
) -> Iterator[BagImage]:
    """The images that a node would process that always takes the newest one.

    The recording is played ``speed`` times as fast as it was made; ``seconds`` is asked for the
    time that the last image has taken, once that is done. Images to ``keep`` are never skipped.
    """
    free = -math.inf  # when the image before is done, ns of the recording
    waiting: BagImage | None = None
    for image in images:
        if waiting is not None:
            begun = max(free, waiting.time_ns)
            if begun < image.time_ns or keep(waiting):
                yield waiting
                free = begun + 1e9 * seconds() * speed
        waiting = image
    if waiting is not None:
        yield waiting


def replay(
    tracker: SeveralTargetTracker, images: Iterable[BagImage], waiting: list[Start]
) -> Iterator[ReplayedImage]:
    """Start every target in its image and follow it through all that come later.

    Targets whose image has come are removed from ``waiting``. An image that cannot be read makes
    the targets LOST, and the replay goes on. Where a target cannot be started, for its image
    cannot be read or does not fit the box, the others are followed; ``ValueError`` if there are
    none yet.
    """
    targets: tuple[Target, ...] = ()
    for frame in images:
        due = [start for start in waiting if start.is_due(frame)]
        waiting[:] = [start for start in waiting if start not in due]
        if not targets and not due:
            yield ReplayedImage(frame, None, (), 0.0)
            continue
        begun = time.perf_counter()
        try:
            image = frame.decode()
        except ValueError as error:
            if not targets:
                raise ValueError(f"image {frame.number}: {error}") from None
            failed = [_not_started(start, frame, error) for start in due]
            targets = tuple(each.lost(frame, Reason.INVALID_IMAGE) for each in targets)
            seconds = time.perf_counter() - begun
            yield ReplayedImage(frame, None, targets, seconds, str(error), tuple(failed))
            continue
        results = tracker.follow(image, [each.handle for each in targets]) if targets else ()
        pairs = zip(targets, results, strict=True)
        after = [each.found(frame, result, image.shape[:2]) for each, result in pairs]
        failed = []
        for start in due:
            box = start.box_xywh
            try:
                if start.point:
                    box = propose_box(tracker, image, box[:2])
                handle = tracker.start(image, box)
            except ValueError as error:
                if not targets:
                    raise
                failed.append(_not_started(start, frame, error))
                continue
            hw, now = image.shape[:2], frame.stamp_ns / 1e9
            after.append(Target.started_in(frame, hw, start.id, start.label, box, handle, now))
        targets = tuple(after)
        seconds = time.perf_counter() - begun
        yield ReplayedImage(frame, image, targets, seconds, failed=tuple(failed))


def _not_started(start: Start, frame: BagImage, error: Exception) -> str:
    return f"target {start.id} was not started in image {frame.number}: {error}"
