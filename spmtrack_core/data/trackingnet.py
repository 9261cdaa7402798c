"""TrackingNet: 30,132 videos for training, in twelve parts."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import Clip, Entry, numbered_clip
from spmtrack_core.data.sequence import read_boxes

PARTS = 12


def find(root: Path, split: str) -> list[Entry]:
    """The videos of all parts on disk (``train``), or of some (``train:3``, ``train:0-3``).

    Raises ``ValueError`` for another split, a part that does not exist, or a root without videos.
    """
    match = re.fullmatch(r"train(?::(\d+)(?:-(\d+))?)?", split)
    if match is None:
        raise ValueError(
            "split of trackingnet must be train, or parts of it such as train:3 or train:0-3 "
            f"(the test videos have a box in their first frame only), got {split!r}"
        )
    first, last = match[1], match[2] or match[1]
    numbers = range(PARTS) if first is None else range(int(first), int(last) + 1)
    parts = [root / f"TRAIN_{number}" for number in numbers]
    missing = [part.name for part in parts if not (part / "anno").is_dir()]
    if len(missing) == len(parts) or (missing and first is not None):
        raise ValueError(
            f"{root} is no TrackingNet with {', '.join(missing) or split}: expected "
            "TRAIN_0/anno/<video>.txt and TRAIN_0/frames/<video>/0.jpg and so on"
        )
    return [
        Entry(
            boxes.stem,
            (boxes, part / "frames" / boxes.stem),
            partial(_read, root, part / "frames" / boxes.stem, boxes),
        )
        for part in parts
        for boxes in sorted((part / "anno").glob("*.txt"))
    ]


def _read(root: Path, folder: Path, boxes: Path) -> list[Clip]:
    return [numbered_clip(folder.name, root, folder, "%d.jpg", 0, read_boxes(boxes))]
