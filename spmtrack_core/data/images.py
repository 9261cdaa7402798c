"""Image files: which of a folder are frames, and their pixels as RGB uint8 of any depth."""

from __future__ import annotations

import ctypes
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spmtrack_core.geometry.image import Image

LOG = logging.getLogger(__name__)
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".png",
)
"""Photographs first: of two files with one stem, the earlier is the frame."""
DARK, BRIGHT = 0.1, 99.9
"""Percentiles of a 16-bit or float image that become 0 and 255."""
Levels = tuple[float, float]

_MASK = re.compile(r"(.+)[-_.](?:masks?|seg|segmentation|labels?|gt|depth|alpha|matte)", re.I)

if "OPENCV_LOG_LEVEL" not in os.environ:
    # its errors become ours
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def image_paths(folder: Path) -> list[Path]:
    """The image files of a folder in natural order (``2.jpg`` before ``10.jpg``).

    Left out are hidden files, which macOS and unfinished writes leave beside images, and masks: an
    image with the name of another one and a further word (``7_mask.png`` beside ``7.png``) or with
    another suffix that comes later in ``IMAGE_SUFFIXES`` (``7.png`` beside ``7.jpg``).
    """
    found = list(_images(folder))
    first: dict[str, int] = {}  # the best suffix of every stem
    for path in found:
        rank = IMAGE_SUFFIXES.index(path.suffix.lower())
        first[path.stem] = min(rank, first.get(path.stem, rank))
    frames = [
        path
        for path in found
        if IMAGE_SUFFIXES.index(path.suffix.lower()) == first[path.stem]
        and not ((mask := _MASK.fullmatch(path.stem)) and mask[1] in first)
    ]
    if len(frames) < len(found):
        left = len(found) - len(frames)
        example = min(path.name for path in set(found) - set(frames))
        LOG.warning("%s: %d masks are no frames, such as %s", folder, left, example)
    return sorted(frames, key=lambda path: natural_key(path.name))


def has_images(folder: Path) -> bool:
    """Whether an image lies in the folder itself."""
    return any(True for _ in _images(folder))


def _images(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            yield path


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts names by the numbers in them."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def read_image(path: str | Path) -> Image:
    """RGB uint8 (H, W, 3); ``FileNotFoundError`` without the file, ``ValueError`` if broken.

    16-bit and float images are scaled by their own ``image_levels``.
    """
    pixels = read_pixels(path)
    return to_image(pixels, image_levels(pixels))


def read_pixels(path: str | Path) -> NDArray:
    """(H, W, 3) RGB as stored: uint8, uint16 or float32."""
    path = Path(path)
    if not path.is_file():
        if path.is_symlink():
            raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which is missing")
        raise FileNotFoundError(f"no image at {path}")
    encoded = np.fromfile(path, np.uint8)
    if not encoded.size:
        raise ValueError(f"{path} is empty: 0 bytes")
    try:
        with _words_of_decoders(path):
            pixels = cv2.imdecode(encoded, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error:
        pixels = None
    if pixels is None or not pixels.size:
        raise ValueError(f"{path} is not an image that OpenCV can read, or it is cut off")
    if pixels.dtype not in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32)
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB)


def image_levels(pixels: NDArray) -> Levels:
    """What becomes 0 and 255: all of uint8, the percentiles 0.1 and 99.9 of any other type.

    A sequence takes those of its first frame for all its frames, so that brightness does not
    jump. Values that are not finite do not count.
    """
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    finite = pixels[np.isfinite(pixels)]
    low, high = np.percentile(finite, (DARK, BRIGHT)).tolist() if finite.size else (0.0, 0.0)
    if high > low:
        return low, high
    # one gray alone: nothing to stretch
    return min(low, 0.0), max(high, 65535.0 if pixels.dtype == np.uint16 else 1.0)


def to_image(pixels: NDArray, levels: Levels) -> Image:
    """RGB uint8 of pixels of any type; what is not finite becomes 0."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = levels
    inside = np.clip(np.nan_to_num(pixels, nan=low, posinf=high, neginf=low), low, high)
    return np.rint((inside.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)


def _c_streams() -> tuple[ctypes.c_void_p, int, int] | None:
    """The variable ``stderr`` of the C library, and a stream and file of ours to put there."""
    try:
        library = ctypes.CDLL(None)
        library.fdopen.restype = ctypes.c_void_p
        file = os.memfd_create("decoders")
        stream = library.fdopen(file, b"w")
        library.setbuf(ctypes.c_void_p(stream), None)
        return ctypes.c_void_p.in_dll(library, "stderr"), stream, file
    except (OSError, AttributeError, ValueError):  # not Linux
        return None


_STREAMS = _c_streams()
_STDERR = _STREAMS[0].value if _STREAMS else None
_TOLD: set[str] = set()


@contextmanager
def _words_of_decoders(path: Path) -> Iterator[None]:
    """libjpeg and libpng print what they find wrong to C's stderr: one warning of ours instead.

    Only C's variable changes, so that Python and crash reports write where they always do.
    """
    if _STREAMS is None:
        yield
        return
    variable, stream, file = _STREAMS
    before = os.fstat(file).st_size
    variable.value = stream
    try:
        yield
    finally:
        variable.value = _STDERR
        words = os.pread(file, 1000, before).decode(errors="replace").split("\n")[0]
        kind = words.partition(":")[0]
        if words and kind not in _TOLD:  # a camera may do it in every image
            _TOLD.add(kind)
            LOG.warning("%s is damaged, and maybe others: %s", path, words)
