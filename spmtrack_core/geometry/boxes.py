"""Boxes as float64 arrays (..., 4): every name ends in the format, every function copies.

``xyxy`` is left, top, right, bottom; ``xywh`` is left, top, width, height; ``cxcywh`` is center x,
center y, width, height. Coordinates are continuous pixels from the image's top-left corner, right
and bottom are exclusive ends, so that ``width = right - left``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float64]

SMALLEST_SIDE = 1e-3
"""Smallest width or height of a target, px."""
LARGEST_SIDE = 100
"""Largest width or height of a target, in longer sides of the image."""


def xywh_to_xyxy(boxes_xywh: ArrayLike) -> Boxes:
    """(..., 4) xywh to xyxy.

    >>> xywh_to_xyxy([10, 20, 30, 40]).tolist()
    [10.0, 20.0, 40.0, 60.0]
    """
    boxes = _as_boxes(boxes_xywh)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes_xyxy: ArrayLike) -> Boxes:
    """(..., 4) xyxy to xywh.

    >>> xyxy_to_xywh([10, 20, 40, 60]).tolist()
    [10.0, 20.0, 30.0, 40.0]
    """
    boxes = _as_boxes(boxes_xyxy)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def xywh_to_cxcywh(boxes_xywh: ArrayLike) -> Boxes:
    """(..., 4) xywh to cxcywh, the form of ``vision_msgs/BoundingBox2D``.

    >>> xywh_to_cxcywh([10, 20, 30, 40]).tolist()
    [25.0, 40.0, 30.0, 40.0]
    """
    boxes = _as_boxes(boxes_xywh)
    return np.concatenate([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)


def cxcywh_to_xywh(boxes_cxcywh: ArrayLike) -> Boxes:
    """(..., 4) cxcywh to xywh.

    >>> cxcywh_to_xywh([25, 40, 30, 40]).tolist()
    [10.0, 20.0, 30.0, 40.0]
    """
    boxes = _as_boxes(boxes_cxcywh)
    return np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)


def clip_xyxy(boxes_xyxy: ArrayLike, image_hw: tuple[int, int]) -> Boxes:
    """Clamp each coordinate to [0, W] or [0, H]; infinities come to the border, NaN stays NaN.

    >>> clip_xyxy([-5, 10, float("inf"), 90], (80, 100)).tolist()
    [0.0, 10.0, 100.0, 80.0]
    """
    height, width = image_hw
    return np.clip(_as_boxes(boxes_xyxy), 0.0, np.array([width, height, width, height], float))


def iou_xyxy(a_xyxy: ArrayLike, b_xyxy: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union, (...) in 0..1, without the +1 pixel convention.

    Broadcasts. Boxes without area have IoU 0, NaN boxes NaN.

    >>> float(iou_xyxy([0, 0, 10, 10], [5, 0, 15, 10]))
    0.3333333333333333
    """
    a, b = _as_boxes(a_xyxy), _as_boxes(b_xyxy)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.clip(sides, 0, None).prod(axis=-1)
    area_a = np.clip(a[..., 2:] - a[..., :2], 0, None).prod(axis=-1)
    area_b = np.clip(b[..., 2:] - b[..., :2], 0, None).prod(axis=-1)
    union = area_a + area_b - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)


def check_box_xywh(box_xywh: ArrayLike, image_hw: tuple[int, int]) -> Boxes:
    """The box of a user as float64 (4,), checked.

    Raises ``ValueError`` for anything but four finite numbers, for a width or height that is not
    positive, for a box that has no pixel in common with the image, and for a side below 0.001 px
    or above 100 times the longer side of the image.

    >>> check_box_xywh([10, 20, 30, 40], (100, 100)).tolist()
    [10.0, 20.0, 30.0, 40.0]
    """
    try:
        box = np.asarray(box_xywh, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"a box is four numbers x, y, w, h; got {box_xywh!r}") from None
    if box.shape != (4,):
        raise ValueError(f"a box is four numbers x, y, w, h; got shape {box.shape}")
    text = ", ".join(f"{value:g}" for value in box)
    if not np.isfinite(box).all():
        raise ValueError(f"box ({text}) has a value that is not finite")
    if (box[2:] <= 0).any():
        raise ValueError(f"box ({text}) has no area: width and height must be positive")
    height, width = image_hw
    if misses_image(box, image_hw):
        raise ValueError(f"box ({text}) lies outside the image of {width} x {height} pixels")
    least, most = SMALLEST_SIDE, LARGEST_SIDE * max(image_hw)
    if (box[2:] < least).any() or (box[2:] > most).any():
        raise ValueError(
            f"box ({text}) must have sides of {least:g} to {most:g} px in an image of "
            f"{width} x {height} pixels"
        )
    return box


def misses_image(box_xywh: ArrayLike, image_hw: tuple[int, int]) -> bool:
    """Whether a box has no part in common with an image of that height and width.

    >>> misses_image([-30, 20, 30, 40], (100, 100))
    True
    """
    x, y, w, h = _as_boxes(box_xywh)
    height, width = image_hw
    return bool(x >= width or y >= height or x + w <= 0 or y + h <= 0)


def _as_boxes(boxes: ArrayLike) -> Boxes:
    array = np.asarray(boxes, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != 4:
        raise ValueError(f"boxes have four numbers on their last axis; got shape {array.shape}")
    return array
