"""Crops and choice of the box on tensors of any device: what a CUDA graph has around the network.

The host has its own: ``crop_image`` with ``normalize``, and ``select_box``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spmtrack_core.geometry.crop import AlignedCrop
from spmtrack_core.model.fused import FusedSPMTrack
from spmtrack_core.model.spmtrack import Prediction
from spmtrack_core.tracking.postprocess import SMALLEST

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


def select_box_tensor(
    prediction: Prediction,
    window: Tensor,
    window_weight: float | Tensor,
    search_hw: tuple[int, int],
    box_overlap: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``select_box``, fit for a CUDA graph; ``box_overlap`` may be (B, 1)."""
    scores = prediction.score_map.float().sigmoid()  # (B, H, W)
    ranked = (1 - window_weight) * scores + window_weight * window
    cells = ranked.flatten(1).argmax(1)  # (B,)
    targets = torch.arange(len(cells), device=cells.device)
    scores, every = scores.flatten(1), prediction.boxes.flatten(1, 2)  # (B, N), (B, N, 4)
    chosen = every[targets, cells]  # (B, 4)
    if not isinstance(box_overlap, float) or box_overlap < 1:
        agree = overlaps(every, chosen[:, None]) >= box_overlap  # (B, N)
        weights = (scores * agree).unsqueeze(2)  # (B, N, 1)
        total = weights.sum(1)  # (B, 1); zero for a box that is none
        mean = torch.where(agree.unsqueeze(2), weights * every, 0).sum(1)
        mean = mean / total.clamp_min(SMALLEST)
        averaged = (total >= SMALLEST) & torch.as_tensor(box_overlap < 1, device=total.device)
        chosen = torch.where(averaged, mean.to(chosen.dtype), chosen)
    x0, y0, x1, y1 = chosen.unbind(-1)  # (B,)
    height, width = search_hw
    boxes = torch.stack((x0 * width, y0 * height, x1 * width, y1 * height), -1)  # (B, 4)
    return boxes, scores[targets, cells], cells


def overlaps(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Intersection over union (...) as ``iou_xyxy``; 0 for boxes without area."""
    intersection, union = intersection_and_union(a_xyxy, b_xyxy)
    return intersection / union.clamp_min(1e-12)


def intersection_and_union(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Areas (...) of boxes (..., 4), element by element; a box without area intersects none."""
    inner = torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.maximum(
        a_xyxy[..., :2], b_xyxy[..., :2]
    )
    inner_area = inner.clamp_min(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (a_xyxy, b_xyxy)]
    return inner_area, areas[0] + areas[1] - inner_area


def predict_boxes(
    model: FusedSPMTrack,
    window: Tensor,
    window_weight: float | Tensor,
    search_hw: tuple[int, int],
    box_overlap: float | Tensor,
    searches: Tensor,
    *references_and_states: Tensor,
) -> tuple[Tensor, Tensor]:
    """Box in search pixels and confidence of each target (B, 5), and its state token (B, 1, C).

    ``searches`` (B, 3, H, W) are normalized; the model takes the other tensors after them.
    """
    prediction = model(searches, *references_and_states)
    boxes, scores, _ = select_box_tensor(prediction, window, window_weight, search_hw, box_overlap)
    return torch.cat((boxes, scores.unsqueeze(1)), 1), prediction.state_token
