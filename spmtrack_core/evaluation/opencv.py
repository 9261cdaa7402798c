"""The trackers that come with OpenCV, behind the two methods of ours, to be compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from spmtrack_core.geometry.image import Image


class Found(NamedTuple):
    """What one of them says of a frame."""

    box_xywh: tuple[float, ...]
    confidence: float
    """NaN for a tracker that has none."""


class OpenCVTracker:
    """Follows one target with a tracker of OpenCV; ``make`` makes a new one for every target.

    ``scored`` says whether it has a confidence: some have the method and no meaning in it.
    """

    def __init__(self, make: Callable[[], Any], scored: bool = False) -> None:
        self.make, self.scored = make, scored
        self.tracker: Any = None
        self.box_xywh: tuple[float, ...] = ()

    def init(self, frame: Image, box_xywh: Sequence[float]) -> None:
        """Name the target: ``frame`` RGB uint8 (H, W, 3), ``box_xywh`` in its pixels.

        OpenCV takes whole pixels only.
        """
        self.tracker = self.make()
        x, y, w, h = (round(float(value)) for value in box_xywh)
        self.box_xywh = (float(x), float(y), float(max(w, 1)), float(max(h, 1)))
        self.tracker.init(_bgr(frame), (x, y, max(w, 1), max(h, 1)))

    def update(self, frame: Image) -> Found:
        """Find the target in the next frame; where it finds none, it is where it was."""
        found, box = self.tracker.update(_bgr(frame))
        if found:
            self.box_xywh = tuple(float(value) for value in box)
        score = self.tracker.getTrackingScore() if self.scored else float("nan")
        return Found(self.box_xywh, float(score))


def opencv_trackers(
    nano: Sequence[Path] = (), vit: Path | None = None
) -> tuple[dict[str, OpenCVTracker], list[str]]:
    """Trackers of the installed OpenCV by name, and a word on each that it does not have.

    ``nano`` are the two ONNX files of NanoTrack (backbone, head), ``vit`` that of VitTrack, as
    published in OpenCV's model zoo. Raises ``FileNotFoundError`` for files that are not there.
    """
    for path in (*nano, *([vit] if vit else [])):
        if not Path(path).is_file():
            raise FileNotFoundError(f"no ONNX file at {path}")
    library: Any = cv2  # its type stubs know half of it
    trackers, absent = {}, []
    for name in ("CSRT", "KCF", "MIL"):
        make = getattr(library, f"Tracker{name}_create", None)
        if make is None:
            absent.append(
                f"{name} is not in this OpenCV {cv2.__version__}: it needs "
                "opencv-contrib-python-headless in place of opencv-python-headless"
            )
        else:
            trackers[name] = OpenCVTracker(make)
    if nano:
        settings = library.TrackerNano_Params()
        settings.backbone, settings.neckhead = (str(path) for path in nano)
        trackers["NanoTrack"] = OpenCVTracker(lambda: library.TrackerNano_create(settings), True)
    if vit:
        options = library.TrackerVit_Params()
        options.net = str(vit)
        trackers["VitTrack"] = OpenCVTracker(lambda: library.TrackerVit_create(options), True)
    return trackers, absent


def _bgr(frame: Image) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
