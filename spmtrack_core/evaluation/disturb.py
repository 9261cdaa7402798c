"""Disturbances that robots meet: careless boxes; dark, shaken and slow video.

Each function makes a harder sequence of the same length (``slow``: of a third) out of a sequence
with boxes. Every reading gives the same frames. ``DISTURBANCES`` has all of them by name, for
``spmtrack compare``. All raise ``ValueError`` for a sequence without the boxes that they need.
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
    """Move the sides of the box outwards by shares of its width and height, in all frames.

    The box is clipped to the frame; NaN if it lies outside.
    """
    x, y, w, h = _boxes(sequence).T
    low = np.stack([x - left * w, y - top * h], 1)
    high = np.stack([x + (1 + right) * w, y + (1 + bottom) * h], 1)
    return replace(sequence, boxes_xywh=_inside(low, high, _size(sequence)))


def small(sequence: FrameSequence, side: float = 22.0, quality: int = 50) -> FrameSequence:
    """Shrink the frames until the first box has the area of a square of ``side`` px; gray, JPEG.

    A smaller target keeps its size. ``quality`` is that of JPEG, 0..100.
    """
    first = _boxes(sequence)[0]
    scale = min(1.0, side / float(np.sqrt(first[2] * first[3])))

    def frames() -> Iterator[Image]:
        for frame in sequence:
            gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            coded = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            yield cv2.cvtColor(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), cv2.COLOR_GRAY2RGB)

    return replace(sequence, open=frames, boxes_xywh=_boxes(sequence) * scale)


def dark(sequence: FrameSequence, light: float = 0.4, noise: float = 12.0) -> FrameSequence:
    """Keep a share of the light and add noise with a standard deviation of ``noise``, 0..255."""

    def frames() -> Iterator[Image]:
        rng = np.random.default_rng(0)
        for frame in sequence:
            grain = rng.standard_normal(frame.shape, np.float32)
            yield np.clip(light * frame + noise * grain, 0, 255).astype(np.uint8)

    return replace(sequence, open=frames)


def lit(sequence: FrameSequence, light: float = 0.2, after: int = 12) -> FrameSequence:
    """Keep a share of the light in the first ``after`` frames; then a lamp is switched on."""

    def frames() -> Iterator[Image]:
        for index, frame in enumerate(sequence):
            yield (frame * np.float32(light)).astype(np.uint8) if index < after else frame

    return replace(sequence, open=frames)


def shaken(sequence: FrameSequence, amount: float = 0.45) -> FrameSequence:
    """Shift every frame at random; a target outside the frame counts as absent.

    ``amount`` is the standard deviation along each axis, in sides of the first box.
    """
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
    """Keep one frame in ``step``."""
    boxes = _boxes(sequence)[::step]
    return replace(
        sequence,
        open=lambda: islice(sequence, 0, None, step),
        length=len(boxes),
        fps=sequence.fps and sequence.fps / step,
        boxes_xywh=boxes,
    )


def hidden(sequence: FrameSequence, every: int = 20, frames_gone: int = 8) -> FrameSequence:
    """Cover the target, with pixels from beside it, in ``frames_gone`` of ``every`` frames.

    The target moves on while it is covered. Raises ``ValueError`` if no frame would show it.
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
    """Boxes of corners ``low`` and ``high`` (N, 2), clipped: (N, 4) xywh, NaN without area."""
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    seen = (high - low > 0).all(1, keepdims=True)
    return np.where(seen, np.concatenate([low, high - low], 1), np.nan)


def _covered(frame: Image, box_xywh: np.ndarray) -> Image:
    """A copy of the frame; pixels from beside the box (4,) cover the box and a rim."""
    x, y, w, h = box_xywh
    width, height = frame.shape[1], frame.shape[0]
    x1, y1 = max(0, int(x - 0.15 * w)), max(0, int(y - 0.15 * h))
    x2, y2 = min(width, math.ceil(x + 1.15 * w)), min(height, math.ceil(y + 1.15 * h))
    frame = frame.copy()
    if x1 == 0 and x2 == width:  # nothing lies beside the box
        frame[y1:y2] = frame.mean((0, 1)).round()
        return frame
    # from the wider side; its last column is repeated if it is too narrow
    columns = np.arange(x1, x2) + (x2 - x1) * (1 if width - x2 >= x1 else -1)
    frame[y1:y2, x1:x2] = frame[y1:y2, np.clip(columns, 0, width - 1)]
    return frame
