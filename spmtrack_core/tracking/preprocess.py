"""From a frame and a box to what the network takes: crops, masks, normalised images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spmtrack_core.geometry.crop import CropTransform, align, crop_transform, rasterise
from spmtrack_core.geometry.image import Image, crop_image, normalise


def template_crop(
    frame: Image, box_xyxy: ArrayLike, area_factor: float, output_hw: tuple[int, int]
) -> tuple[NDArray[np.float32], CropTransform]:
    """A reference frame: normalised (3, h, w) around the box, and its transform.

    What lies beyond the frame has the frame's mean colour.
    """
    crop = align(crop_transform(box_xyxy, area_factor, output_hw), frame.shape[:2], output_hw)
    return normalise(crop_image(frame, crop, output_hw)), crop.transform


def search_crop(
    frame: Image,
    box_xyxy: ArrayLike,
    area_factor: float,
    output_hw: tuple[int, int],
    min_side: float,
    background: ArrayLike,
) -> tuple[NDArray[np.float32], CropTransform]:
    """The search region: normalised (3, H, W) around the last box, and its transform."""
    wanted = crop_transform(box_xyxy, area_factor, output_hw, min_side)
    crop = align(wanted, frame.shape[:2], output_hw)
    return normalise(crop_image(frame, crop, output_hw, background)), crop.transform


def foreground_mask(
    box_xyxy: ArrayLike, crop_hw: tuple[int, int], grid_hw: tuple[int, int], clip: bool = False
) -> NDArray[np.float32]:
    """(Hz, Wz) 1 on the cells of a crop that the box touches, in crop pixels; 0 elsewhere.

    Training clips the box to the crop first (``clip``). Published inference does not, and a
    start left of or above the crop counts from the far end: for boxes longer than about ten times
    their width the mask is a few cells at that end. It is kept so, because the published weights
    were measured so.
    """
    mask = np.zeros(grid_hw, np.float32)
    box = np.asarray(box_xyxy, np.float64)
    if not np.isfinite(box).all():  # the crop does not meet the frame
        return mask
    if clip:
        box = np.clip(box, 0, [crop_hw[1], crop_hw[0]] * 2)
    cell = np.array([crop_hw[1] / grid_hw[1], crop_hw[0] / grid_hw[0]])
    left, top, right, bottom = rasterise(box / np.tile(cell, 2)).tolist()
    mask[top:bottom, left:right] = 1
    return mask
