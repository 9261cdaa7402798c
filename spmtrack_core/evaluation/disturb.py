"""Sequences made harder in the ways a robot meets: careless boxes, dark, shaken, slow video.

Each function takes a sequence with boxes to one of the same length (``slow``: a third of it) that
is the same every time it is read. ``DISTURBANCES`` names them all, for ``spmtrack compare``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.geometry.image import Image


def redrawn(
    sequence: FrameSequence, left: float, top: float, right: float, bottom: float
) -> FrameSequence:
    """Another box about the same target, in all frames: its sides moved outwards by these shares
    of its width and height, as far as the picture goes."""
    x, y, w, h = _boxes(sequence).T
    low = np.stack([x - left * w, y - top * h], 1)
    high = np.stack([x + (1 + right) * w, y + (1 + bottom) * h], 1)
    return replace(sequence, boxes_xywh=_inside(low, high, _size(sequence)))


def small(sequence: FrameSequence, side: float = 22.0, quality: int = 50) -> FrameSequence:
    """Shrunk until the given box is as large as a square of ``side`` px, without colour, as JPEG.

    Larger targets only; the others stay as large as they are.
    """
    first = _boxes(sequence)[0]
    scale = min(1.0, side / float(np.sqrt(first[2] * first[3])))

    def frames() -> Iterator[Image]:
        for frame in sequence:
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            coded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            yield cv2.cvtColor(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), cv2.COLOR_GRAY2RGB)

    return replace(sequence, open=frames, boxes_xywh=_boxes(sequence) * scale)


def dark(sequence: FrameSequence, light: float = 0.4, noise: float = 12.0) -> FrameSequence:
    """A share of the light, and noise of a standard deviation of ``noise`` grey levels."""

    def frames() -> Iterator[Image]:
        rng = np.random.default_rng(0)
        for frame in sequence:
            grain = rng.standard_normal(frame.shape, np.float32)
            yield np.clip(light * frame + noise * grain, 0, 255).astype(np.uint8)

    return replace(sequence, open=frames)


def lit(sequence: FrameSequence, light: float = 0.2, after: int = 12) -> FrameSequence:
    """A share of the light in the first frames, then a lamp is switched on."""

    def frames() -> Iterator[Image]:
        for index, frame in enumerate(sequence):
            yield (frame * np.float32(light)).astype(np.uint8) if index < after else frame

    return replace(sequence, open=frames)


def shaken(sequence: FrameSequence, amount: float = 0.45) -> FrameSequence:
    """A camera that is shaken from frame to frame, by so many sides of the given box (standard
    deviation, each axis). What leaves the picture counts as absent."""
    boxes = _boxes(sequence)
    amount *= float(np.sqrt(boxes[0, 2] * boxes[0, 3]))
    shifts = amount * np.random.default_rng(0).standard_normal((len(boxes), 2))
    shifts[0] = 0
    shifts = shifts.round()

    def frames() -> Iterator[Image]:
        for frame, (x, y) in zip(sequence, shifts, strict=True):
            h, w = frame.shape[:2]
            move = np.array([[1, 0, x], [0, 1, y]])
            yield cv2.warpAffine(frame, move, (w, h), borderMode=cv2.BORDER_REPLICATE)

    low = boxes[:, :2] + shifts
    moved = _inside(low, low + boxes[:, 2:], _size(sequence))
    return replace(sequence, open=frames, boxes_xywh=moved)


def slow(sequence: FrameSequence, step: int = 3) -> FrameSequence:
    """One frame in ``step``."""
    boxes = _boxes(sequence)[::step]
    return replace(
        sequence,
        open=lambda: islice(sequence, 0, None, step),
        length=len(boxes),
        fps=sequence.fps and sequence.fps / step,
        boxes_xywh=boxes,
    )


def hidden(sequence: FrameSequence, every: int = 20, frames_gone: int = 8) -> FrameSequence:
    """The target is gone in the last ``frames_gone`` of ``every`` frames: a piece of the picture
    beside it lies over it. When it comes back it is where it has meanwhile moved to.

    Raises ``ValueError`` where no frame would be left.
    """
    if not 0 < frames_gone < every:
        raise ValueError(f"frames_gone must be in 1..{every - 1}; got {frames_gone}")
    boxes = _boxes(sequence)
    gone = np.arange(len(boxes)) % every >= every - frames_gone

    def frames() -> Iterator[Image]:
        for frame, box, is_gone in zip(sequence, boxes, gone, strict=True):
            yield _covered(frame, box) if is_gone and np.isfinite(box).all() else frame

    absent = np.where(gone[:, None], np.nan, boxes)
    return replace(sequence, open=frames, boxes_xywh=absent)


DISTURBANCES: dict[str, Callable[[FrameSequence], FrameSequence]] = {
    "loose box": lambda sequence: redrawn(sequence, 0.15, 0.15, 0.15, 0.15),
    "tight box": lambda sequence: redrawn(sequence, -0.12, -0.12, -0.12, -0.12),
    "box beside": lambda sequence: redrawn(sequence, 0.2, -0.1, -0.2, 0.1),
    "upper part": lambda sequence: redrawn(sequence, 0.05, 0.05, 0.05, -0.4),
    "small": small,
    "dark": dark,
    "lamp": lit,
    "shaken": shaken,
    "slow": slow,
    "hidden": hidden,
}


def _boxes(sequence: FrameSequence) -> Boxes:
    if sequence.boxes_xywh is None:
        raise ValueError(f"sequence {sequence.name} has no boxes to compare with")
    return sequence.boxes_xywh


def _size(sequence: FrameSequence) -> np.ndarray:
    """Width and height of the frames."""
    height, width = next(iter(sequence)).shape[:2]
    return np.array([width, height])


def _inside(low: np.ndarray, high: np.ndarray, size: np.ndarray) -> Boxes:
    """What of boxes with these corners (N, 2) is in the picture: (N, 4), NaN where nothing is."""
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    seen = (high - low > 0).all(1, keepdims=True)
    return np.where(seen, np.concatenate([low, high - low], 1), np.nan)


def _covered(frame: Image, box_xywh: np.ndarray) -> Image:
    """A copy of the frame with what lies to one side of the box (4,) over it and a rim."""
    x, y, w, h = box_xywh
    width, height = frame.shape[1], frame.shape[0]
    x1, y1 = max(0, int(x - 0.15 * w)), max(0, int(y - 0.15 * h))
    x2, y2 = min(width, math.ceil(x + 1.15 * w)), min(height, math.ceil(y + 1.15 * h))
    frame = frame.copy()
    if x1 == 0 and x2 == width:  # nothing is beside it
        frame[y1:y2] = frame.mean((0, 1)).round()
        return frame
    # from the side with more room, the picture's last column there again where that is too little
    columns = np.arange(x1, x2) + (x2 - x1) * (1 if width - x2 >= x1 else -1)
    frame[y1:y2, x1:x2] = frame[y1:y2, np.clip(columns, 0, width - 1)]
    return frame
