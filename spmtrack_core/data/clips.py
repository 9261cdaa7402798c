"""Clips: what the reader of a dataset finds on disk, before it is packed into ``Tracks``.

A reader is one function ``find(root, split)``. It lists the sequences quickly; each entry is read
later and by itself, so that a broken one can be named and left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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
    """One target in a clip: its annotation from frame ``start`` on."""

    name: str
    boxes_xywh: Boxes
    """(N, 4) in px; the target is absent where a row is not finite or has no area."""
    start: int = 0
    absent: NDArray[np.bool_] | None = None
    """(N,) frames that the dataset flags as absent, whatever their boxes are; None: no flags."""
    origin: float = 0.0
    """Number of the first pixel in the files of the dataset; ``boxes_xywh`` count from 0."""
    image_wh: tuple[float, float] | None = None
    """Size of the frames, where the annotation tells it."""
    attributes: tuple[str, ...] = ()
    """Challenges that the dataset names for this sequence, such as ``FM``."""
    first_only: bool = False
    """Only the first box is known, the others are NaN: a server has the truth."""
    notes: tuple[str, ...] = ()
    """Quirks of the annotation, for the report."""

    @property
    def shown_xywh(self) -> Boxes:
        """``boxes_xywh``, NaN in frames that the dataset flags as absent."""
        if self.absent is None:
            return self.boxes_xywh
        return np.where(self.absent[:, None], np.nan, self.boxes_xywh)


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
    annotation: Callable[[], Track] | None = None
    """Its only track without its images, to score boxes that are there already; raises as above.
    None for datasets with several targets a clip."""


def visible(boxes_xywh: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(N,) whether a row of boxes (N, 4) shows a target: finite, and of positive area."""
    return np.isfinite(boxes_xywh).all(1) & (boxes_xywh[:, 2:] > 0).all(1)


def numbered_clip(
    root: Path, folder: Path, file: str, first: int, track: Track, spare: bool = False
) -> Clip:
    """One target in a folder of images named like ``file``, such as ``%08d.jpg``, from ``first``.

    The images are counted, not listed. ``spare`` allows more images than boxes: benchmarks have
    such sequences, and their boxes decide. Raises ``ValueError`` if there are not as many as
    boxes, or numbers are left out; ``FileNotFoundError`` without the folder.
    """
    suffix = Path(file).suffix
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of images at {folder}")
    images = sum(e.name.endswith(suffix) and e.name[0] != "." for e in os.scandir(folder))
    track = _fitted(folder, track, images, spare)
    length = len(track.boxes_xywh)
    last = file % (first + length - 1)
    if not (folder / last).is_file():
        raise ValueError(f"{folder} has {images} images but no {last}: numbers are left out")
    path = folder.relative_to(root).as_posix().replace("%", "%%")
    return Clip(track.name, f"{path}/{file}", length, [track], first)


def listed_clip(
    root: Path, folder: Path, track: Track, files: Sequence[str] | None = None, spare: bool = False
) -> Clip:
    """One target in a folder of images of any names; errors and ``spare`` as above.

    ``files`` are the names in order; None: all images in natural order.
    """
    if files is None:
        files = image_names(folder)
    track = _fitted(folder, track, len(files), spare)
    path = folder.relative_to(root).as_posix()
    length = len(track.boxes_xywh)
    return Clip(track.name, path, length, [track], files=tuple(files[:length]))


def image_names(folder: Path) -> list[str]:
    """The images of a folder in natural order; ``FileNotFoundError`` without the folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of images at {folder}")
    return [path.name for path in image_paths(folder)]


def has_gaps(files: Sequence[str]) -> bool:
    """Whether numbers, from 0 or 1 on, are left out in the names of images in natural order."""
    stems = (Path(each).stem for each in (files[0], files[-1]))
    first, last = (int(re.split(r"\D", stem)[-1] or 0) for stem in stems)
    return first > 1 or last - first != len(files) - 1


def _fitted(folder: Path, track: Track, images: int, spare: bool) -> Track:
    """The track for a folder with this number of images, with a note where they differ."""
    boxes = len(track.boxes_xywh)
    if track.first_only and images:
        rows = np.full((images, 4), np.nan)
        rows[0] = track.boxes_xywh[0]
        return replace(track, boxes_xywh=rows)
    if images == boxes:
        return track
    if not spare or images < boxes:
        raise ValueError(f"{folder} has {images} images for {boxes} boxes")
    return replace(
        track, notes=(*track.notes, f"{images} images for {boxes} boxes: the boxes decide")
    )


def cut_track(track: Track, length: int, note: str) -> Track:
    """The first ``length`` frames of a track, with a note that says why."""
    absent = None if track.absent is None else track.absent[:length]
    boxes, notes = track.boxes_xywh[:length], (*track.notes, note)
    return replace(track, boxes_xywh=boxes, absent=absent, notes=notes)


def read_flags(path: Path, length: int | None = None) -> NDArray[np.float64]:
    """(length,) whole numbers of a text file, split by commas, semicolons, blanks or lines.

    They may be written as ``1.0``, as ``np.savetxt`` does. Raises ``ValueError`` naming the file
    for anything else or, where a length is given, for another number of them.
    """
    words = re.split(r"[,;\s]+", read_text(path).strip(",; \t\r\n"))
    try:
        flags = np.array([float(word) for word in words])
        if not all(flag.is_integer() for flag in flags):
            raise ValueError
    except ValueError:
        raise ValueError(f"{path} must hold whole numbers") from None
    if length is not None and len(flags) != length:
        raise ValueError(f"{path} holds {len(flags)} numbers; expected {length}")
    return flags


def folders_in(folder: Path) -> list[Path]:
    """The folders in ``folder`` by name, without hidden ones; none if it does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # tells folders from files without a call for each
        return sorted(Path(e.path) for e in entries if e.is_dir() and e.name[0] != ".")


def first_of(*places: Path) -> Path:
    """The first of some places that exists; the first one where none does, to be named."""
    return next((place for place in places if place.exists()), places[0])


def imgs_of(folder: Path) -> Path:
    """``imgs`` of a sequence, which copies of some datasets call ``img``."""
    return first_of(folder / "imgs", folder / "img")


def base_of(root: Path, *patterns: str) -> Path:
    """The folder that a dataset was unpacked into: ``root``, or its only fitting sub-folder.

    It fits where something matches one of the glob ``patterns``; ``root`` itself if nothing does.
    """
    for folder in (root, *folders_in(root)):
        if any(next(folder.glob(pattern), None) for pattern in patterns):
            return folder
    return root


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
