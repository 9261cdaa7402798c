"""The loop over the frames of a sequence: start on the first, track in all later ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.result import TrackResult, TrackState, VideoTracker


class TrackedFrame(NamedTuple):
    """One frame and the tracker's result."""

    frame: Image
    """RGB uint8 (H, W, 3)."""
    result: TrackResult
    """Of the first frame: the given box, without a confidence (NaN)."""
    seconds: float
    """Time that the tracker took, without reading the frame."""
    time: float | None = None
    """Time of the frame in s from the first one; None if the source has no times."""


def track_frames(
    tracker: VideoTracker,
    frames: FrameSequence | Iterable[Image],
    box_xywh: Sequence[float] | Callable[[Image], Sequence[float]],
) -> Iterator[TrackedFrame]:
    """Start ``tracker`` with ``box_xywh``, in pixels, on the first frame, and follow the target.

    ``box_xywh`` may be a function that gives the box in the first frame.
    Yields each frame as soon as it is tracked, nothing for a source without frames. An error of
    the source or of the tracker is raised at its frame, after all frames before it.
    """
    given = None
    if isinstance(frames, FrameSequence):
        timed = frames.timed()
    else:
        timed = ((frame, None) for frame in frames)
    for frame, when in timed:
        started = time.perf_counter()
        if given is None:
            box = box_xywh(frame) if callable(box_xywh) else box_xywh
            tracker.init(frame, box)
            x, y, w, h = (float(value) for value in box)
            result = given = TrackResult((x, y, w, h), math.nan, TrackState.TRACKING)
        else:
            result = tracker.update(frame)
        yield TrackedFrame(frame, result, time.perf_counter() - started, when)
