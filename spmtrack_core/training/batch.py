"""A batch of tracks, the output of every source of training data, and a picture of a batch."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from spmtrack_core.geometry.image import IMAGENET_MEAN, IMAGENET_STD


class Batch(NamedTuple):
    """R references and S searches of each of B tracks; images are normalized."""

    references: Tensor
    """(B, R, 3, h, w) float32."""
    masks: Tensor
    """(B, R, Hz, Wz) float32, 1 where the target covers the cell."""
    searches: Tensor
    """(B, S, 3, H, W) float32, in their order of use."""
    boxes_xyxy: Tensor
    """(B, S, 4) float32, px of the search region, clipped to it; NaN for an absent target."""


def contact_sheet(batch: Batch, rows: int = 12) -> np.ndarray:
    """The first tracks of a batch as an RGB uint8 image: references, then searches with boxes."""
    mean = batch.searches.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = batch.searches.new_tensor(IMAGENET_STD)[:, None, None]
    lines = []
    h = batch.searches.shape[-2]
    for i in range(min(rows, len(batch.references))):
        tiles = []
        for crop, mask in zip(batch.references[i], batch.masks[i], strict=True):
            tile = to_uint8(crop * std + mean)
            cells = F.interpolate(mask[None, None], tile.shape[:2])[0, 0].bool().cpu().numpy()
            tile[~cells] = tile[~cells] // 2  # dim the cells outside of the target
            tiles.append(np.pad(tile, ((0, h - tile.shape[0]), (0, 4), (0, 0))))
        for crop, box in zip(batch.searches[i], batch.boxes_xyxy[i], strict=True):
            tile = to_uint8(crop * std + mean)
            if box.isfinite().all():
                x1, y1, x2, y2 = (round(float(v)) for v in box)
                cv2.rectangle(tile, (x1, y1), (x2 - 1, y2 - 1), (0, 255, 0), 1)
            tiles.append(np.pad(tile, ((0, 4), (0, 4), (0, 0))))
        tiles = [np.pad(tile, ((0, h + 4 - len(tile)), (0, 0), (0, 0))) for tile in tiles]
        lines.append(np.concatenate(tiles, 1))
    return np.concatenate(lines)


def to_uint8(crop: Tensor) -> np.ndarray:
    """An image (3, H, W) with values in 0..1 as a writable RGB uint8 array (H, W, 3)."""
    pixels = (crop.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return np.ascontiguousarray(pixels.cpu().numpy())
