"""The crop rule: which part of a frame becomes a template or a search region.

A crop keeps the context that SiamFC gives a box, and is aligned to whole pixels: an integer
rectangle of the frame is resized into an integer rectangle of the crop, the rest is background.
Boxes are mapped with the transform of that alignment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spmtrack_core.geometry.boxes import Boxes

Cells = NDArray[np.int64]


@dataclass(frozen=True)
class CropTransform:
    """Maps frame pixels to crop pixels: ``crop = scale * frame + offset``, x first, then y."""

    scale: NDArray[np.float64]
    """(2,) crop pixels per frame pixel."""
    offset: NDArray[np.float64]
    """(2,) where the frame's top-left corner lies in the crop."""

    def to_crop(self, boxes_xyxy: ArrayLike) -> Boxes:
        """(..., 4) frame pixels to crop pixels."""
        boxes = np.asarray(boxes_xyxy, dtype=np.float64)
        return boxes * np.tile(self.scale, 2) + np.tile(self.offset, 2)

    def to_frame(self, boxes_xyxy: ArrayLike) -> Boxes:
        """(..., 4) crop pixels to frame pixels."""
        boxes = np.asarray(boxes_xyxy, dtype=np.float64)
        return (boxes - np.tile(self.offset, 2)) / np.tile(self.scale, 2)


@dataclass(frozen=True)
class AlignedCrop:
    """A crop on whole pixels: ``source_xyxy`` of the frame fills ``target_xyxy`` of the crop."""

    transform: CropTransform
    """Frame to crop through the two rectangles; NaN on an axis on which they do not meet."""
    source_xyxy: Cells
    """(4,) integer rectangle of the frame."""
    target_xyxy: Cells
    """(4,) integer rectangle of the crop."""

    def fills(self, output_hw: tuple[int, int]) -> bool:
        """Whether nothing of the crop lies beyond the frame."""
        return self.target_xyxy.tolist() == [0, 0, output_hw[1], output_hw[0]]


def crop_transform(
    box_xyxy: ArrayLike,
    area_factor: float,
    output_hw: tuple[int, int],
    min_side: float = 0.0,
) -> CropTransform:
    """The transform that centers ``box_xyxy`` in a crop of ``output_hw`` with context.

    The crop covers ``(w + m) * (h + m)`` frame pixels, ``m = (area_factor - 1) * (w + h) / 2``.
    Sides below ``min_side`` count as ``min_side`` about the same center. Raises ``ValueError`` for
    a box without finite numbers or without area.
    """
    box = np.asarray(box_xyxy, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"a crop needs a box of four finite numbers; got {box.tolist()}")
    width, height = np.maximum(box[2:] - box[:2], min_side)
    if width <= 0 or height <= 0:
        raise ValueError(f"a crop needs a box with an area; got {box.tolist()}")
    margin = (area_factor - 1) * (width + height) / 2
    area = (width + margin) * (height + margin)
    scale = np.full(2, np.sqrt(output_hw[0] * output_hw[1] / area))
    center = (box[:2] + box[2:]) / 2
    return CropTransform(scale, np.array(output_hw[::-1]) / 2 - scale * center)


def context_crop(
    box_xyxy: ArrayLike,
    area_factor: float,
    frame_hw: tuple[int, int],
    output_hw: tuple[int, int],
    min_side: float = 0.0,
) -> AlignedCrop:
    """The crop of a frame around a box with context, on whole pixels: see ``crop_transform``."""
    return align(crop_transform(box_xyxy, area_factor, output_hw, min_side), frame_hw, output_hw)


def rasterize(boxes_xyxy: ArrayLike) -> Cells:
    """(..., 4) the whole pixels or cells that a box touches, as exclusive integer ranges.

    An end less than 1e-4 past a line does not touch the next pixel.

    >>> rasterize([0.2, 1.0, 3.0, 4.5]).tolist()
    [0, 1, 3, 5]
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64)
    return np.floor(boxes + np.array([0.0, 0.0, 1.0 - 1e-4, 1.0 - 1e-4])).astype(np.int64)


def align(
    transform: CropTransform, frame_hw: tuple[int, int], output_hw: tuple[int, int]
) -> AlignedCrop:
    """Align a crop to whole pixels; see the text of this module.

    The new transform is computed from the two rectangles in float32, as published; it can differ
    a little from ``transform``, also between the axes.
    """
    frame_xyxy = np.array([0, 0, frame_hw[1], frame_hw[0]])
    output_xyxy = np.array([0, 0, output_hw[1], output_hw[0]])
    target = rasterize(np.clip(transform.to_crop(frame_xyxy), 0, np.tile(output_xyxy[2:], 2)))
    source = np.clip(rasterize(transform.to_frame(target)), 0, np.tile(frame_xyxy[2:], 2))
    source_f32, target_f32 = source.astype(np.float32), target.astype(np.float32)
    sides = source_f32[2:] - source_f32[:2]
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (target_f32[2:] - target_f32[:2]) / sides
        offset = target_f32[:2] - source_f32[:2] * scale
    apart = (sides <= 0) | (target[2:] <= target[:2])
    scale[apart] = offset[apart] = np.nan
    return AlignedCrop(
        CropTransform(scale.astype(np.float64), offset.astype(np.float64)), source, target
    )
