"""A sequence: frames in order, read one at a time, and the boxes of its target where known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.geometry.image import Image, read_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
GROUNDTRUTH = "groundtruth.txt"


@dataclass(frozen=True)
class FrameSequence:
    """RGB uint8 frames (H, W, 3) of one size. Iterating again starts again, cameras excepted."""

    name: str
    open: Callable[[], Iterator[Image]] = field(repr=False)
    """Starts reading; each frame is decoded when it is asked for."""
    length: int | None = None
    """Frames, where that is known without reading them all."""
    fps: float | None = None
    """Frames per second of the source, where it has any."""
    boxes_xywh: Boxes | None = field(default=None, repr=False)
    """(N, 4) box of the target in every frame, NaN where it is absent; None if unknown."""

    def __iter__(self) -> Iterator[Image]:
        return self.open()


def image_folder(folder: str | Path) -> FrameSequence:
    """The images of a folder in natural order (``2.jpg`` before ``10.jpg``), as one sequence.

    A ``groundtruth.txt`` beside them gives the boxes. Raises ``FileNotFoundError`` without the
    folder, ``ValueError`` for one without images or with boxes that do not fit them; while
    reading, ``ValueError`` names an image that is broken or of another size than the first.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    paths = image_paths(folder)
    if not paths:
        raise ValueError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    boxes = None
    if (folder / GROUNDTRUTH).is_file():
        boxes = read_boxes(folder / GROUNDTRUTH)
        if len(boxes) != len(paths):
            raise ValueError(f"{folder} has {len(paths)} images and {len(boxes)} boxes")

    def frames() -> Iterator[Image]:
        first: tuple[int, ...] | None = None
        for path in paths:
            image = read_image(path)
            first = first or image.shape
            if image.shape != first:
                raise ValueError(
                    f"{path} is {image.shape[1]} x {image.shape[0]} pixels, "
                    f"the frames before it {first[1]} x {first[0]}"
                )
            yield image

    return FrameSequence(folder.resolve().name, frames, len(paths), None, boxes)


def image_paths(folder: Path) -> list[Path]:
    """The image files of a folder in natural order.

    Hidden files are left out: they are what macOS and unfinished writes leave beside images.
    """
    return sorted(
        (
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        ),
        key=lambda path: [
            (int(part), "") if part.isdecimal() else (-1, part)
            for part in re.split(r"(\d+)", path.name)
        ],
    )


def read_boxes(path: str | Path) -> Boxes:
    """(N, 4) from a text file of one ``x,y,w,h`` a line; commas, tabs or blanks, ``nan`` = absent.

    Raises ``ValueError`` naming file and line for anything but four numbers.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    boxes = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            box = [float(value) for value in re.split(r"[,\s]+", line.strip())]
        except ValueError:
            box = []
        if len(box) != 4:
            raise ValueError(f"{path}, line {number}: expected x,y,w,h; got {line.strip()!r}")
        boxes.append(box)
    if not boxes:
        raise ValueError(f"{path} holds no boxes")
    return np.array(boxes, np.float64)
