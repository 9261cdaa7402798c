"""LaSOT: 1,400 long videos of 70 classes, 280 to test on; LaSOT_ext: 150 more of 15 classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from spmtrack_core.data.clips import (
    Clip,
    Entry,
    Track,
    base_of,
    folders_in,
    numbered_clip,
    read_flags,
)
from spmtrack_core.data.sequence import GROUNDTRUTH, looks_like, read_boxes, wrong_root
from spmtrack_core.data.toolkits import annotation_entry, attributes_beside, toolkit_folder
from spmtrack_core.files import read_text

LISTS = {"train": "training_set.txt", "test": "testing_set.txt"}
FLAGS = ("full_occlusion.txt", "out_of_view.txt")  # 1: the target cannot be seen
NESTED = f"*/*/{GROUNDTRUTH}"
ORIGINS = {"lasot": 1.0, "lasot_ext": 0.0}
"""Number of the first pixel; the authors' code does not shift the boxes of LaSOT_ext."""


def find(root: Path, split: str) -> list[Entry]:
    """The sequences that ``training_set.txt`` or ``testing_set.txt`` of ``root`` names.

    The toolkit may lie beside them, for the attributes; alone it will do to score results.

    Raises ``ValueError`` for another split, ``FileNotFoundError`` without the list, and
    ``ValueError`` if none of its sequences exists.
    """
    if split not in LISTS:
        raise ValueError(f"split of lasot must be one of {tuple(LISTS)}, got {split!r}")
    base = base_of(root, LISTS[split])
    names_file = base / LISTS[split]
    flags = toolkit_folder("absent", root)
    toolkit = flags.parent if flags else base
    listed = toolkit.parent / "sequence_evaluation_config" / LISTS[split]
    if listed.is_file() and (names_file == listed or not names_file.is_file()):
        names = _names(listed)
        return [annotation_entry("lasot", toolkit, toolkit / f"{name}.txt", 1) for name in names]
    if not names_file.is_file():
        known = looks_like(base)
        raise FileNotFoundError(
            f"no {names_file}, which names the sequences of this split, one a line; it comes with "
            f"LaSOT and belongs beside the folders <class>/<class>-<n>/{GROUNDTRUTH}"
            + (f"; this looks like {known}" if known else "")
        )
    names = _names(names_file)
    # <class>/<class>-<n>, or all sequences in one folder
    folders = [
        nested if (nested := base / name.rpartition("-")[0] / name).is_dir() else base / name
        for name in names
    ]
    if not any(folder.is_dir() for folder in folders):
        expected = f"<class>/<class>-<n>/{GROUNDTRUTH} for the {len(names)} sequences"
        raise wrong_root(base, "LaSOT", f"{expected} that {names_file.name} names")
    return [_entry("lasot", root, base, folder, split == "test") for folder in folders]


def find_ext(root: Path, split: str) -> list[Entry]:
    """All sequences of LaSOT_ext, which has no list and one split, ``test``.

    Raises ``ValueError`` for another split and a root without sequences.
    """
    if split != "test":
        raise ValueError(f"split of lasot_ext must be test, got {split!r}")
    base = base_of(root, NESTED)
    if (base / LISTS["test"]).is_file():
        raise ValueError(f"{base} is no LaSOT_ext: {LISTS['test']} belongs to LaSOT")
    folders = [
        folder
        for group in folders_in(base)
        for folder in folders_in(group)
        if folder.name.startswith(f"{group.name}-")
    ] or [folder for folder in folders_in(base) if (folder / FLAGS[0]).is_file()]
    if not folders:
        raise wrong_root(base, "LaSOT_ext", f"<class>/<class>-<n>/{GROUNDTRUTH}")
    return [_entry("lasot_ext", root, base, folder, True) for folder in folders]


def _names(path: Path) -> list[str]:
    """The sequences of a list, each once."""
    return list(dict.fromkeys(read_text(path).split()))


def _entry(dataset: str, root: Path, base: Path, folder: Path, spare: bool) -> Entry:
    return Entry(
        folder.name,
        (folder / GROUNDTRUTH, folder / FLAGS[0], folder / FLAGS[1], folder / "img"),
        partial(_read, dataset, root, base, folder, spare),
        partial(_track, dataset, root, base, folder),
    )


def _track(dataset: str, root: Path, base: Path, folder: Path) -> Track:
    boxes = read_boxes(folder / GROUNDTRUTH)
    named = attributes_beside(dataset, folder.name, base, root)
    origin = ORIGINS[dataset]
    boxes[:, :2] -= origin
    absent = np.zeros(len(boxes), bool)
    for flag in FLAGS:
        absent |= read_flags(folder / flag, len(boxes)) != 0
    return Track(folder.name, boxes, absent=absent, origin=origin, attributes=named)


def _read(dataset: str, root: Path, base: Path, folder: Path, spare: bool) -> list[Clip]:
    track = _track(dataset, root, base, folder)
    return [numbered_clip(root, folder / "img", "%08d.jpg", 1, track, spare)]
