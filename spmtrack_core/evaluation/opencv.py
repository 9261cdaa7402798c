"""OpenCV's trackers, for comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2

from spmtrack_core.evaluation.nanotrack import NanoTrack
from spmtrack_core.files import one_line
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.result import TrackResult, TrackState, VideoTracker

OPENCV_MAP = 16
"""Side of the only map that OpenCV's TrackerNano takes."""


class OpenCVTracker:
    """A tracker of OpenCV as a ``VideoTracker``; ``make`` makes a new one for every target.

    ``scored``: whether its score is a confidence. Some trackers return a score without meaning.
    """

    def __init__(self, make: Callable[[], Any], scored: bool = False) -> None:
        self.make, self.scored = make, scored
        self.tracker: Any = None
        self.box_xywh = (0.0, 0.0, 0.0, 0.0)

    def init(self, frame: Image, box_xywh: Sequence[float]) -> None:
        """Start on ``frame``, RGB uint8 (H, W, 3), with the target's box in its pixels.

        The box is rounded: OpenCV takes whole pixels only. Raises ``ValueError`` for what OpenCV
        cannot start on.
        """
        self.tracker = self.make()
        x, y, w, h = (round(float(value)) for value in box_xywh)
        w, h = max(w, 1), max(h, 1)
        self.box_xywh = (float(x), float(y), float(w), float(h))
        with _errors():
            self.tracker.init(_bgr(frame), (x, y, w, h))

    def update(self, frame: Image) -> TrackResult:
        """Find the target in the next frame; if it is not found, keep the box and report LOST.

        Raises ``ValueError`` where OpenCV ends in an error.
        """
        with _errors():
            found, box = self.tracker.update(_bgr(frame))
        if found:
            x, y, w, h = (float(value) for value in box)
            self.box_xywh = (x, y, w, h)
        confidence = float(self.tracker.getTrackingScore()) if self.scored else math.nan
        state = TrackState.TRACKING if found else TrackState.LOST
        return TrackResult(self.box_xywh, confidence, state)


def opencv_trackers(
    nano: Sequence[Path] = (), vit: Path | None = None
) -> tuple[dict[str, VideoTracker], list[str]]:
    """Trackers of the installed OpenCV by name, and a line of text for each missing one.

    ``nano`` are the two ONNX files of NanoTrack (backbone, head) of version 2 or 3, ``vit`` is
    that of VitTrack, as published in OpenCV's model zoo. Raises ``FileNotFoundError`` for a file
    that does not exist and ``ValueError`` for files that are not NanoTrack's.
    """
    for path in (*nano, *([vit] if vit else [])):
        if not Path(path).is_file():
            raise FileNotFoundError(f"no ONNX file at {path}")
    library: Any = cv2  # half of these names are missing in its type stubs
    trackers: dict[str, VideoTracker] = {}
    absent = []
    for name in ("CSRT", "KCF", "MIL"):
        make = getattr(library, f"Tracker{name}_create", None)
        if make is None:
            absent.append(
                f"{name} is not in this OpenCV {cv2.__version__}: it needs "
                "opencv-contrib-python-headless instead of opencv-python-headless"
            )
        else:
            trackers[name] = OpenCVTracker(make)
    own = NanoTrack(nano) if nano else None
    if own is not None and own.side != OPENCV_MAP:
        trackers["NanoTrack"] = own
    elif nano:
        settings = library.TrackerNano_Params()
        settings.backbone, settings.neckhead = (str(path) for path in nano)
        trackers["NanoTrack"] = OpenCVTracker(lambda: library.TrackerNano_create(settings), True)
    if vit:
        options = library.TrackerVit_Params()
        options.net = str(vit)
        trackers["VitTrack"] = OpenCVTracker(lambda: library.TrackerVit_create(options), True)
    return trackers, absent


@contextmanager
def _errors() -> Iterator[None]:
    """An error of OpenCV as a ``ValueError`` of one line."""
    try:
        yield
    except cv2.error as error:
        raise ValueError(f"OpenCV: {one_line(error)}") from None


def _bgr(frame: Image) -> Image:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
