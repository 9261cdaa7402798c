"""A sequence: frames in order, read one at a time, and the boxes of its target where known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spmtrack_core.data.clips import Track
from spmtrack_core.data.images import (
    IMAGE_SUFFIXES,
    has_images,
    image_levels,
    image_paths,
    read_pixels,
    to_image,
)
from spmtrack_core.files import read_text
from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.geometry.image import Image

GROUNDTRUTH = "groundtruth.txt"
BOX_FILES = (GROUNDTRUTH, "Groundtruth.txt", "groundtruth_rect.txt")
"""What benchmarks call the boxes of a sequence."""
ABSENT = re.compile(r" *([,;\t] *){3,4}")
"""A line of such a file without its numbers."""
IMAGE_FOLDERS = ("img", "imgs", "color", "images", "frames", "rgb", "img1")
"""What they call the folder of its images, where these do not lie beside the boxes."""
TimedFrames = Iterator[tuple[Image, float | None]]


@dataclass(frozen=True)
class FrameSequence:
    """RGB uint8 frames (H, W, 3). Iterating again starts again, live sources excepted.

    All frames of a folder have one size; a video may change its size.
    """

    name: str
    open: Callable[[], Iterator[Image]] = field(repr=False)
    """Starts reading; each frame is decoded when it is asked for."""
    length: int | None = None
    """Frames, where that is known without reading them all."""
    fps: float | None = None
    """Frames per second of the source, where it has any."""
    boxes_xywh: Boxes | None = field(default=None, repr=False)
    """(N, 4) box of the target in every frame, NaN where it is absent; (1, 4) where only the box
    of the first frame is known; None if unknown."""
    open_timed: Callable[[], TimedFrames] | None = field(default=None, repr=False)
    """As ``open``, with the time of each frame in s; None where frames have no times."""
    annotation: Track | None = field(default=None, repr=False)
    """What a benchmark says of the target in every frame: flags, attributes, quirks."""
    read_frame: Callable[[int], Image] | None = field(default=None, repr=False)
    """Reads one frame by its index, where that is possible without reading those before it."""
    live: bool = False
    """Frames come as they are made; whoever is slower gets the newest one."""
    files: Callable[[], Iterable[Path]] | None = field(default=None, repr=False)
    """The files that the frames are in; None where frames are made or come from an address."""

    def __iter__(self) -> Iterator[Image]:
        return self.open()

    def timed(self) -> TimedFrames:
        """The frames, each with its time in s from the first one; None where it has none."""
        if self.open_timed is None:
            return ((frame, None) for frame in self.open())
        return self.open_timed()


def next_time(when: float | None, before: float, period: float) -> float:
    """The time of a frame after one at ``before``, so that times always increase.

    That is ``when``, or one ``period`` later where that is absent or goes back (files that were
    joined, damage).
    """
    return when if when is not None and when > before else before + period


def image_folder(folder: str | Path, with_boxes: bool = True) -> FrameSequence:
    """The images of a folder in natural order (``2.jpg`` before ``10.jpg``), as one sequence.

    The images may lie in a sub-folder of ``IMAGE_FOLDERS``. A file of ``BOX_FILES`` gives the
    boxes, of every frame or of the first one alone, unless they are not wanted. Raises
    ``FileNotFoundError`` without the folder, ``ValueError`` for one without images or with boxes
    that do not fit them; while reading, as ``read_frames``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    paths = image_paths(images_of(folder))
    if not paths:
        known = looks_like(folder)
        cure = f"; this looks like {known}: expected the folder of one sequence" if known else ""
        raise ValueError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}){cure}")
    boxes = None
    path = boxes_of(folder)
    if with_boxes and path is not None:
        boxes = read_boxes(path)
        if len(boxes) not in (1, len(paths)):
            raise ValueError(f"{folder} has {len(paths)} images and {len(boxes)} boxes")
    name = folder.resolve().name
    return FrameSequence(
        name, lambda: read_frames(paths), len(paths), None, boxes, files=lambda: paths
    )


def read_frames(paths: Iterable[Path], one_size: bool = True) -> Iterator[Image]:
    """The images, one after the other; 16-bit and float images by the levels of the first.

    Raises ``ValueError`` or ``FileNotFoundError`` naming an image that cannot be read, or is of
    another type than the first or, with ``one_size``, of another size.
    """
    levels, expected = (0.0, 255.0), ""
    for path in paths:
        pixels = read_pixels(path)
        size = f"{pixels.shape[1]} x {pixels.shape[0]} " if one_size else ""
        kind = f"{size}pixels of {pixels.dtype}"
        if not expected:
            levels, expected = image_levels(pixels), kind
        if kind != expected:
            raise ValueError(f"{path} has {kind}, the frames before it {expected}")
        yield to_image(pixels, levels)


def images_of(folder: Path) -> Path:
    """Where the images of a sequence lie: in its folder or a sub-folder of ``IMAGE_FOLDERS``."""
    if has_images(folder):
        return folder
    below = (folder / name for name in IMAGE_FOLDERS)
    return next((path for path in below if path.is_dir() and has_images(path)), folder)


def boxes_of(folder: Path) -> Path | None:
    """The file with the boxes of a sequence; None where there is none."""
    return next((folder / name for name in BOX_FILES if (folder / name).is_file()), None)


_LAYOUTS = {
    "LaSOT": ("full_occlusion.txt", "*/full_occlusion.txt", "*/*/full_occlusion.txt"),
    "TNL2K": ("*/language.txt", "*/*/language.txt"),
    "NfS": ("*/30/*.txt", "anno/nfs_*.txt"),
    "GOT-10k": ("train/GOT-10k_*", "val/GOT-10k_*", "test/GOT-10k_*", "GOT-10k_*"),
    "TrackingNet": ("TRAIN_*/anno", "TEST/anno"),
    "VastTrack": ("*/*/Groundtruth.txt", "*/*/*/Groundtruth.txt"),
    "COCO": ("annotations/instances_*.json",),
    "MOT": ("*/gt/gt.txt", "*/*/gt/gt.txt"),
    "UAV123": ("anno/UAV123", "data_seq/UAV123"),
    "OTB": ("*/groundtruth_rect*.txt",),
    "VOT": ("*/color", "sequences/*/color"),
}


def looks_like(root: Path) -> str | None:
    """The dataset that a folder seems to be the root of; None where no layout fits."""
    for name, patterns in _LAYOUTS.items():
        if any(next(root.glob(pattern), None) for pattern in patterns):
            return name
    return None


def wrong_root(root: Path, dataset: str, expected: str) -> ValueError:
    """The error for a folder without a dataset: what was expected, and what it looks like."""
    known = looks_like(root)
    cure = f"; this looks like {known}" if known else ""
    return ValueError(f"{root} is no {dataset}: expected {expected}{cure}")


def read_boxes(path: str | Path) -> Boxes:
    """(N, 4) from a text file of one ``x,y,w,h`` a line; ``nan`` for a target that is absent.

    Commas, semicolons, tabs and blanks separate. A line of eight numbers is a polygon of four
    corners (VOT), of which the axis-aligned bounds are taken; three separators alone, as pandas
    writes them, are an absent target. Empty lines may follow the last box. Raises
    ``FileNotFoundError`` without the file and ``ValueError`` naming file and line for anything
    else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no boxes at {path}")
    boxes = []
    lines = read_text(path).splitlines()
    while lines and not lines[-1].strip() and not ABSENT.fullmatch(lines[-1]):
        lines.pop()
    for number, line in enumerate(lines, 1):
        absent = ABSENT.fullmatch(line)
        words = ["nan"] * 4 if absent else re.split(r"[,;\s]+", line.strip(",; \t"))
        try:
            box = [float(word) for word in words]
        except ValueError:
            box = []
        if len(box) == 8:
            corners = np.reshape(box, (4, 2))
            low = corners.min(0)
            box = [*low, *(corners.max(0) - low)]
        if len(box) != 4:
            raise ValueError(
                f"{path}, line {number}: expected x,y,w,h or the eight numbers of a polygon; "
                f"got {line.strip()[:60]!r}"
            )
        boxes.append(box)
    if not boxes:
        raise ValueError(f"{path} holds no boxes")
    return np.array(boxes, np.float64)
