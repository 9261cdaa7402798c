"""UAV123: 123 aerial sequences, cut out of 91 videos; UAV20L: 20 long ones of the same videos."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import Clip, Entry, Track, base_of, listed_clip
from spmtrack_core.data.images import image_paths
from spmtrack_core.data.sequence import read_boxes, wrong_root
from spmtrack_core.data.toolkits import attributes_beside

STARTS = {"bird1_2": 775, "bird1_3": 1573, "uav1_3": 2473}
"""First frames of cuts that leave a gap to the cut before; any other begins with its last."""


def find(root: Path, split: str, name: str = "UAV123") -> list[Entry]:
    """The sequences that ``anno/UAV123`` has boxes of; their images are in ``data_seq/UAV123``.

    Raises ``ValueError`` for another split than ``test`` and a root without sequences.
    """
    if split != "test":
        raise ValueError(f"split of {name.lower()} must be test, got {split!r}")
    base = base_of(root, f"anno/{name}/*.txt")
    paths = sorted((base / "anno" / name).glob("*.txt"))
    if not paths:
        expected = f"anno/{name}/<sequence>.txt and data_seq/UAV123/<video>/000001.jpg"
        raise wrong_root(root, name, expected)
    return [
        Entry(path.stem, (path,), partial(_read, root, base, path), partial(_track, path))
        for path in paths
    ]


def find_20l(root: Path, split: str) -> list[Entry]:
    """As ``find``, for ``anno/UAV20L``."""
    return find(root, split, "UAV20L")


def _track(path: Path) -> Track:
    named = attributes_beside("uav123", path.parent, path.stem)
    return Track(path.stem, read_boxes(path), attributes=named)


def _read(root: Path, base: Path, path: Path) -> list[Clip]:
    track, name = _track(path), path.stem
    images = base / "data_seq" / "UAV123"
    # person1_s is a video; bird1_2 is the second cut of bird1
    cut = re.fullmatch(r"(.+)_(\d)", name)
    video = cut[1] if cut and not (images / name).is_dir() else name
    folder = images / video
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of images at {folder}")
    first = _start(path, video, int(cut[2])) if cut and video != name else 1
    files = [file.name for file in image_paths(folder)]
    mine = files[first - 1 : first - 1 + len(track.boxes_xywh)]
    if len(mine) < len(track.boxes_xywh):
        raise ValueError(
            f"{folder} has {len(files)} images; {name} needs {first} to "
            f"{first - 1 + len(track.boxes_xywh)}"
        )
    return [listed_clip(root, folder, track, mine)]


def _start(path: Path, video: str, number: int) -> int:
    """Number of the first image of a cut."""
    name = f"{video}_{number}"
    if number == 1 or name in STARTS:
        return STARTS.get(name, 1)
    before = path.with_name(f"{video}_{number - 1}.txt")
    return _start(path, video, number - 1) + len(read_boxes(before)) - 1
