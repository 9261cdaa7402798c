"""GOT-10k: 9,335 short videos for training, 180 for validation, of 560 classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from spmtrack_core.data.clips import Clip, Entry, folders_in, numbered_clip, read_flags
from spmtrack_core.data.sequence import GROUNDTRUTH, read_boxes


def find(root: Path, split: str) -> list[Entry]:
    """The sequences in ``root/train`` or ``root/val``; the test split has no boxes.

    Raises ``ValueError`` for another split or a root without sequences.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split of got10k must be train or val, got {split!r}")
    folders = [path for path in folders_in(root / split) if path.name.startswith("GOT-10k_")]
    if not folders:
        example = f"{split}/GOT-10k_{split.capitalize()}_000001/{GROUNDTRUTH}"
        raise ValueError(f"{root} is no GOT-10k: expected {example} and so on")
    return [
        Entry(
            folder.name,
            (folder / GROUNDTRUTH, folder / "absence.label", folder / "cover.label", folder),
            partial(_read, root, folder),
        )
        for folder in folders
    ]


def _read(root: Path, folder: Path) -> list[Clip]:
    boxes = read_boxes(folder / GROUNDTRUTH)
    absent = read_flags(folder / "absence.label", len(boxes)) != 0
    hidden = read_flags(folder / "cover.label", len(boxes)) == 0  # 8: all visible
    boxes[absent | hidden] = np.nan
    return [numbered_clip(folder.name, root, folder, "%08d.jpg", 1, boxes)]
