"""GOT-10k: 9,335 short videos for training, 180 for validation, 180 whose truth a server has."""

from __future__ import annotations

import configparser
import re
from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import (
    Clip,
    Entry,
    Track,
    base_of,
    folders_in,
    numbered_clip,
    read_flags,
)
from spmtrack_core.data.sequence import GROUNDTRUTH, read_boxes, wrong_root
from spmtrack_core.files import read_text

SPLITS = ("train", "val", "test")


def find(root: Path, split: str) -> list[Entry]:
    """The sequences in ``root/train``, ``root/val`` or ``root/test``.

    The test split has one box a sequence. Raises ``ValueError`` for another split or a root
    without sequences.
    """
    if split not in SPLITS:
        raise ValueError(f"split of got10k must be one of {', '.join(SPLITS)}; got {split!r}")
    base = base_of(root, f"{split}/GOT-10k_*")
    if not (base / split).is_dir() and next(base.glob(f"GOT-10k_{split.capitalize()}_*"), None):
        folders = folders_in(base)  # the split itself
    else:
        folders = folders_in(base / split)
    folders = [path for path in folders if path.name.startswith("GOT-10k_")]
    if not folders:
        example = f"{split}/GOT-10k_{split.capitalize()}_000001/{GROUNDTRUTH}"
        raise wrong_root(root, "GOT-10k", f"{example} and so on")
    return [
        Entry(
            folder.name,
            (folder / GROUNDTRUTH, folder / "absence.label", folder / "cover.label", folder),
            partial(_read, root, folder, split),
            partial(_track, folder, split),
        )
        for folder in folders
    ]


def _track(folder: Path, split: str) -> Track:
    boxes = read_boxes(folder / GROUNDTRUTH)
    image_wh = _image_wh(folder)
    if split == "test":
        return Track(folder.name, boxes[:1], image_wh=image_wh, first_only=True)
    absent = read_flags(folder / "cover.label", len(boxes)) == 0  # 8: all visible
    if split == "train":  # the toolkit scores by the cover alone
        absent |= read_flags(folder / "absence.label", len(boxes)) != 0
    return Track(folder.name, boxes, absent=absent, image_wh=image_wh)


def _image_wh(folder: Path) -> tuple[float, float] | None:
    """``resolution`` of ``meta_info.ini``, which the toolkit clips boxes to."""
    info = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        info.read_string(read_text(folder / "meta_info.ini"))
        numbers = re.findall(r"\d+\.?\d*", info.get("METAINFO", "resolution"))
        return float(numbers[0]), float(numbers[1])
    except (OSError, configparser.Error, IndexError):
        return None


def _read(root: Path, folder: Path, split: str) -> list[Clip]:
    return [numbered_clip(root, folder, "%08d.jpg", 1, _track(folder, split))]
