"""Videos of your own: folders of images or video files, with boxes beside the frames."""

from __future__ import annotations

import mimetypes
from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import Clip, Entry, Track, listed_clip, video_times
from spmtrack_core.data.sequence import GROUNDTRUTH, IMAGE_SUFFIXES, read_boxes


def find(root: Path, split: str = "") -> list[Entry]:
    """Every folder in ``root``, and every video file; ``root`` itself may be such a folder.

    A folder holds images or one video, and ``groundtruth.txt``; a video file ``a.mp4`` has its
    boxes in ``a.txt``. Raises ``ValueError`` for a root that holds none.
    """
    if (root / GROUNDTRUTH).is_file():
        entries = [_entry(root, root)]
    else:
        paths = sorted(path for path in root.iterdir() if path.name[0] != ".")
        entries = [_entry(root, path) for path in paths if path.is_dir() or _is_video(path)]
    if not entries:
        raise ValueError(
            f"{root} holds no clips: expected <clip>/ with images or a video and {GROUNDTRUTH}, "
            "or <clip>.mp4 and <clip>.txt"
        )
    return entries


def _entry(root: Path, path: Path) -> Entry:
    boxes = path / GROUNDTRUTH if path.is_dir() else path.with_suffix(".txt")
    name = path.resolve().name if path == root else path.name
    return Entry(name, (boxes, path), partial(_read, root, path, boxes, name))


def _is_video(path: Path) -> bool:
    """Whether the name says video, or boxes lie beside a file that is neither image nor text."""
    if (mimetypes.guess_type(path.name)[0] or "").startswith("video/"):
        return True
    other = path.suffix.lower() not in (*IMAGE_SUFFIXES, ".txt", "")
    # what lies beside groundtruth.txt under that name is a copy of it in another form
    other = other and not path.name.startswith(GROUNDTRUTH.removesuffix("txt"))
    return other and path.is_file() and path.with_suffix(".txt").is_file()


def _read(root: Path, path: Path, boxes: Path, name: str) -> list[Clip]:
    if not boxes.is_file():
        raise FileNotFoundError(f"no boxes at {boxes}")
    boxes_xywh = read_boxes(boxes)
    videos = [path]
    if path.is_dir():
        videos = sorted(file for file in path.iterdir() if _is_video(file))
    if not videos:
        return [listed_clip(name, root, path, boxes_xywh)]
    if len(videos) > 1:
        raise ValueError(f"{path} holds {len(videos)} videos, expected one")
    times = video_times(videos[0], len(boxes_xywh))
    relative = videos[0].relative_to(root).as_posix()
    return [Clip(name, relative, len(times), [Track(name, boxes_xywh)], times=times)]
