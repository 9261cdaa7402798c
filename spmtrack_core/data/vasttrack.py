"""VastTrack: 47,110 short videos for training, of 2,115 classes; 3,500 to test on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import (
    Clip,
    Entry,
    Track,
    base_of,
    first_of,
    folders_in,
    imgs_of,
    listed_clip,
    visible,
)
from spmtrack_core.data.lasot import FLAGS as LASOT_FLAGS
from spmtrack_core.data.sequence import read_boxes, wrong_root

SPLITS = ("train", "test")
NESTED = "*/*/[Gg]roundtruth.txt"


def find(root: Path, split: str) -> list[Entry]:
    """The sequences ``<class>/<class>-<n>`` in ``root/split`` if that exists, else in ``root``.

    Raises ``ValueError`` for another split and a root that holds none.
    """
    if split not in SPLITS:
        raise ValueError(f"split of vasttrack must be train or test, got {split!r}")
    base = base_of(root, f"{split}/{NESTED}", NESTED)
    if base.parent == root and base.name in SPLITS:
        base = root  # without the split that is asked for
    base = base / split if (base / split).is_dir() else base
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
            (_truth(folder), imgs_of(folder)),
            partial(_read, root, folder, split == "test"),
            partial(_track, folder),
        )
        for folder in folders
    ]


# both spellings are in use
def _truth(folder: Path) -> Path:
    return first_of(folder / "Groundtruth.txt", folder / "groundtruth.txt")


def _track(folder: Path) -> Track:
    boxes = read_boxes(_truth(folder))  # 0,0,0,0 for a target that is hidden or out of view
    boxes[:, :2] -= 1  # VastTrack counts pixels from 1
    absent = ~visible(boxes)
    return Track(folder.name, boxes, absent=absent, origin=1)


def _read(root: Path, folder: Path, spare: bool) -> list[Clip]:
    return [listed_clip(root, imgs_of(folder), _track(folder), spare=spare)]
