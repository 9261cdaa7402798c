"""The box of a target of which only a point is known, proposed by the tracker itself.

Squares about the point are templates; the box that the network finds for each is a candidate. A
good candidate has a high confidence, agrees with its square, has the point in its middle and
differs in its colors from what surrounds it; ``WEIGHTS`` make one number of this. Five sizes are
tried first, then the two next to the best one. The best box of all is taken as a template once
more, and what the network finds for it is the answer. Without torch: any tracker with ``start``
and ``follow`` will do.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from spmtrack_core.geometry.boxes import Boxes, iou_xyxy, xywh_to_xyxy
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.result import SeveralTargetTracker

SIZES = 2.0 ** (-np.arange(11) / 2)
"""(S,) sides of the squares, in shorter sides of the frame; every second one is tried first."""
FEATURES = ("confidence", "contrast", "agrees", "aside")
WEIGHTS = np.array([-0.470, 1.226, 0.286, -0.378, -1.045])
"""A constant, and one for each of ``FEATURES``: fitted by benchmarks/propose.py to clips."""

_SMALLEST = 3.0  # px, of a candidate's sides
_SIDE = 288  # px, longest side of the image whose colors are compared
_RING = 0.3  # of a box's sides: how far its surroundings reach


class Candidates(NamedTuple):
    """What may be the box of the target."""

    boxes_xywh: Boxes
    """(S, 4) frame pixels."""
    features: NDArray[np.float64]
    """(S, 4) the ``FEATURES`` of each."""

    def best(self) -> int:
        """The candidate that agrees best with all that are good."""
        quality = np.clip(self.features @ WEIGHTS[1:] + WEIGHTS[0], 0.01, None)
        boxes_xyxy = xywh_to_xyxy(self.boxes_xywh)
        return int(np.argmax(iou_xyxy(boxes_xyxy[:, None], boxes_xyxy[None]) @ quality**2))


def propose_box(
    tracker: SeveralTargetTracker, frame: Image, point_xy: tuple[float, float]
) -> tuple[float, float, float, float]:
    """The box, xywh in pixels, of what is at a point of the frame (RGB uint8, H, W, 3).

    Three passes of the network, with five targets, two and one; what ``tracker`` follows stays as
    it is. Raises ``ValueError`` for a point outside of the frame.
    """
    coarse = np.arange(1, len(SIZES), 2)
    found = find_candidates(tracker, frame, point_xy, SIZES[coarse])
    best = coarse[found.best()]
    near = find_candidates(tracker, frame, point_xy, SIZES[[best - 1, best + 1]])
    found = Candidates(*map(np.concatenate, zip(found, near, strict=True)))
    boxes, _ = _find(tracker, frame, found.boxes_xywh[[found.best()]])
    x, y, w, h = boxes[0].tolist()
    return x, y, w, h


def find_candidates(
    tracker: SeveralTargetTracker,
    frame: Image,
    point_xy: tuple[float, float],
    sizes: NDArray[np.float64] = SIZES,
) -> Candidates:
    """The candidates about a point, with their features; one pass of the network."""
    height, width = frame.shape[:2]
    x, y = point_xy
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"point ({x:g}, {y:g}) lies outside the image of {width} x {height} px")
    sides = min(height, width) * sizes
    squares = np.column_stack([x - sides / 2, y - sides / 2, sides, sides])
    boxes, confidences = _find(tracker, frame, squares)
    offset = np.abs(boxes[:, :2] + boxes[:, 2:] / 2 - point_xy) / boxes[:, 2:]
    features = {
        "confidence": confidences,
        "contrast": _contrast(frame, boxes),
        "agrees": iou_xyxy(xywh_to_xyxy(squares), xywh_to_xyxy(boxes)),
        "aside": offset.max(1),
    }
    return Candidates(boxes, np.column_stack([features[name] for name in FEATURES]))


def _find(
    tracker: SeveralTargetTracker, frame: Image, templates_xywh: Boxes
) -> tuple[Boxes, NDArray[np.float64]]:
    """The box (S, 4), inside the frame, and the confidence (S,) that each template leads to."""
    results = tracker.follow(frame, [tracker.start(frame, each) for each in templates_xywh])
    boxes = np.array([result.box_xywh for result in results], np.float64)
    size = np.array(frame.shape[1::-1], np.float64)
    boxes[:, 2:] = np.clip(boxes[:, 2:], np.minimum(_SMALLEST, size), size)
    boxes[:, :2] = np.clip(boxes[:, :2], 0, size - boxes[:, 2:])
    return boxes, np.array([result.confidence for result in results], np.float64)


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
