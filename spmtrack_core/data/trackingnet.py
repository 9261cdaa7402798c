"""TrackingNet: 30,132 videos for training, in twelve parts; 511 whose truth a server has."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import Clip, Entry, Track, base_of, numbered_clip
from spmtrack_core.data.sequence import read_boxes, wrong_root

PARTS = 12


def find(root: Path, split: str) -> list[Entry]:
    """The videos of all parts on disk (``train``), of some (``train:3``, ``train:0-3``), or those
    to test on (``test``), which have one box each.

    Raises ``ValueError`` for another split, a part that does not exist, or a root without videos.
    """
    if split == "test":
        base = base_of(root, "TEST/anno") / "TEST"
        if not base.is_dir() and (root / "anno").is_dir() and (root / "frames").is_dir():
            base = root  # TEST itself
        if not (base / "anno").is_dir():
            expected = "TEST/anno/<video>.txt and TEST/frames/<video>/0.jpg and so on"
            raise wrong_root(root, "TrackingNet with TEST", expected)
        return _entries(root, [base], first_only=True)
    match = re.fullmatch(r"train(?::(\d+)(?:-(\d+))?)?", split)
    if match is None:
        raise ValueError(
            "split of trackingnet must be test, train, or parts of it such as train:3 or "
            f"train:0-3, got {split!r}"
        )
    first, last = match[1], match[2] or match[1]
    numbers = range(PARTS) if first is None else range(int(first), int(last) + 1)
    parts = [root / f"TRAIN_{number}" for number in numbers]
    missing = [part.name for part in parts if not (part / "anno").is_dir()]
    if len(missing) == len(parts) or (missing and first is not None):
        expected = "TRAIN_0/anno/<video>.txt and TRAIN_0/frames/<video>/0.jpg and so on"
        raise wrong_root(root, f"TrackingNet with {', '.join(missing) or split}", expected)
    return _entries(root, parts, first_only=False)


def _entries(root: Path, parts: list[Path], first_only: bool) -> list[Entry]:
    return [
        Entry(
            boxes.stem,
            (boxes, part / "frames" / boxes.stem),
            partial(_read, root, part / "frames" / boxes.stem, boxes, first_only),
            partial(_track, boxes, first_only),
        )
        for part in parts
        for boxes in sorted((part / "anno").glob("[!.]*.txt"))
    ]


def _track(path: Path, first_only: bool) -> Track:
    boxes = read_boxes(path)
    return Track(path.stem, boxes[:1] if first_only else boxes, first_only=first_only)


def _read(root: Path, folder: Path, boxes: Path, first_only: bool) -> list[Clip]:
    return [numbered_clip(root, folder, "%d.jpg", 0, _track(boxes, first_only))]
