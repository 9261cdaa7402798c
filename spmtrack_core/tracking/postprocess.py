"""From the score map and the box map to one box in the frame, on the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spmtrack_core.geometry.boxes import Boxes, clip_xyxy, iou_xyxy
from spmtrack_core.geometry.crop import CropTransform
from spmtrack_core.runtimes.inference import Array

SMALLEST = float(np.finfo(np.float32).tiny)
"""Sum of scores from which on boxes are averaged; smaller numbers are not exact."""


def hann_window(grid_hw: tuple[int, int]) -> Array:
    """(H, W) symmetric Hann window, zero at the border, 1 in the middle of odd grids."""
    rows, columns = (np.hanning(side).astype(np.float32) for side in grid_hw)
    return np.outer(rows, columns)  # (H, W)


def select_box(
    score_map: Array,
    boxes: Array,
    window: Array,
    window_weight: float | Array,
    search_hw: tuple[int, int],
    box_overlap: float = 1.0,
) -> tuple[Array, Array, NDArray[np.intp]]:
    """The best cell of each target: box (B, 4) in search pixels, confidence (B,), cell (B,).

    ``score_map`` (B, H, W) and ``boxes`` (B, H, W, 4) are those of ``Prediction``. The Hann window
    affects the choice of the cell, not the confidence; ``window_weight`` is its share for all or,
    (B, 1, 1), for each target. ``box_overlap`` is that of ``TrackerConfig``.
    """
    with np.errstate(over="ignore"):  # the score of a logit whose exp is infinite is 0
        scores = 1 / (1 + np.exp(-score_map))  # (B, H, W)
    ranked = (1 - window_weight) * scores + window_weight * window
    cells = ranked.reshape(len(ranked), -1).argmax(1)  # (B,)
    targets = np.arange(len(cells))
    height, width = search_hw
    scores, boxes = scores.reshape(len(scores), -1), boxes.reshape(len(boxes), -1, 4)
    chosen = boxes[targets, cells]  # (B, 4)
    if box_overlap < 1:
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            agree = iou_xyxy(boxes, chosen[:, None]) >= box_overlap  # (B, H * W)
        weights = np.where(agree, scores, 0)[..., None]
        total = weights.sum(1)  # (B, 1); zero for a box that is none
        mean = np.where(agree[..., None], weights * boxes, 0).sum(1) / np.maximum(total, SMALLEST)
        chosen = np.where(total >= SMALLEST, mean, chosen).astype(np.float32)
    chosen = chosen * np.array([width, height, width, height], np.float32)
    return chosen, scores[targets, cells], cells


def box_in_frame(
    box_in_crop: ArrayLike, transform: CropTransform, frame_hw: tuple[int, int]
) -> Boxes:
    """(4,) float64: a box in search pixels as frame pixels, clamped to the frame."""
    return clip_xyxy(transform.to_frame(box_in_crop), frame_hw)


def is_good_box(box_xyxy: Boxes) -> bool:
    """Whether a clamped prediction is a box: finite and with an area."""
    return bool(np.isfinite(box_xyxy).all() and (box_xyxy[:2] < box_xyxy[2:]).all())
