"""From a box in the crop to the mask that the network takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spmtrack_core.geometry.crop import rasterize


def foreground_mask(
    box_xyxy: ArrayLike, crop_hw: tuple[int, int], grid_hw: tuple[int, int], clip: bool = False
) -> NDArray[np.float32]:
    """(Hz, Wz) 1 on the cells of a crop that the box (crop pixels) touches, 0 elsewhere.

    Training clips the box to the crop first (``clip``). Published inference does not, and a
    negative start counts from the far end: for boxes longer than about ten times their width the
    mask is a few cells at that end. This is kept, because the published results were measured so.
    """
    mask = np.zeros(grid_hw, np.float32)
    box = np.asarray(box_xyxy, np.float64)
    if not np.isfinite(box).all():  # the crop does not meet the frame
        return mask
    if clip:
        box = np.clip(box, 0, [crop_hw[1], crop_hw[0]] * 2)
    cell = np.array([crop_hw[1] / grid_hw[1], crop_hw[0] / grid_hw[0]])
    left, top, right, bottom = rasterize(box / np.tile(cell, 2)).tolist()
    mask[top:bottom, left:right] = 1
    return mask
