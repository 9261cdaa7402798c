"""From the score map and the box map to one box in the frame."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from spmtrack_core.geometry.boxes import Boxes, clip_xyxy
from spmtrack_core.geometry.crop import CropTransform
from spmtrack_core.model.spmtrack import Prediction


def hann_window(grid_hw: tuple[int, int]) -> Tensor:
    """(H, W) symmetric Hann window, zero at the border, 1 in the middle of odd grids."""
    rows, columns = (torch.hann_window(side, periodic=False) for side in grid_hw)
    return torch.outer(rows, columns)  # (H, W)


def select_box(
    prediction: Prediction,
    window: Tensor,
    window_weight: float | Tensor,
    search_hw: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """The best cell of each target: box (B, 4) in search pixels, confidence (B,), cell (B,).

    The Hann window affects the choice of the cell, not the confidence.
    """
    scores = prediction.score_map.float().sigmoid()  # (B, H, W)
    ranked = (1 - window_weight) * scores + window_weight * window
    cells = ranked.flatten(1).argmax(1)  # (B,)
    targets = torch.arange(len(cells), device=cells.device)
    x0, y0, x1, y1 = prediction.boxes.flatten(1, 2)[targets, cells].unbind(-1)  # (B,)
    height, width = search_hw
    boxes = torch.stack((x0 * width, y0 * height, x1 * width, y1 * height), -1)  # (B, 4)
    return boxes, scores.flatten(1)[targets, cells], cells


def box_in_frame(
    box_in_crop: ArrayLike, transform: CropTransform, frame_hw: tuple[int, int]
) -> Boxes:
    """(4,) float64: a box in search pixels as frame pixels, clamped to the frame."""
    return clip_xyxy(transform.to_frame(box_in_crop), frame_hw)


def is_good_box(box_xyxy: Boxes) -> bool:
    """Whether a clamped prediction is a box: finite and with an area."""
    return bool(np.isfinite(box_xyxy).all() and (box_xyxy[:2] < box_xyxy[2:]).all())
