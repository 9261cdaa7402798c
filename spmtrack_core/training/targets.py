"""Cells that a box covers: the published rule for positive cells and for foreground masks."""

from __future__ import annotations

import torch
from torch import Tensor


def cells_of(boxes_xyxy: Tensor, crop_hw: tuple[int, int], grid_hw: tuple[int, int]) -> Tensor:
    """Cells covered by each box.

    Args:
        boxes_xyxy: (..., 4) px of the crop, clipped to it.
        crop_hw: size of the crop, px.
        grid_hw: rows and columns of cells.

    Returns:
        (..., H, W) bool. The last cell of a box is the last one that it reaches into by more than
        1e-4 of a cell. A box of zero size covers the cell in which it lies; NaN covers none.

    """
    cell = boxes_xyxy.new_tensor([crop_hw[1] / grid_hw[1], crop_hw[0] / grid_hw[0]])
    first = torch.floor(boxes_xyxy[..., :2] / cell)[..., None]  # (..., 2, 1)
    last = torch.floor(boxes_xyxy[..., 2:] / cell + (1 - 1e-4))[..., None]
    rows = torch.arange(grid_hw[0], device=boxes_xyxy.device)
    columns = torch.arange(grid_hw[1], device=boxes_xyxy.device)
    in_row = (rows >= first[..., 1, :]) & (rows < last[..., 1, :])  # (..., H)
    in_column = (columns >= first[..., 0, :]) & (columns < last[..., 0, :])  # (..., W)
    return in_row[..., :, None] & in_column[..., None, :]
