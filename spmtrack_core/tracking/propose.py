"""The box of a target of which only a point is known, proposed by the tracker itself.

Squares of five sizes about the point are templates, and the network finds a box for each. Boxes
that agree, and in which the network is confident, are probably the target: each votes for those
that it overlaps. The box with the most votes is taken as a template once more; what the network
finds for it is the answer. Without torch: any tracker with ``start`` and ``follow`` will do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spmtrack_core.geometry.boxes import Boxes, iou_xyxy, xywh_to_xyxy
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.result import SeveralTargetTracker

SIZES = np.sqrt(0.5) * 2.0 ** -np.arange(5)
"""(S,) sides of the squares, in shorter sides of the frame. Five, as exported networks take."""
_POWER = 4  # of the confidence, in a vote; chosen with the sizes on training clips
_SMALLEST = 3.0  # px, of a box's sides


def propose_box(
    tracker: SeveralTargetTracker, frame: Image, point_xy: tuple[float, float]
) -> tuple[float, float, float, float]:
    """The box, xywh in pixels, of what is at a point of the frame (RGB uint8, H, W, 3).

    Two passes of the network, with five targets and with one; nothing that ``tracker`` follows is
    touched. Raises ``ValueError`` for a point outside of the frame.
    """
    height, width = frame.shape[:2]
    x, y = point_xy
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"point ({x:g}, {y:g}) lies outside the image of {width} x {height} px")
    sides = min(height, width) * SIZES
    squares = np.column_stack([x - sides / 2, y - sides / 2, sides, sides])
    boxes, confidences = _find(tracker, frame, squares)
    found, _ = _find(tracker, frame, boxes[[_most_votes(boxes, confidences)]])
    left, top, w, h = found[0].tolist()
    return left, top, w, h


def _most_votes(boxes_xywh: Boxes, confidences: NDArray[np.float64]) -> int:
    """The box that agrees best with all that are confident."""
    boxes_xyxy = xywh_to_xyxy(boxes_xywh)
    votes = iou_xyxy(boxes_xyxy[:, None], boxes_xyxy[None]) @ confidences**_POWER
    return int(np.argmax(votes))


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
