"""The box of a target of which only a point is known, proposed by the tracker itself.

Squares of ten sizes about the point are templates; the box that the network finds for each is a
candidate. A good candidate, taken as the template, is found again as itself, with a high
confidence, and differs in its colors from what surrounds it. ``WEIGHTS`` make one number of this.
Without torch: any tracker with ``start`` and ``follow`` will do.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from spmtrack_core.geometry.boxes import Boxes, iou_xyxy, xywh_to_xyxy
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.result import SeveralTargetTracker, TrackResult

SIZES = 2.0 ** (-np.arange(10) / 2)
"""(S,) sides of the squares, in shorter sides of the frame."""
FEATURES = ("again", "contrast", "agrees", "same", "grows", "aspect", "aside")
WEIGHTS = np.array([-0.542, 2.386, 0.231, 0.090, -1.334, 0.570, 0.198, -0.217])
"""A constant, and one for each of ``FEATURES``: fitted by benchmarks/propose.py to clips."""

_BATCH = 5  # exported networks have a largest one
_SMALLEST = 3.0  # px, of a candidate's sides
_SIDE = 288  # px, longest side of the image whose colors are compared
_RING = 0.3  # of a box's sides: how far its surroundings reach


class Candidates(NamedTuple):
    """What may be the box of the target."""

    boxes_xywh: Boxes
    """(S, 4) frame pixels."""
    features: NDArray[np.float64]
    """(S, 7) the ``FEATURES`` of each."""


def propose_box(
    tracker: SeveralTargetTracker, frame: Image, point_xy: tuple[float, float]
) -> tuple[float, float, float, float]:
    """The box, xywh in pixels, of what is at a point of the frame (RGB uint8, H, W, 3).

    Two passes of the network with ten targets; nothing that ``tracker`` follows is touched.
    Raises ``ValueError`` for a point outside of the frame.
    """
    x, y, w, h = choose(find_candidates(tracker, frame, point_xy)).tolist()
    return x, y, w, h


def choose(candidates: Candidates, weights: NDArray[np.float64] = WEIGHTS) -> Boxes:
    """(4,) the candidate that agrees best with all that are good."""
    quality = np.clip(candidates.features @ weights[1:] + weights[0], 0.01, None)
    boxes_xyxy = xywh_to_xyxy(candidates.boxes_xywh)
    votes = iou_xyxy(boxes_xyxy[:, None], boxes_xyxy[None]) @ quality**4
    return candidates.boxes_xywh[int(np.argmax(votes))]


def find_candidates(
    tracker: SeveralTargetTracker, frame: Image, point_xy: tuple[float, float]
) -> Candidates:
    """The candidates about a point, with their features."""
    height, width = frame.shape[:2]
    x, y = point_xy
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"point ({x:g}, {y:g}) lies outside the image of {width} x {height} px")
    sides = min(height, width) * SIZES
    squares = np.column_stack([x - sides / 2, y - sides / 2, sides, sides])
    boxes, _ = _find(tracker, frame, squares)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], _SMALLEST)
    found, confident = _find(tracker, frame, boxes)
    same = _ious(boxes, found)
    sizes = np.sqrt(boxes[:, 2] * boxes[:, 3])
    offset = np.abs(boxes[:, :2] + boxes[:, 2:] / 2 - point_xy) / boxes[:, 2:]
    features = {
        "again": confident * same,
        "contrast": _contrast(frame, boxes),
        "agrees": _ious(squares, boxes),
        "same": same,
        "grows": np.log(sizes / sides),
        "aspect": np.abs(np.log(boxes[:, 2] / boxes[:, 3])),
        "aside": offset.max(1),
    }
    return Candidates(boxes, np.column_stack([features[name] for name in FEATURES]))


def _find(
    tracker: SeveralTargetTracker, frame: Image, templates_xywh: Boxes
) -> tuple[Boxes, NDArray[np.float64]]:
    """The box (S, 4) and the confidence (S,) that the network finds for each template."""
    results: list[TrackResult] = []
    for start in range(0, len(templates_xywh), _BATCH):
        batch = templates_xywh[start : start + _BATCH]
        results += tracker.follow(frame, [tracker.start(frame, each) for each in batch])
    boxes = np.array([result.box_xywh for result in results], np.float64)
    return boxes, np.array([result.confidence for result in results], np.float64)


def _ious(a_xywh: Boxes, b_xywh: Boxes) -> NDArray[np.float64]:
    return iou_xyxy(xywh_to_xyxy(a_xywh), xywh_to_xyxy(b_xywh))


def _contrast(frame: Image, boxes_xywh: Boxes) -> NDArray[np.float64]:
    """(S,) 0..1: how much the colors of a box's middle differ from those around the box.

    Half the L1 distance of two histograms of 512 colors in Lab.
    """
    scale = min(1.0, _SIDE / max(frame.shape[:2]))
    size = [max(1, round(side * scale)) for side in frame.shape[1::-1]]
    lab = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    # 8 levels of lightness, and 8 of each color axis over the range that photographs use
    levels = lab.astype(np.int64) - (0, 96, 96)
    levels = np.clip(levels // (32, 8, 8), 0, 7) @ (64, 8, 1)  # (h, w)

    def histogram(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
        x = np.clip(np.round([left, right]), 0, size[0]).astype(int)
        y = np.clip(np.round([top, bottom]), 0, size[1]).astype(int)
        return np.bincount(levels[y[0] : y[1], x[0] : x[1]].ravel(), minlength=512).astype(float)

    contrasts = []
    for x, y, w, h in boxes_xywh * scale:
        middle = histogram(x + w / 4, y + h / 4, x + w * 3 / 4, y + h * 3 / 4)
        right, bottom, dx, dy = x + w, y + h, _RING * w, _RING * h
        around = histogram(x - dx, y - dy, right + dx, bottom + dy) - histogram(
            x, y, right, bottom
        )
        parts = [each / max(each.sum(), 1) for each in (middle, around)]
        contrasts.append(np.abs(parts[0] - parts[1]).sum() / 2)
    return np.array(contrasts)
