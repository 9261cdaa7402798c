"""Image messages of ROS to arrays, without ROS: any object with the fields will do.

Images are RGB uint8 (H, W, 3) inside.
"""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from spmtrack_core.geometry.image import Image
from spmtrack_core.geometry.lazy_image import AnyImage, LazyImage

MAX_PIXELS = 50_000_000
READABLE_PIXELS = 178_000_000  # of a compressed image; Pillow refuses 179 million
_SMALL = 16  # px
_SAMPLES = 2**16  # pixels are enough for percentiles


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
    cell: tuple[int, int] = (1, 1)
    """Rows and columns of pixels that share a value or form a pattern: parts are multiples."""
    margin: int = 0
    """Pixels about a part that its conversion reads, a multiple of the cell."""


_BAYER = {
    # OpenCV's newer names agree with ROS; the older ones, BayerBG for RGGB, are shifted.
    "rggb": cv2.COLOR_BayerRGGB2RGB,
    "bggr": cv2.COLOR_BayerBGGR2RGB,
    "gbrg": cv2.COLOR_BayerGBRG2RGB,
    "grbg": cv2.COLOR_BayerGRBG2RGB,
}


def _bayer(code: int, bits: str = "u1") -> _Encoding:
    return _Encoding(1, code, bits, cell=(2, 2), margin=2)


def _pairs(code: int) -> _Encoding:
    """Two pixels share their chroma."""
    return _Encoding(2, code, cell=(1, 2))


def _planes(code: int, rows: float = 1.5) -> _Encoding:
    """Rows of luma, then of chroma."""
    return _Encoding(1, code, rows=rows, cell=(2, 2))


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
    "uyvy": _pairs(cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": _pairs(cv2.COLOR_YUV2RGB_YUY2),
    "yuv422": _pairs(cv2.COLOR_YUV2RGB_UYVY),  # older names of the two
    "yuv422_yuy2": _pairs(cv2.COLOR_YUV2RGB_YUY2),
    "nv12": _planes(cv2.COLOR_YUV2RGB_NV12),
    "nv21": _planes(cv2.COLOR_YUV2RGB_NV21),
    "nv24": _planes(cv2.COLOR_YUV2RGB_NV12, rows=3),
    "yuv420": _planes(cv2.COLOR_YUV2RGB_I420),
    "i420": _planes(cv2.COLOR_YUV2RGB_I420),
    **{f"bayer_{order}8": _bayer(code) for order, code in _BAYER.items()},
    "rgb16": _Encoding(3, bits="u2"),
    "bgr16": _Encoding(3, cv2.COLOR_BGR2RGB, "u2"),
    "rgba16": _Encoding(4, cv2.COLOR_RGBA2RGB, "u2"),
    "bgra16": _Encoding(4, cv2.COLOR_BGRA2RGB, "u2"),
    **{f"bayer_{order}16": _bayer(code, "u2") for order, code in _BAYER.items()},
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
    rows, columns = encoding.cell
    if not encoding.margin and (height % rows or width % columns):
        expected = "even sides" if rows > 1 else "an even width"
        raise ValueError(
            f"an image in {name} cannot have {width} x {height} px: expected {expected}"
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


def pixel_bytes(message: Any) -> tuple[_Encoding, NDArray[np.uint8]]:
    """Layout and bytes (rows, W, bytes of a pixel) of an image, a view of the message's memory.

    Raises ``ValueError`` as ``check_image`` does.
    """
    encoding = check_image(message)
    pixel = encoding.channels * np.dtype(encoding.bits).itemsize
    rows = np.lib.stride_tricks.as_strided(
        np.frombuffer(message.data, np.uint8),
        (round(message.height * encoding.rows), int(message.width), pixel),
        (int(message.step), pixel, 1),
    )
    return encoding, rows


def image_to_array(message: Any) -> Image:
    """RGB (H, W, 3) of a ``sensor_msgs/Image``; for rgb8 a view of the message's own memory.

    Values of 16 bits are divided by 256. Those of 16UC1 and 32FC1, which have no range, are
    stretched: the 1st to the 99th percentile of each image become 0 to 255, NaN becomes 0.
    Raises ``ValueError`` as ``check_image`` does.
    """
    return np.asarray(lazy_image(message))


def lazy_image(message: Any) -> AnyImage:
    """As ``image_to_array``, but only those parts are converted that are read.

    An image of rgb8, and one that is too small to be worth it, is an array.
    """
    encoding, pixels = pixel_bytes(message)
    height, width, name = int(message.height), int(message.width), message.encoding.lower()
    item = np.dtype(encoding.bits).itemsize
    if encoding.conversion is None and item == 1:
        return pixels
    order = f"{'>' if message.is_bigendian else '<'}{encoding.bits}" if item > 1 else ""
    limits = 0.0, 0.0
    if encoding.stretch:
        every = max(4, math.ceil((height * width / _SAMPLES) ** 0.5))
        limits = _limits(_view(pixels[::every, ::every], order))

    def convert(x1: int, y1: int, x2: int, y2: int) -> Image:
        (top, bottom), (left, right) = (
            _grow(*ends, cell, encoding.margin, side)
            for ends, cell, side in zip(
                ((y1, y2), (x1, x2)), encoding.cell, (height, width), strict=True
            )
        )
        if encoding.rows > 1:
            part = _planar_part(pixels, name, height, slice(top, bottom), slice(left, right))
        else:
            part = pixels[top:bottom, left:right]
        if order:
            part = _view(part, order)
            part = _stretch(part, *limits) if encoding.stretch else (part >> 8).astype(np.uint8)
        if encoding.conversion is not None:
            part = cv2.cvtColor(part, encoding.conversion)
        return _rgb(part[y1 - top : y2 - top, x1 - left : x2 - left])

    if min(height, width) < _SMALL:  # too small for some of OpenCV's conversions
        try:
            return convert(0, 0, width, height)
        except cv2.error:
            size = f"{width} x {height}"
            raise ValueError(f"an image in {message.encoding} cannot have {size} px") from None
    return LazyImage((height, width), convert)


def _grow(start: int, stop: int, cell: int, margin: int, side: int) -> tuple[int, int]:
    """The range with its margin, in whole cells."""
    stop += margin
    return max(0, start - margin) // cell * cell, min(side, stop + -stop % cell)


def _view(pixels: np.ndarray, order: str) -> np.ndarray:
    """Bytes (H, W, item * C) as numbers (H, W, C)."""
    return np.ascontiguousarray(pixels).view(order)


def _planar_part(
    pixels: np.ndarray, name: str, height: int, rows: slice, columns: slice
) -> np.ndarray:
    """A part of an image with planes, as an image in the layout that OpenCV converts."""
    width = pixels.shape[1]
    luma, chroma = pixels[rows, columns, 0], pixels[height:, :, 0]
    half_rows, half_columns = (slice(each.start // 2, each.stop // 2) for each in (rows, columns))
    if name == "nv24":  # OpenCV has no conversion with chroma for every pixel: four share one
        pairs = np.ascontiguousarray(chroma).reshape(height, width, 2)[rows, columns]
        size = luma.shape[1] // 2, luma.shape[0] // 2
        chroma = cv2.resize(pairs, size, interpolation=cv2.INTER_AREA)
        return np.vstack([luma, chroma.reshape(-1, luma.shape[1])])
    if luma.shape == (height, width):
        return pixels
    if name in ("nv12", "nv21"):
        return np.vstack([luma, chroma[half_rows, columns]])
    planes = np.ascontiguousarray(chroma).reshape(2, height // 2, width // 2)
    return np.vstack([luma, planes[:, half_rows, half_columns].reshape(-1, luma.shape[1])])


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


def _limits(values: np.ndarray) -> tuple[float, float]:
    """The 1st and the 99th percentile of the finite values."""
    some = values[np.isfinite(values)].astype(np.float32)
    low, high = np.percentile(some, [1, 99]) if some.size else (0.0, 1.0)
    return float(low), float(high)


def _stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as uint8: ``low`` to ``high`` become 0 to 255, NaN 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values.astype(np.float32) - low) * (255 / max(high - low, 1e-6))
    return np.nan_to_num(scaled, nan=0.0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)


def _rgb(image: Any) -> Image:
    return image.astype(np.uint8, copy=False)
