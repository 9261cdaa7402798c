"""IoU-aware score loss and GIoU box loss of SPMTrack, per search frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spmtrack_core.tracking.device_steps import intersection_and_union
from spmtrack_core.training.targets import cells_of

EPSILON = 1e-6
"""Smallest denominator."""


@dataclass(frozen=True)
class Loss:
    """Loss terms of one search frame, without their weights."""

    score: Tensor
    """() binary cross entropy over all cells / number of positive cells."""
    box: Tensor
    """() GIoU loss over the positive cells / their number."""
    iou: Tensor
    """(n,) IoU of predicted and true boxes at the positive cells, without gradient."""
    target: Tensor
    """(B, H, W) score targets."""


def iou_and_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalized IoU of boxes (..., 4), element by element: two tensors (...)."""
    inner_area, union = intersection_and_union(a_xyxy, b_xyxy)
    outer = torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.minimum(
        a_xyxy[..., :2], b_xyxy[..., :2]
    )
    outer_area = outer.clamp_min(0).prod(-1)
    iou = inner_area / union.clamp_min(EPSILON)
    return iou, iou - (outer_area - union) / outer_area.clamp_min(EPSILON)


def tracking_loss(
    score_map: Tensor,
    boxes: Tensor,
    gt_xyxy: Tensor,
    search_hw: tuple[int, int],
    iou_aware: bool = True,
    count: Tensor | None = None,
) -> Loss:
    """Loss of one search frame.

    Args:
        score_map: (B, H, W) logits.
        boxes: (B, H, W, 4) predicted boxes xyxy, normalized by the size of the search region.
        gt_xyxy: (B, 4) true boxes, px of the search region, clipped to it; NaN for an absent
            target: all its cells are negative, and it adds nothing to the box loss.
        search_hw: size of the search region, px.
        iou_aware: the score target of a positive cell is the IoU of its box (published); else 1.
        count: () divisor of the sums; None: the number of positive cells in this batch, at least
            1.

    Raises:
        ValueError: a true box covers no cell.

    """
    positive = cells_of(gt_xyxy, search_hw, (score_map.shape[1], score_map.shape[2]))
    empty = gt_xyxy.isfinite().all(1) & ~positive.flatten(1).any(1)
    if empty.any():
        box = gt_xyxy[empty][0].tolist()
        raise ValueError(f"the box {box} covers no cell of the search region {search_hw} (h, w)")
    size = gt_xyxy.new_tensor([search_hw[1], search_hw[0]]).repeat(2)
    truth = (gt_xyxy / size)[:, None, None].expand_as(boxes)
    if count is None:
        count = positive.sum().clamp_min(1)
    iou, giou = iou_and_giou(boxes[positive], truth[positive].to(boxes.dtype))
    target = torch.zeros_like(score_map)
    target[positive] = iou.detach().to(target.dtype) if iou_aware else 1.0
    score = F.binary_cross_entropy_with_logits(score_map, target, reduction="sum") / count
    return Loss(score, (1 - giou).sum() / count, iou.detach(), target)
