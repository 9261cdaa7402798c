"""Image messages of ROS to arrays, without ROS: any object with the fields will do.

Images are RGB uint8 (H, W, 3) inside.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from spmtrack_core.geometry.image import Image

MAX_PIXELS = 50_000_000


class _Encoding(NamedTuple):
    """How the pixels of an encoding lie in memory, and how they become RGB."""

    channels: int
    conversion: int | None = None
    """OpenCV's conversion to RGB; None: they are RGB or one gray channel."""
    bits: str = "u1"
    """NumPy type of a channel. Wider than 8 bits, without ``stretch``: the full range is used."""
    rows: float = 1
    """Rows in memory by rows of the image: planar formats have more."""
    stretch: bool = False
    """The values have no range: the 1st to the 99th percentile of each image become 0 to 255."""


_BAYER = {
    # OpenCV's newer names agree with ROS; the older ones, BayerBG for RGGB, are shifted.
    "rggb": cv2.COLOR_BayerRGGB2RGB,
    "bggr": cv2.COLOR_BayerBGGR2RGB,
    "gbrg": cv2.COLOR_BayerGBRG2RGB,
    "grbg": cv2.COLOR_BayerGRBG2RGB,
}
# Names in lower case; those of messages are compared without case.
ENCODINGS: dict[str, _Encoding] = {
    "rgb8": _Encoding(3),
    "bgr8": _Encoding(3, cv2.COLOR_BGR2RGB),
    "8uc3": _Encoding(3, cv2.COLOR_BGR2RGB),  # no stated order; cameras use that of OpenCV
    "rgba8": _Encoding(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Encoding(4, cv2.COLOR_BGRA2RGB),
    "8uc4": _Encoding(4, cv2.COLOR_BGRA2RGB),
    "mono8": _Encoding(1, cv2.COLOR_GRAY2RGB),
    "8uc1": _Encoding(1, cv2.COLOR_GRAY2RGB),
    "uyvy": _Encoding(2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": _Encoding(2, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422": _Encoding(2, cv2.COLOR_YUV2RGB_UYVY),  # older names of the two
    "yuv422_yuy2": _Encoding(2, cv2.COLOR_YUV2RGB_YUY2),
    "nv12": _Encoding(1, cv2.COLOR_YUV2RGB_NV12, rows=1.5),
    "nv21": _Encoding(1, cv2.COLOR_YUV2RGB_NV21, rows=1.5),
    "nv24": _Encoding(1, cv2.COLOR_YUV2RGB_NV12, rows=3),
    "yuv420": _Encoding(1, cv2.COLOR_YUV2RGB_I420, rows=1.5),
    "i420": _Encoding(1, cv2.COLOR_YUV2RGB_I420, rows=1.5),
    **{f"bayer_{order}8": _Encoding(1, code) for order, code in _BAYER.items()},
    "rgb16": _Encoding(3, bits="u2"),
    "bgr16": _Encoding(3, cv2.COLOR_BGR2RGB, "u2"),
    "rgba16": _Encoding(4, cv2.COLOR_RGBA2RGB, "u2"),
    "bgra16": _Encoding(4, cv2.COLOR_BGRA2RGB, "u2"),
    **{f"bayer_{order}16": _Encoding(1, code, "u2") for order, code in _BAYER.items()},
    "mono16": _Encoding(1, cv2.COLOR_GRAY2RGB, "u2"),
    "16uc1": _Encoding(1, cv2.COLOR_GRAY2RGB, "u2", stretch=True),
    "32fc1": _Encoding(1, cv2.COLOR_GRAY2RGB, "f4", stretch=True),
}


def check_image(message: Any) -> _Encoding:
    """Check the fields of a ``sensor_msgs/Image``, without reading the pixels.

    Returns the layout of the encoding. Raises ``ValueError`` for an encoding that is not in
    ``ENCODINGS``, an empty image, a size that the encoding does not allow, a step shorter than a
    row, or data of another length than the image.
    """
    name = message.encoding
    encoding = ENCODINGS.get(name.lower())
    if encoding is None:
        raise ValueError(f"image encoding '{name}' is not one of {', '.join(ENCODINGS)}")
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height < 1 or width < 1:
        raise ValueError(f"image of {width} x {height} px is empty: expected at least 1 x 1")
    if encoding.rows > 1 and (height % 2 or width % 2):
        raise ValueError(
            f"an image in {name} cannot have {width} x {height} px: expected even sides"
        )
    row = width * encoding.channels * np.dtype(encoding.bits).itemsize
    if step < row:
        raise ValueError(
            f"image step of {step} bytes is shorter than a row: "
            f"{width} pixels of {name} take {row}"
        )
    rows, size = round(height * encoding.rows), len(message.data)
    # Some drivers leave out the padding of the last row.
    if size not in (rows * step, (rows - 1) * step + row):
        expected = f"{rows} rows of {step}, {rows * step}"
        raise ValueError(f"image data have {size} bytes: expected {expected}")
    return encoding


def image_to_array(message: Any) -> Image:
    """RGB (H, W, 3) of a ``sensor_msgs/Image``; for rgb8 a view of the message's own memory.

    Values of 16 bits are divided by 256. Those of 16UC1 and 32FC1, which have no range, are
    stretched: the 1st to the 99th percentile of each image become 0 to 255, NaN becomes 0.
    Raises ``ValueError`` as ``check_image`` does.
    """
    encoding = check_image(message)
    height, width = int(message.height), int(message.width)
    rows, item = round(height * encoding.rows), np.dtype(encoding.bits).itemsize
    pixels = np.lib.stride_tricks.as_strided(
        np.frombuffer(message.data, np.uint8),
        (rows, width, encoding.channels * item),
        (int(message.step), encoding.channels * item, 1),
    )
    if item > 1:
        order = ">" if message.is_bigendian else "<"
        pixels = np.ascontiguousarray(pixels).view(f"{order}{encoding.bits}")
        pixels = _stretch(pixels) if encoding.stretch else (pixels >> 8).astype(np.uint8)
    if message.encoding.lower() == "nv24":
        pixels = _nv24_to_nv12(pixels, height)
    if encoding.conversion is None:
        return pixels
    try:
        return _rgb(cv2.cvtColor(pixels, encoding.conversion))
    except cv2.error:
        size = f"{width} x {height}"
        raise ValueError(f"an image in {message.encoding} cannot have {size} px") from None


def check_compressed(message: Any, max_pixels: int = MAX_PIXELS) -> None:
    """Check the header of a ``sensor_msgs/CompressedImage``, without decoding the pixels.

    Raises ``ValueError`` for data without an image and for an image of more than ``max_pixels``.
    """
    try:
        with PillowImage.open(io.BytesIO(memoryview(message.data))) as image:
            width, height = image.size
    except PillowImage.DecompressionBombError as error:
        raise ValueError(f"compressed image is too large: {error}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        size = len(message.data)
        text = f"compressed image of {size} bytes, format '{message.format}', cannot be decoded"
        raise ValueError(text) from None
    if width * height > max_pixels:
        text = f"compressed image has {width} x {height} px"
        raise ValueError(f"{text}: expected at most max_pixels, {max_pixels}")


def compressed_to_array(message: Any, max_pixels: int = MAX_PIXELS) -> Image:
    """RGB (H, W, 3) of a ``sensor_msgs/CompressedImage`` (JPEG, PNG, any other format of OpenCV).

    Raises ``ValueError`` if the data cannot be decoded, or have more than ``max_pixels``.
    """
    check_compressed(message, max_pixels)
    data = np.frombuffer(message.data, dtype=np.uint8)
    # EXIF may ask for a rotation, but boxes are in pixels of the image as it was sent.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(data, flags)
    if decoded is None:
        raise ValueError(
            f"compressed image of {data.size} bytes, format '{message.format}', cannot be decoded"
        )
    return _rgb(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def _stretch(values: np.ndarray) -> np.ndarray:
    """Values of any range as uint8: the 1st to the 99th percentile become 0 to 255, NaN 0."""
    values = values.astype(np.float32)
    some = values[::4, ::4]  # enough for percentiles
    some = some[np.isfinite(some)]
    low, high = np.percentile(some, [1, 99]) if some.size else (0.0, 1.0)
    scaled = (values - low) * (255 / max(high - low, 1e-6))
    return np.nan_to_num(scaled, nan=0.0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)


def _nv24_to_nv12(pixels: np.ndarray, height: int) -> np.ndarray:
    """OpenCV has no conversion with chroma for every pixel: four pixels share one."""
    width = pixels.shape[1]
    chroma = np.ascontiguousarray(pixels[height:]).reshape(height, width, 2)
    chroma = cv2.resize(chroma, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return np.vstack([pixels[:height, :, 0], chroma.reshape(height // 2, width)])


def _rgb(image: Any) -> Image:
    return image.astype(np.uint8, copy=False)
