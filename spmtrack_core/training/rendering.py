"""Geometry of layers: their boxes, the crops around them, and how crops are sampled from layers.

A pose is an affine map (2, 3) from layer coordinates ([-1, 1] on both axes) to the frame. A window
(..., 4) is a crop of the frame: center x, y and half width, height.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def alpha_boxes(alpha: Tensor, pose: Tensor) -> Tensor:
    """Bounding boxes (B, T, 4) xyxy in the frame of the opaque part of ``alpha`` (B, T, P, P)."""
    b, t, side, _ = alpha.shape
    line = (torch.arange(side, device=alpha.device) + 0.5) * (2 / side) - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten()])  # (2, P * P)
    opaque = alpha.reshape(b, t, 1, -1) > 0.5
    opaque = opaque | ~opaque.any(-1, keepdim=True)  # of a vanished segment, the patch counts
    places = pose[..., :2] @ points + pose[..., 2:]  # (B, T, 2, P * P)
    low = places.masked_fill(~opaque, math.inf).amin(-1)
    high = places.masked_fill(~opaque, -math.inf).amax(-1)
    half_pixel = pose[..., :2].abs().sum(-1) / side
    return torch.cat([low - half_pixel, high + half_pixel], -1)


def crop_windows(boxes: Tensor, area_factor: float, output_hw: tuple[int, int]) -> Tensor:
    """Windows (..., 4) around boxes (..., 4) xyxy by the tracker's area factor."""
    w, h = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    margin = (area_factor - 1) * (w + h) / 2
    pixel = torch.sqrt((w + margin) * (h + margin) / (output_hw[0] * output_hw[1]))
    half = torch.stack([pixel * output_hw[1] / 2, pixel * output_hw[0] / 2], -1)
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, half], -1)


def to_crop(boxes: Tensor, window: Tensor, output_hw: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) xyxy of the frame in pixels of the crop ``window``, clipped to the crop."""
    size = boxes.new_tensor([output_hw[1], output_hw[0]])
    low = window[..., :2] - window[..., 2:]
    scale = size / (2 * window[..., 2:])
    corners = (boxes.unflatten(-1, (2, 2)) - low[..., None, :]) * scale[..., None, :]
    return torch.minimum(corners.clamp_min(0), size).flatten(-2)


def affine_grid(theta: Tensor, h: int, w: int) -> Tensor:
    """Grid (N, h, w, 2) of maps (N, 2, 3), as ``F.affine_grid`` without aligned corners.

    Several times as fast on a CPU, where a multiplication by matrices of three columns is slow.
    """
    x = (torch.arange(w, device=theta.device) + 0.5) * (2 / w) - 1
    y = ((torch.arange(h, device=theta.device) + 0.5) * (2 / h) - 1)[:, None]
    grid = theta.new_empty(len(theta), h, w, 2)
    for axis in (0, 1):
        row = theta[:, axis, :, None, None]  # (N, 3, 1, 1)
        torch.add(row[:, 0] * x, row[:, 1] * y + row[:, 2], out=grid[..., axis])
    return grid


def render(
    layers: tuple[Tensor, ...],
    poses: tuple[Tensor, ...],
    filling: Tensor,
    endless: Tensor,
    window: Tensor,
    when: slice,
    output_hw: tuple[int, int],
) -> Tensor:
    """Crops (B, t, 3, H, W) of layers, from back to front.

    Args:
        layers: the background minus its mean color (B, 3, S, S), then layers (B, 4, P, P), or
            (B, T, 4, P, P) for a layer that changes; their colors are multiplied by alpha.
        poses: (B, T, 2, 3) of each layer.
        filling: (B, 3, 1, 1) mean color of the background, for the area beyond it.
        endless: (B,) whether the background is mirrored beyond its edges instead.
        window: (B, t, 4) crops of the frame.
        when: the t time points of the crops among the T of the layers.
        output_hw: size of a crop, px.

    """
    b, t = window.shape[:2]
    h, w = output_hw
    crops = filling[:, :, None]
    for layer, pose in zip(layers, poses, strict=True):
        view = torch.linalg.inv(pose[:, when, :, :2])
        offset = view @ (window[..., :2, None] - pose[:, when, :, 2:])
        theta = torch.cat([view * window[..., None, 2:], offset], -1).reshape(b * t, 2, 3)
        grid = affine_grid(theta, h, w)
        if layer.dim() == 5:
            seen = F.grid_sample(layer[:, when].flatten(0, 1), grid, align_corners=False)
            seen = seen.view(b, t, -1, h, w).transpose(1, 2)
        else:  # time points are stacked as rows, so that the layer is not copied for each
            grid = grid.view(b, t * h, w, 2)
            if layer is layers[0]:
                mirrored = 1 - (2 - (grid + 1) % 4).abs()
                rim = 1 - 1 / layer.shape[-1]  # the outer half of the last pixel would fade
                mirrored = mirrored.clamp(-rim, rim)
                grid = torch.where(endless.view(b, 1, 1, 1), mirrored, grid)
            seen = F.grid_sample(layer, grid, align_corners=False).view(b, -1, t, h, w)
        # (B, 3 or 4, t, H, W)
        crops = seen[:, :3] + (crops if seen.shape[1] == 3 else crops * (1 - seen[:, 3:]))
    return crops.transpose(1, 2)
