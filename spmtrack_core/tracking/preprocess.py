"""From a frame and boxes to what the network takes: crops on a device, masks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spmtrack_core.geometry.crop import AlignedCrop, rasterize

CROP_NUMBERS = 13
"""Length of the vector that ``crop_numbers`` makes."""


def crop_numbers(
    frame_hw: tuple[int, int], crop: AlignedCrop, background: ArrayLike, start: int = 0
) -> NDArray[np.float64]:
    """(13,) for ``crop_tensor``: rectangles of frame and crop, background, width of the frame,
    and the index ``start`` of its first pixel.
    """
    return np.hstack((crop.source_xyxy, crop.target_xyxy, background, frame_hw[1], start))


def crop_tensor(
    pixels: Tensor, numbers: Tensor, output_hw: tuple[int, int], scale: Tensor, shift: Tensor
) -> Tensor:
    """As ``normalize(crop_image(...))``, on any device: crops (B, 3, h, w) of frames.

    ``pixels`` (N, 3) uint8 are those of the frames, row by row, one frame after another;
    ``numbers`` (B, 13) float64 come from ``crop_numbers``; ``scale`` and ``shift`` (3,) are
    ``SCALE`` and ``SHIFT``. Fit for a CUDA graph: nothing waits for the device, and no size
    depends on ``numbers``.
    """
    source, target, background, width, begin = numbers.split((4, 4, 3, 1, 1), 1)
    axes = []
    for axis, size in ((1, output_hw[0]), (0, output_hw[1])):  # rows, columns
        start, stop = target[:, axis, None], target[:, axis + 2, None]  # (B, 1)
        first, last = source[:, axis, None], source[:, axis + 2, None] - 1
        pixel = torch.arange(size, device=pixels.device) + 0.5
        step = (last + 1 - first) / (stop - start).clamp_min(1)
        position = torch.minimum(((pixel - start) * step - 0.5).clamp_min(0) + first, last)
        low = position.floor()  # (B, size)
        high = torch.minimum(low + 1, last)
        within = (start < pixel) & (pixel < stop) & (last >= first)
        axes.append((low.long(), high.long(), (position - low).float(), within))
    (top, bottom, down, rows), (left, right, across, columns) = axes

    def pixels_at(y: Tensor, x: Tensor) -> Tensor:
        rows = begin.long() + y * width.long()  # (B, h)
        return pixels[rows.unsqueeze(2) + x.unsqueeze(1)].float()  # (B, h, w, 3)

    across, down = across[:, None, :, None], down[:, :, None, None]  # (B, 1, w, 1), (B, h, 1, 1)
    upper = torch.lerp(pixels_at(top, left), pixels_at(top, right), across)  # (B, h, w, 3)
    lower = torch.lerp(pixels_at(bottom, left), pixels_at(bottom, right), across)
    crops = torch.lerp(upper, lower, down)
    inside = rows[:, :, None, None] & columns[:, None, :, None]  # (B, h, w, 1)
    crops = torch.where(inside, crops, background[:, None, None].float())
    return (crops * scale - shift).permute(0, 3, 1, 2)  # (B, 3, h, w)


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
