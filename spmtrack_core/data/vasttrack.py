"""VastTrack: 47,110 short videos for training, of 2,115 classes; 3,500 to test on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import Clip, Entry, Track, folders_in, listed_clip, visible
from spmtrack_core.data.lasot import FLAGS as LASOT_FLAGS
from spmtrack_core.data.sequence import read_boxes, wrong_root


def find(root: Path, split: str) -> list[Entry]:
    """The sequences ``<class>/<class>-<n>`` in ``root/split`` if that exists, else in ``root``.

    Raises ``ValueError`` for a root that holds none.
    """
    base = root / split if (root / split).is_dir() else root
    folders = [
        sequence
        for group in folders_in(base)
        for sequence in folders_in(group)
        if sequence.name.startswith(f"{group.name}-") and not (sequence / LASOT_FLAGS[0]).is_file()
    ]
    if not folders or (folders[0] / LASOT_FLAGS[0]).is_file():
        raise wrong_root(base, "VastTrack", "<class>/<class>-<n>/Groundtruth.txt")
    return [
        Entry(
            folder.name,
            (folder / "Groundtruth.txt", folder / "imgs", folder),
            partial(_read, root, folder, split == "test"),
            partial(_track, folder),
        )
        for folder in folders
    ]


def _track(folder: Path) -> Track:
    # both spellings of either name are in use
    names = ("Groundtruth.txt", "groundtruth.txt")
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    boxes = read_boxes(path)  # 0,0,0,0 for a target that is hidden or out of view
    boxes[:, :2] -= 1  # VastTrack counts pixels from 1
    absent = ~visible(boxes)
    return Track(folder.name, boxes, absent=absent, origin=1)


def _read(root: Path, folder: Path, spare: bool) -> list[Clip]:
    images = folder / "imgs" if (folder / "imgs").is_dir() else folder / "img"
    return [listed_clip(root, images, _track(folder), spare=spare)]
