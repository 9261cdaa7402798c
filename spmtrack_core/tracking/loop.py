"""The loop over the frames of a sequence: start on the first, track in all later ones.

``track_frames`` does so for one sequence, ``track_in_step`` for several at once, with one pass of
the network for the frames of all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.geometry.image import Image, check_frame
from spmtrack_core.tracking.result import TrackResult, TrackState, VideoTracker


class TrackedFrame(NamedTuple):
    """One frame and the tracker's result."""

    frame: Image
    """RGB uint8 (H, W, 3)."""
    result: TrackResult
    """Of the first frame: the given box, without a confidence (NaN)."""
    seconds: float
    """Time that the tracker took, without reading the frame; of frames that were tracked at once,
    an equal share."""
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
            result = given = _given(box)
        else:
            result = tracker.update(frame)
        yield TrackedFrame(frame, result, time.perf_counter() - started, when)


class Clip(Protocol):
    """A sequence that ``track_in_step`` tracks."""

    @property
    def box_xywh(self) -> Sequence[float]:
        """The box of the target in the first frame, pixels."""

    def frames(self) -> Iterator[Image]:
        """Start reading."""

    def start(self, frame: Image) -> Any:
        """Start the tracker on the first frame; what it returns stands for the target."""


C = TypeVar("C", bound=Clip)


def track_in_step(
    follow: Callable[[Sequence[Image], Sequence[Any]], Sequence[TrackResult]],
    clips: Iterable[C],
    count: int,
) -> Iterator[tuple[C, TrackedFrame | OSError | ValueError | None]]:
    """Track ``count`` clips at a time; as one ends, the next one takes its place.

    ``follow`` finds several targets, each in a frame of its own, as ``Tracker.follow_each``.
    Yields each clip with every frame of it, then with None, or with the error of a frame that
    cannot be read, of a start, or of ``follow`` for this clip alone; the other clips go on. An
    error of ``follow`` for several clips is raised: it is of none of them. With a ``count`` above
    1, frames are read ahead by a thread for each clip.
    """
    waiting = iter(clips)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(count)) if count > 1 else None
        running: list[_Running[C]] = []
        while True:
            while len(running) < count and (clip := next(waiting, None)) is not None:
                running.append(_Running(clip, pool))
            if not running:
                return
            ready: list[tuple[_Running[C], Image]] = []
            for each in list(running):
                try:
                    frame = each.frame()
                    if frame is None:
                        running.remove(each)
                        yield each.clip, None
                    elif each.started:
                        ready.append((each, frame))
                    else:
                        yield each.clip, each.start(frame)
                except (OSError, ValueError) as error:
                    running.remove(each)
                    yield each.clip, error
            if ready:
                started = time.perf_counter()
                targets = [each.target for each, _ in ready]
                try:
                    results = follow([frame for _, frame in ready], targets)
                except (OSError, ValueError) as error:
                    if len(ready) > 1:
                        raise
                    running.remove(ready[0][0])
                    yield ready[0][0].clip, error
                    continue
                seconds = (time.perf_counter() - started) / len(ready)
                for (each, frame), result in zip(ready, results, strict=True):
                    yield each.clip, TrackedFrame(frame, result, seconds)


class _Running(Generic[C]):
    """A clip between two frames; the next one is read by a thread where there is a pool."""

    def __init__(self, clip: C, pool: ThreadPoolExecutor | None) -> None:
        self.clip, self.pool = clip, pool
        self.target: Any = None
        self.started = False
        self._frames = clip.frames()
        self._asked = pool.submit(next, self._frames, None) if pool else None

    def frame(self) -> Image | None:
        """The next frame; None at the end."""
        if self.pool is None or self._asked is None:
            frame = next(self._frames, None)
        else:
            frame = self._asked.result()
            self._asked = self.pool.submit(next, self._frames, None)
        return None if frame is None else check_frame(frame)

    def start(self, frame: Image) -> TrackedFrame:
        """Start the tracker on the first frame."""
        begun = time.perf_counter()
        self.target = self.clip.start(frame)
        self.started = True
        return TrackedFrame(frame, _given(self.clip.box_xywh), time.perf_counter() - begun)


def _given(box_xywh: Sequence[float]) -> TrackResult:
    """The result for the frame whose box is given."""
    x, y, w, h = (float(value) for value in box_xywh)
    return TrackResult((x, y, w, h), math.nan, TrackState.TRACKING)
