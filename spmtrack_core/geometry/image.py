"""Images: check, crop, normalize. RGB uint8 (H, W, 3) everywhere; BGR exists at OpenCV alone."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spmtrack_core.geometry.crop import AlignedCrop
from spmtrack_core.geometry.lazy_image import LazyImage

Image = NDArray[np.uint8]

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
SCALE, SHIFT = 1 / (255 * IMAGENET_STD), IMAGENET_MEAN / IMAGENET_STD
"""(3,) each: ``image * SCALE - SHIFT`` takes 0..255 to ImageNet mean 0 and deviation 1."""
MANY_ROWS = 3
"""From so many rows for each row of a crop on, selecting rows first saves time."""
FEW_ROWS = 26
"""Rows of a crop that are made at a time: so many stay in the cache."""


def check_frame(frame: object) -> Image:
    """``frame`` itself, once it is known to be RGB uint8 (H, W, 3); else ``ValueError``.

    A ``LazyImage`` passes: it has the shape of an array and the slices that a crop reads.
    """
    if isinstance(frame, LazyImage):
        return cast(Image, frame)
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
        got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame)
        raise ValueError(f"a frame is an RGB uint8 array (H, W, 3); got {got}")
    if frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(f"a frame is an RGB uint8 array (H, W, 3); got shape {frame.shape}")
    return frame


def encode_image(image: Image, suffix: str, *options: int) -> bytes:
    """An RGB image as a file of the format that ``suffix`` names; ``options`` as OpenCV has them.

    Raises ``ValueError`` where that format cannot hold the image.
    """
    try:
        held, content = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    except cv2.error:  # of OpenCV 4, which raises
        held = False
    if not held:
        raise ValueError(f"a {suffix} file cannot hold an image of shape {image.shape}")
    return content.tobytes()


def mean_color(frame: Image) -> NDArray[np.float32]:
    """(3,) mean of each channel in 0..255: what fills a crop beyond the frame."""
    return np.array(cv2.mean(np.asarray(frame))[:3], np.float32)


def crop_image(
    frame: Image,
    crop: AlignedCrop,
    output_hw: tuple[int, int],
    background: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """The crop as float32 (H, W, 3) in 0..255: bilinear, half-pixel centers, no antialias.

    ``background`` (3,) fills what lies beyond the frame; None is the frame's own mean color,
    computed only where something lies beyond. Only the pixels inside the crop are converted, so
    that the cost does not grow with the frame.
    """
    output = np.empty((*output_hw, 3), np.float32)
    left, top, right, bottom = crop.target_xyxy.tolist()
    x1, y1, x2, y2 = crop.source_xyxy.tolist()
    if not crop.fills(output_hw):
        output[:] = mean_color(frame) if background is None else background
    if right > left and bottom > top and x2 > x1 and y2 > y1:
        output[top:bottom, left:right] = resize(frame[y1:y2, x1:x2], (bottom - top, right - left))
    return output


def resize(image: Image, output_hw: tuple[int, int]) -> NDArray[np.float32]:
    """``image`` as float32 (H, W, 3): bilinear, half-pixel centers, no antialias.

    Float32 because OpenCV rounds uint8 results to whole gray levels.
    """
    rows, columns = output_hw
    if len(image) < MANY_ROWS * rows:
        image_f32 = image.astype(np.float32)
        return cv2.resize(image_f32, (columns, rows), interpolation=cv2.INTER_LINEAR)
    # most rows are between those that the result is made of: convert no others
    output = np.empty((rows, columns, 3), np.float32)
    center = np.maximum((np.arange(rows) + 0.5) * (len(image) / rows) - 0.5, 0)
    upper = center.astype(np.int64)
    lower = np.minimum(upper + 1, len(image) - 1)
    weight = (center - upper).astype(np.float32)[:, None, None]
    for start in range(0, rows, FEW_ROWS):
        part = slice(start, start + FEW_ROWS)
        pairs = image[np.concatenate((upper[part], lower[part]))].astype(np.float32)
        pairs = cv2.resize(pairs, (columns, len(pairs)), interpolation=cv2.INTER_LINEAR)
        above, below = np.split(pairs, 2)
        below -= above
        below *= weight[part]
        np.add(above, below, out=output[part])
    return output


def normalize(
    image: NDArray[np.float32], output: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """(H, W, 3) in 0..255 to contiguous (3, H, W) with ImageNet mean 0 and deviation 1.

    Written into ``output`` (3, H, W) where it is given.
    """
    output = np.empty((3, *image.shape[:2]), np.float32) if output is None else output
    for channel in range(3):  # three times as fast as all at once
        np.multiply(image[..., channel], SCALE[channel], out=output[channel])
        output[channel] -= SHIFT[channel]
    return output
