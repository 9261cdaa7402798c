"""Videos of your own, and benchmarks in their layouts: frames with boxes beside them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import Clip, Entry, Track, listed_clip, video_times
from spmtrack_core.data.images import has_images
from spmtrack_core.data.sequence import (
    GROUNDTRUTH,
    boxes_of,
    images_of,
    looks_like,
    read_boxes,
)

DEPTH = 3
"""Folders between the root and a sequence: VOT's ``sequences``, a split, LaSOT's class."""
# fmt: off
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv",
    ".f4v", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".m2p", ".mp2", ".vob", ".ts", ".mts",
    ".m2ts", ".3gp", ".3g2", ".ogv", ".ogm", ".rm", ".rmvb", ".dv", ".mxf", ".mjpeg", ".mjpg",
    ".h264", ".264", ".h265", ".265", ".hevc", ".y4m", ".ivf", ".nut", ".gif",
)
# fmt: on
"""Names of videos end so, in any case."""
OUTPUTS = ("results.json", "comparison.json", "done/*.json", "weights.safetensors")
"""What an evaluation or a training run leaves in its folder. Images there are plots, and those in
``worst``."""


def find(root: Path, split: str = "") -> list[Entry]:
    """Every sequence under ``root``, which may be one itself.

    A sequence is a folder of images or one video with a file of boxes (``boxes_of``), or a video
    file ``a.mp4`` with its boxes in ``a.txt``. Raises ``ValueError`` for a root that holds none.
    """
    entries = []
    for name, path in _named(root):
        boxes = _boxes_file(path)
        watched = (boxes, images_of(path), *_videos(path)) if path.is_dir() else (boxes, path)
        read = partial(_read, root, path, boxes, name)
        entries.append(Entry(name, watched, read, partial(_track, boxes, name)))
    return entries


def _named(root: Path) -> list[tuple[str, Path]]:
    """Every sequence with a name of its own."""
    paths = list(_sequences(root, DEPTH))
    if not paths:
        known = looks_like(root)
        raise ValueError(
            f"{root} holds no clips: expected <clip>/ with images or a video and {GROUNDTRUTH}, "
            "or <clip>.mp4 and <clip>.txt" + (f"; this looks like {known}" if known else "")
        )
    times = Counter(path.name for path in paths)
    named = []
    for path in paths:
        name = path.resolve().name if path == root else path.name
        if times[name] > 1:  # results are kept by name
            name = path.relative_to(root).as_posix().replace("/", "-")
        named.append((name, path))
    (name, count), *_ = Counter(name for name, _ in named).most_common(1)
    if count > 1:  # a/b and a-b
        both = " and ".join(str(path) for other, path in named if other == name)
        raise ValueError(f"{both} are both named {name}; rename one of them")
    return named


def _sequences(folder: Path, depth: int) -> Iterator[Path]:
    """The folders and video files that are sequences, by name."""
    plots = any(next(folder.glob(pattern), None) for pattern in OUTPUTS)
    images = depth < DEPTH and not plots and has_images(images_of(folder))
    if boxes_of(folder) is not None or images:
        yield folder
    elif depth:
        for path in sorted(path for path in folder.iterdir() if path.name[0] != "."):
            if path.is_dir():
                if not (plots and path.name == "worst"):
                    yield from _sequences(path, depth - 1)
            elif _is_video(path.name):
                yield path


def _boxes_file(path: Path) -> Path:
    if path.is_dir():
        return boxes_of(path) or path / GROUNDTRUTH
    return path.with_suffix(".txt")


def _is_video(name: str) -> bool:
    return name[0] != "." and name.lower().endswith(VIDEO_SUFFIXES)


def _videos(folder: Path) -> list[Path]:
    return sorted(folder / name for name in os.listdir(folder) if _is_video(name))


def _video_of(path: Path) -> Path | None:
    """The video of a sequence, ``None`` for one of images; ``ValueError`` for several videos."""
    videos = _videos(path) if path.is_dir() else [path]
    if len(videos) > 1:
        raise ValueError(f"{path} holds {len(videos)} videos, expected one")
    return videos[0] if videos else None


def _read(root: Path, path: Path, boxes: Path, name: str) -> list[Clip]:
    if not boxes.is_file():
        raise FileNotFoundError(f"no boxes at {boxes}")
    track = _track(boxes, name)
    video = _video_of(path)
    if video is None:
        return [listed_clip(root, images_of(path), track)]
    times = video_times(video, len(track.boxes_xywh))
    relative = video.relative_to(root).as_posix()
    return [Clip(name, relative, len(times), [track], times=times)]


def _track(boxes: Path, name: str) -> Track:
    return Track(name, read_boxes(boxes))
