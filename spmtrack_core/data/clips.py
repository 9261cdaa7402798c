"""Clips: what the reader of a dataset finds on disk, before it is packed into ``Tracks``.

A reader is one function ``find(root, split)``. It lists the sequences quickly; each entry is read
later and by itself, so that a broken one can be named and left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from spmtrack_core.data.decoding import decode, video_stream
from spmtrack_core.data.images import image_paths
from spmtrack_core.files import read_text
from spmtrack_core.geometry.boxes import Boxes


@dataclass(frozen=True, slots=True)
class Track:
    """One target in a clip: its boxes from frame ``start`` on."""

    name: str
    boxes_xywh: Boxes
    """(N, 4) in px; the target is absent where a row is not finite or has no area."""
    start: int = 0


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames in order and the targets in them, as a reader finds them on disk.

    The frames are numbered images, or ``files``, or those of a video at ``times``.
    """

    name: str
    path: str
    """Relative to the root: a printf pattern such as ``a/%08d.jpg`` (``%%`` for a percent sign);
    the folder of the ``files``; or the video file."""
    length: int
    tracks: list[Track]
    first: int = 0
    """Number of the first image of a pattern."""
    files: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    """Presentation times of the frames of a video, in units of its stream."""


@dataclass(frozen=True)
class Entry:
    """A part of a dataset that is read in one go: a sequence, or all of COCO."""

    name: str
    watched: tuple[Path, ...]
    """Files and folders that change when what is read does."""
    read: Callable[[], Iterable[Clip | str]]
    """Its clips, and a text for each piece of it that is left out, with the reason.

    Raises ``ValueError`` or ``OSError`` saying what is wrong with all of it."""


def visible(boxes_xywh: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(N,) whether a row of boxes (N, 4) shows a target: finite, and of positive area."""
    return np.isfinite(boxes_xywh).all(1) & (boxes_xywh[:, 2:] > 0).all(1)


def numbered_clip(
    name: str, root: Path, folder: Path, file: str, first: int, boxes_xywh: Boxes
) -> Clip:
    """One target in a folder of images named like ``file``, such as ``%08d.jpg``, from ``first``.

    The images are counted, not listed. Raises ``ValueError`` if there are not as
    many as boxes (N, 4), or numbers are left out; ``FileNotFoundError`` without the folder.
    """
    suffix = Path(file).suffix
    images = sum(e.name.endswith(suffix) and e.name[0] != "." for e in os.scandir(folder))
    if images != len(boxes_xywh):
        raise ValueError(f"{folder} has {images} images for {len(boxes_xywh)} boxes")
    last = file % (first + images - 1)
    if not (folder / last).is_file():
        raise ValueError(f"{folder} has {images} images but no {last}: numbers are left out")
    path = folder.relative_to(root).as_posix().replace("%", "%%")
    return Clip(name, f"{path}/{file}", images, [Track(name, boxes_xywh)], first)


def listed_clip(name: str, root: Path, folder: Path, boxes_xywh: Boxes) -> Clip:
    """One target in a folder of images of any names, in natural order; errors as above."""
    files = tuple(path.name for path in image_paths(folder))
    if len(files) != len(boxes_xywh):
        raise ValueError(f"{folder} has {len(files)} images for {len(boxes_xywh)} boxes")
    path = folder.relative_to(root).as_posix()
    return Clip(name, path, len(files), [Track(name, boxes_xywh)], files=files)


def read_flags(path: Path, length: int) -> NDArray[np.int64]:
    """(length,) whole numbers of a text file, split by commas, blanks or lines.

    Raises ``ValueError`` naming the file for anything else or another number of them.
    """
    words = re.split(r"[,\s]+", read_text(path).strip())
    try:
        flags = np.array([int(word) for word in words], np.int64)
    except ValueError:
        raise ValueError(f"{path} must hold whole numbers") from None
    if len(flags) != length:
        raise ValueError(f"{path} holds {len(flags)} numbers for {length} boxes")
    return flags


def folders_in(folder: Path) -> list[Path]:
    """The folders in ``folder`` by name, without hidden ones; none if it does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # tells folders from files without a call for each
        return sorted(Path(e.path) for e in entries if e.is_dir() and e.name[0] != ".")


def video_times(path: Path, frames: int) -> tuple[int, ...]:
    """Presentation times of the frames of a video, in order, in units of its stream.

    They are read from the packets; the video is decoded only if these do not amount to ``frames``
    frames, as some codecs have packets that are not shown. Raises ``ValueError`` for what is no
    video or has another number of frames.
    """
    try:
        with av.open(str(path)) as container:
            packets = container.demux(video_stream(container, str(path)))
            times = [p.pts for p in packets if p.size and not p.is_discard]
        if len(times) != frames or None in times:
            with av.open(str(path)) as container:
                times = [frame.pts for frame in decode(container, str(path), warn=False)]
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a video that can be read: {error}") from None
    if None in times:
        raise ValueError(f"{path} has frames without times; write it as mp4 or as images")
    if len(times) != frames:
        raise ValueError(f"{path} has {len(times)} frames for {frames} boxes")
    return tuple(sorted(times))
