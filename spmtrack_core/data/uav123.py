"""UAV123: 123 aerial sequences, cut out of 91 videos; UAV20L: 20 long ones of the same videos."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import (
    Clip,
    Entry,
    Track,
    base_of,
    has_gaps,
    image_names,
    listed_clip,
)
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
    paths = sorted((base / "anno" / name).glob("[!.]*.txt"))
    if not paths:
        expected = f"anno/{name}/<sequence>.txt and data_seq/UAV123/<video>/000001.jpg"
        raise wrong_root(root, name, expected)
    entries = []
    for path in paths:
        folder, cut = _cut(base, path)
        # where a cut begins depends on the cuts before
        before = [path.with_name(f"{folder.name}_{number}.txt") for number in range(1, cut)]
        read = partial(_read, root, base, path)
        entries.append(Entry(path.stem, (path, *before, folder), read, partial(_track, path)))
    return entries


def find_20l(root: Path, split: str) -> list[Entry]:
    """As ``find``, for ``anno/UAV20L``."""
    return find(root, split, "UAV20L")


def _track(path: Path) -> Track:
    named = attributes_beside("uav123", path.stem, path.parent)
    return Track(path.stem, read_boxes(path), attributes=named)


def _cut(base: Path, path: Path) -> tuple[Path, int]:
    """The folder with the images of a sequence, and which cut of this video it is, from 1."""
    folder = base / "data_seq" / "UAV123" / path.stem
    # person1_s is a video; bird1_2 is the second cut of bird1
    cut = re.fullmatch(r"(.+)_([1-9])", path.stem)
    if cut is None or folder.is_dir():
        return folder, 1
    return folder.with_name(cut[1]), int(cut[2])


def _read(root: Path, base: Path, path: Path) -> list[Clip]:
    track, name = _track(path), path.stem
    folder, cut = _cut(base, path)
    files = image_names(folder)
    first = _start(path, folder.name, cut)
    mine = files[first - 1 : first - 1 + len(track.boxes_xywh)]
    if len(mine) < len(track.boxes_xywh):
        raise ValueError(
            f"{folder} has {len(files)} images; {name} needs {first} to "
            f"{first - 1 + len(track.boxes_xywh)}"
        )
    if has_gaps(files[: files.index(mine[-1]) + 1]):  # all later frames would be others
        raise ValueError(f"{folder} has {len(files)} images: numbers are left out")
    return [listed_clip(root, folder, track, mine)]


def _start(path: Path, video: str, number: int) -> int:
    """Number of the first image of a cut."""
    name = f"{video}_{number}"
    if number == 1 or name in STARTS:
        return STARTS.get(name, 1)
    before = path.with_name(f"{video}_{number - 1}.txt")
    return _start(path, video, number - 1) + len(read_boxes(before)) - 1
