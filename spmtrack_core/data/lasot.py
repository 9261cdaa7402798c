"""LaSOT: 1,400 long videos of 70 classes, 1,120 of them for training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from spmtrack_core.data.clips import Clip, Entry, numbered_clip, read_flags
from spmtrack_core.data.sequence import GROUNDTRUTH, read_boxes
from spmtrack_core.files import read_text

LISTS = {"train": "training_set.txt", "test": "testing_set.txt"}
FLAGS = ("full_occlusion.txt", "out_of_view.txt")  # 1: the target cannot be seen


def find(root: Path, split: str) -> list[Entry]:
    """The sequences that ``training_set.txt`` or ``testing_set.txt`` of ``root`` names.

    Raises ``ValueError`` for another split, ``FileNotFoundError`` without the list, and
    ``ValueError`` if none of its sequences exists.
    """
    if split not in LISTS:
        raise ValueError(f"split of lasot must be one of {tuple(LISTS)}, got {split!r}")
    names_file = root / LISTS[split]
    if not names_file.is_file():
        raise FileNotFoundError(
            f"no {names_file}, which names the sequences of this split, one a line; it comes with "
            f"LaSOT and belongs beside the folders <class>/<class>-<n>/{GROUNDTRUTH}"
        )
    names = read_text(names_file).split()
    # <class>/<class>-<n>, or all sequences in one folder
    folders = [
        nested if (nested := root / name.rpartition("-")[0] / name).is_dir() else root / name
        for name in names
    ]
    if not any(folder.is_dir() for folder in folders):
        raise ValueError(
            f"{root} is no LaSOT: expected <class>/<class>-<n>/{GROUNDTRUTH} for the "
            f"{len(names)} sequences that {names_file.name} names"
        )
    return [
        Entry(
            name,
            (folder / GROUNDTRUTH, folder / FLAGS[0], folder / FLAGS[1], folder / "img"),
            partial(_read, root, folder),
        )
        for name, folder in zip(names, folders, strict=True)
    ]


def _read(root: Path, folder: Path) -> list[Clip]:
    boxes = read_boxes(folder / GROUNDTRUTH)
    boxes[:, :2] -= 1  # LaSOT counts pixels from 1
    for flag in FLAGS:
        boxes[read_flags(folder / flag, len(boxes)) != 0] = np.nan
    return [numbered_clip(folder.name, root, folder / "img", "%08d.jpg", 1, boxes)]
