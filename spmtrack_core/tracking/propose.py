"""The box of a target of which only a point is known, proposed by the tracker itself.

Squares about the point are templates; the box that the network finds for each is a candidate. A
good candidate has a high confidence and the point in its middle. Five sizes are tried first, then
the two next to the best one. The best box of all is taken as a template once more, and what the
network finds for it is the answer. Without torch: any tracker with ``start`` and ``follow`` will
do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spmtrack_core.geometry.boxes import Boxes, iou_xyxy, xywh_to_xyxy
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.result import SeveralTargetTracker

SIZES = 2.0 ** (-np.arange(11) / 2)
"""(S,) sides of the squares, in shorter sides of the frame; every second one is tried first."""

# Chosen with the bundled nano on the first frames of the clips that it was trained on.
_DOUBT = 0.65  # of a confidence: only what exceeds it counts
_ASIDE = 0.2  # taken from it for each side of the candidate from its middle to the point
_LEAST = 0.01  # quality of any candidate, so that one is chosen where all are doubtful
_SMALLEST = 3.0  # px, of a candidate's sides


class Candidates(NamedTuple):
    """What may be the box of the target."""

    boxes_xywh: Boxes
    """(S, 4) frame pixels."""
    quality: NDArray[np.float64]
    """(S,) how good each is by itself, above 0."""

    def best(self) -> int:
        """The candidate that agrees best with all that are good."""
        boxes_xyxy = xywh_to_xyxy(self.boxes_xywh)
        return int(np.argmax(iou_xyxy(boxes_xyxy[:, None], boxes_xyxy[None]) @ self.quality))


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
    sizes: NDArray[np.float64],
) -> Candidates:
    """The candidates about a point; one pass of the network."""
    height, width = frame.shape[:2]
    x, y = point_xy
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"point ({x:g}, {y:g}) lies outside the image of {width} x {height} px")
    sides = min(height, width) * sizes
    squares = np.column_stack([x - sides / 2, y - sides / 2, sides, sides])
    boxes, confidences = _find(tracker, frame, squares)
    offset = np.abs(boxes[:, :2] + boxes[:, 2:] / 2 - point_xy) / boxes[:, 2:]
    quality = confidences - _DOUBT - _ASIDE * offset.max(1)
    return Candidates(boxes, np.maximum(quality, _LEAST))


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
