"""Messages to arrays and back, without rclpy: every function takes any object with the fields.

Images are RGB uint8 (H, W, 3) inside, boxes xywh in pixels; ``vision_msgs/BoundingBox2D`` holds
the centre and the full size.
"""

from __future__ import annotations

import array
import math
from typing import Any

import cv2
import numpy as np

from spmtrack_core.geometry.boxes import cxcywh_to_xywh, xywh_to_cxcywh
from spmtrack_core.geometry.image import Image

# encoding: (bytes per pixel, how OpenCV makes RGB of it; None = it is RGB already)
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),  # without a colour order; OpenCV's own is what cameras mean
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),  # the two by their older names
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    # OpenCV's names of the same form; its older ones, BayerBG for RGGB, begin one pixel further.
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2RGB),
}

_NANOSECONDS = 1_000_000_000


def image_to_array(message: Any) -> Image:
    """RGB (H, W, 3) of a ``sensor_msgs/Image``; for rgb8 a view of the message's own memory.

    Raises ``ValueError`` for an encoding that is not in the list, a size that is none or that the
    encoding cannot have, a step shorter than a row, or data that do not fill the image.
    """
    if message.encoding not in _ENCODINGS:
        supported = ", ".join(_ENCODINGS)
        raise ValueError(f"image encoding '{message.encoding}' is not one of {supported}")
    channels, conversion = _ENCODINGS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height < 1 or width < 1:
        raise ValueError(f"image of {width} x {height} pixels has no content")
    row = width * channels
    if step < row:
        raise ValueError(
            f"image step of {step} bytes is shorter than a row: "
            f"{width} pixels of {message.encoding} take {row}"
        )
    data = np.frombuffer(message.data, dtype=np.uint8)
    # Some drivers leave out the padding of the last row.
    if data.size not in (height * step, (height - 1) * step + row):
        raise ValueError(
            f"image data have {data.size} bytes, but {height} rows of {step} are {height * step}"
        )
    shape, strides = (height, width, channels), (step, channels, 1)
    pixels = np.lib.stride_tricks.as_strided(data, shape, strides)
    if conversion is None:
        return pixels
    try:
        return _rgb(cv2.cvtColor(pixels, conversion))
    except cv2.error:
        raise ValueError(f"{message.encoding} cannot be {width} x {height} pixels") from None


def compressed_to_array(message: Any) -> Image:
    """RGB (H, W, 3) of a ``sensor_msgs/CompressedImage`` (JPEG, PNG or what OpenCV reads).

    Raises ``ValueError`` if the data cannot be decoded.
    """
    data = np.frombuffer(message.data, dtype=np.uint8)
    # OpenCV raises on empty input and returns None for anything it does not understand.
    # EXIF may ask for a rotation, but boxes are in the pixels that were sent.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(data, flags) if data.size else None
    if decoded is None:
        raise ValueError(
            f"compressed image of {data.size} bytes, format '{message.format}', cannot be decoded"
        )
    return _rgb(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def fill_image(message: Any, image: Image, header: Any) -> Any:
    """Put an RGB image (H, W, 3) into an empty ``sensor_msgs/Image`` and return it.

    Raises ``ValueError`` if the image is not uint8 of that shape.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is uint8 (H, W, 3); got {image.dtype} {image.shape}")
    message.header = header
    message.height, message.width = image.shape[:2]
    message.encoding = "rgb8"
    message.is_bigendian = 0
    message.step = 3 * image.shape[1]
    # An ndarray assigned to the field is checked number by number: 74 ms for VGA, this 0.06 ms.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(image).data.cast("B"))
    message.data = data
    return message


def fill_compressed(message: Any, image: Image, header: Any) -> Any:
    """Put an RGB image (H, W, 3) as JPEG into an empty ``sensor_msgs/CompressedImage``; return it.

    Raises ``ValueError`` for an image that cannot be a JPEG: none of its sides is above 65500.
    """
    try:
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        raise ValueError(f"an image {image.shape} cannot be a JPEG") from None
    message.header = header
    message.format = "jpeg"
    message.data = array.array("B", jpeg.tobytes())
    return message


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a ``builtin_interfaces/Time``."""
    return int(stamp.sec) * _NANOSECONDS + int(stamp.nanosec)


def fill_stamp(message: Any, nanoseconds: int) -> Any:
    """Put nanoseconds into a ``builtin_interfaces/Time`` and return it."""
    message.sec, message.nanosec = divmod(nanoseconds, _NANOSECONDS)
    return message


def bbox_to_xywh(bbox: Any) -> tuple[float, float, float, float]:
    """Box of a ``vision_msgs/BoundingBox2D``.

    Raises ``ValueError`` for a rotated box; whether the numbers make sense is for the tracker to
    say, which knows the image.
    """
    if bbox.center.theta != 0.0:
        raise ValueError(f"box is rotated by {bbox.center.theta:g} rad; center.theta must be 0")
    centre = bbox.center.position
    x, y, w, h = cxcywh_to_xywh((centre.x, centre.y, bbox.size_x, bbox.size_y)).tolist()
    return x, y, w, h


def fill_bbox(bbox: Any, box_xywh: tuple[float, float, float, float]) -> Any:
    """Put a box into a ``vision_msgs/BoundingBox2D`` and return it."""
    x, y, w, h = xywh_to_cxcywh(box_xywh).tolist()
    bbox.center.position.x, bbox.center.position.y = x, y
    bbox.center.theta = 0.0
    bbox.size_x, bbox.size_y = w, h
    return bbox


def normalized_to_pixels(
    box_xywh: tuple[float, float, float, float], image_hw: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A box in parts of the image (0 to 1) as pixels.

    >>> normalized_to_pixels((0.5, 0.25, 0.1, 0.5), (100, 200))
    (100.0, 25.0, 20.0, 50.0)
    """
    height, width = image_hw
    x, y, w, h = box_xywh
    return x * width, y * height, w * width, h * height


def fill_detection(
    detection: Any,
    hypothesis: Any,
    header: Any,
    box_xywh: tuple[float, float, float, float],
    target_id: str,
    label: str,
    score: float,
) -> Any:
    """Fill an empty ``vision_msgs/Detection2D`` with one ``ObjectHypothesisWithPose``; return it.

    ``score`` is clamped to 0..1, and 0 where it is not a number.
    """
    detection.header = header
    detection.id = target_id
    fill_bbox(detection.bbox, box_xywh)
    hypothesis.hypothesis.class_id = label
    hypothesis.hypothesis.score = 0.0 if math.isnan(score) else min(max(float(score), 0.0), 1.0)
    detection.results = [hypothesis]
    return detection


def _rgb(image: Any) -> Image:
    return image.astype(np.uint8, copy=False)
