"""Tracks: one dataset as plain arrays, with random access to every frame.

Millions of tracks and many worker processes take little memory: everything is in numpy arrays,
which a fork shares and pickle copies quickly. ``data/catalog.py`` opens them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from functools import partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from spmtrack_core.data.clips import Clip, visible
from spmtrack_core.data.decoding import upright, video_stream
from spmtrack_core.data.images import read_image
from spmtrack_core.data.sequence import FrameSequence, read_frames
from spmtrack_core.data.video import video_file
from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.geometry.image import Image


@dataclass(frozen=True, eq=False)
class StringArray:
    """Many short texts in two arrays, with a tenth of the memory of a list of str."""

    utf8: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def pack(cls, texts: Iterable[str]) -> StringArray:
        # surrogateescape: file names on Linux are bytes and need not be UTF-8
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index else 0
        return self.utf8[start : self.ends[index]].tobytes().decode("utf-8", "surrogateescape")


@dataclass(frozen=True, eq=False)
class Tracks:
    """The tracks of one dataset. Frames are numbered from 0 at the first frame of each track."""

    name: str
    root: str
    boxes: NDArray[np.float32] = field(repr=False)  # (sum of N, 4) xywh of all tracks, in turn
    box_ends: NDArray[np.int64] = field(repr=False)  # (T,) where the boxes of a track end
    names: StringArray = field(repr=False)  # (T,)
    clips: NDArray[np.int64] = field(repr=False)  # (T,) the clip a track is in
    starts: NDArray[np.int64] = field(repr=False)  # (T,) frame of the clip it starts at
    paths: StringArray = field(repr=False)  # (C,) as in Clip
    firsts: NDArray[np.int64] = field(repr=False)  # (C,)
    files: StringArray = field(repr=False)  # all explicit file names, clip by clip
    file_ends: NDArray[np.int64] = field(repr=False)  # (C,)
    times: NDArray[np.int64] = field(repr=False)  # all times of video frames, clip by clip
    time_ends: NDArray[np.int64] = field(repr=False)  # (C,)
    skipped: list[str] = field(repr=False)
    """What was left out, as ``name: reason``."""

    @classmethod
    def pack(cls, name: str, root: Path, clips: Iterable[Clip], skipped: list[str]) -> Tracks:
        """All tracks of ``clips``; a row of boxes without positive area becomes NaN."""
        clips = list(clips)
        tracks = [(index, track) for index, clip in enumerate(clips) for track in clip.tracks]
        each = [np.asarray(track.shown_xywh, np.float32) for _, track in tracks]
        boxes = np.concatenate([np.empty((0, 4), np.float32), *each])
        boxes[~visible(boxes)] = np.nan
        return cls(
            name,
            str(root),
            boxes,
            np.cumsum([len(track.boxes_xywh) for _, track in tracks], dtype=np.int64),
            StringArray.pack(track.name for _, track in tracks),
            np.array([index for index, _ in tracks], np.int64),
            np.array([track.start for _, track in tracks], np.int64),
            StringArray.pack(clip.path for clip in clips),
            np.array([clip.first for clip in clips], np.int64),
            StringArray.pack(file for clip in clips for file in clip.files),
            np.cumsum([len(clip.files) for clip in clips], dtype=np.int64),
            np.array([time for clip in clips for time in clip.times], np.int64),
            np.cumsum([len(clip.times) for clip in clips], dtype=np.int64),
            skipped,
        )

    def __len__(self) -> int:
        """Number of tracks."""
        return len(self.box_ends)

    def draw(self, random: np.random.Generator) -> int:
        """A random track: first a clip or still image, then one of the targets in it."""
        clip = int(random.integers(len(self.file_ends)))
        first, end = np.searchsorted(self.clips, [clip, clip + 1]).tolist()
        return int(random.integers(first, end))

    def track_name(self, i: int) -> str:
        """Name of track ``i``, unique in its dataset."""
        return self.names[self._checked(i)]

    def boxes_xywh(self, i: int) -> Boxes:
        """(N, 4) float64 in px, one row for every frame of track ``i``; NaN: target absent."""
        return _part(self.boxes, self.box_ends, self._checked(i)).astype(np.float64)

    def read(self, i: int, frame: int) -> Image:
        """Frame ``frame`` of track ``i``, RGB uint8 (H, W, 3).

        Raises ``FileNotFoundError`` or ``ValueError`` naming a file that is missing or broken, and
        ``ValueError`` for a frame that the track does not have.
        """
        start, length = int(self.starts[self._checked(i)]), self._length(i)
        if not 0 <= frame < length:
            raise ValueError(f"track {self.names[i]} has {length} frames; got frame {frame}")
        clip = int(self.clips[i])
        times = _part(self.times, self.time_ends, clip)
        if len(times):
            return read_video_frame(Path(self.root, self.paths[clip]), int(times[start + frame]))
        return read_image(self._image(i, frame))

    def sequence(self, i: int) -> FrameSequence:
        """Track ``i`` as a sequence: all its frames in order, and its boxes."""
        boxes = self.boxes_xywh(i)
        clip, start = int(self.clips[i]), int(self.starts[i])
        is_video = len(_part(self.times, self.time_ends, clip)) > 0

        def files() -> Iterator[Path]:
            if is_video:
                yield Path(self.root, self.paths[clip])
            else:
                yield from (self._image(i, frame) for frame in range(len(boxes)))

        def frames() -> Iterator[Image]:
            if is_video:  # in one go: no seeking
                yield from itertools.islice(video_file(*files()), start, start + len(boxes))
            else:  # published code tracks a sequence of several sizes, so a benchmark may have one
                yield from read_frames(files(), one_size=False)

        name, read = self.track_name(i), partial(self.read, i)
        return FrameSequence(name, frames, len(boxes), None, boxes, read_frame=read, files=files)

    def _image(self, i: int, frame: int) -> Path:
        """The file of a frame in a clip of images."""
        clip, index = int(self.clips[i]), int(self.starts[i]) + frame
        path, file_start = self.paths[clip], int(self.file_ends[clip - 1]) if clip else 0
        if file_start < self.file_ends[clip]:
            return Path(self.root, path, self.files[file_start + index])
        return Path(self.root, path % (int(self.firsts[clip]) + index))

    def _length(self, i: int) -> int:
        return int(self.box_ends[i] - (self.box_ends[i - 1] if i else 0))

    def _checked(self, i: int) -> int:
        if not 0 <= i < len(self):
            raise ValueError(f"{self.name} has {len(self)} tracks; got track {i}")
        return i


def save_tracks(path: str | Path, tracks: Tracks, key: str) -> None:
    """Write ``tracks`` as npz; ``key`` stands for the files they were made from."""
    arrays: dict[str, np.ndarray] = {"key": np.array(key)}
    for part in fields_of(Tracks):
        value = getattr(tracks, part.name)
        if part.name == "skipped":
            value = StringArray.pack(value)
        if isinstance(value, StringArray):
            arrays |= {f"{part.name}.utf8": value.utf8, f"{part.name}.ends": value.ends}
        else:
            arrays[part.name] = np.asarray(value)
    with open(path, "wb") as file:  # a name would get .npz appended
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_tracks(path: str | Path, key: str) -> Tracks | None:
    """Read what ``save_tracks`` wrote; None if it was written with another key.

    Raises ``OSError``, ``ValueError``, ``KeyError`` or ``zipfile.BadZipFile`` for another file.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if arrays["key"].item() != key:
            return None
        values: dict[str, object] = {}
        for part in fields_of(Tracks):
            if f"{part.name}.ends" in arrays:
                texts = StringArray(arrays[f"{part.name}.utf8"], arrays[f"{part.name}.ends"])
                values[part.name] = texts
            else:
                array = arrays[part.name]
                values[part.name] = array if array.ndim else array.item()
    skipped = values["skipped"]
    values["skipped"] = [skipped[i] for i in range(len(skipped))]  # type: ignore[arg-type,index]
    return Tracks(**values)  # type: ignore[arg-type]


def read_video_frame(path: Path, time: int) -> Image:
    """The frame of a video at presentation time ``time``: decoded from the key frame before it.

    Raises ``FileNotFoundError`` without the file, ``ValueError`` if it has no such frame.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no video at {path}")
    try:
        with av.open(str(path)) as container:
            stream = video_stream(container, str(path))
            container.seek(time, stream=stream)
            for frame in container.decode(stream):
                if frame.pts == time:
                    return upright(frame)
                if frame.pts is not None and frame.pts >= time:
                    break
        # some containers seek too far; then decode from the beginning
        with av.open(str(path)) as container:
            for frame in container.decode(video_stream(container, str(path))):
                if frame.pts == time:
                    return upright(frame)
    except av.FFmpegError as error:
        raise ValueError(f"{path} cannot be decoded: {error}") from None
    raise ValueError(f"{path} has no frame at time {time}")


def _part(values: NDArray, ends: NDArray[np.int64], index: int) -> NDArray:
    """The rows of ``values`` that belong to ``index``."""
    return values[ends[index - 1] if index else 0 : ends[index]]
