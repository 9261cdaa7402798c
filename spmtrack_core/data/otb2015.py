"""OTB2015 (OTB100): 100 targets in 98 short videos."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import (
    Clip,
    Entry,
    Track,
    base_of,
    folders_in,
    image_names,
    listed_clip,
)
from spmtrack_core.data.sequence import read_boxes, wrong_root
from spmtrack_core.data.toolkits import attributes_beside

FRAMES = {
    "David": (300, 770),
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
}
"""First and last image of the videos whose boxes do not cover all images."""
TRUTH = re.compile(r"groundtruth_rect\.?(\d*)\.txt")


def find(root: Path, split: str) -> list[Entry]:
    """Every target of every video: ``Jogging_1`` and ``Jogging_2``, ``Human4_2``, ``Walking``.

    Raises ``ValueError`` for another split than ``test`` and a root without videos.
    """
    if split != "test":
        raise ValueError(f"split of otb2015 must be test, got {split!r}")
    base = base_of(root, "*/groundtruth_rect*.txt")
    targets: dict[str, Path] = {}
    for folder in folders_in(base):
        found = {
            f"{folder.name}_{target[1]}".removesuffix("_"): file
            for file in sorted(folder.glob("groundtruth_rect*.txt"))
            # some copies have empty files, too
            if (target := TRUTH.fullmatch(file.name)) and file.stat().st_size > 1
        }
        if not found and (folder / "img").is_dir():
            found = {folder.name: folder / "groundtruth_rect.txt"}  # to be named as missing
        if folder.name == "Human4":  # the benchmark follows the second target alone
            found = {name: found[name] for name in found if name == "Human4_2"} or found
        targets |= found
    if not any(file.is_file() for file in targets.values()):
        raise wrong_root(root, "OTB2015", "<video>/groundtruth_rect.txt and <video>/img/")
    return [
        Entry(
            name,
            (file, file.parent / "img"),
            partial(_read, root, base, file, name),
            partial(_track, root, base, file, name),
        )
        for name, file in targets.items()
    ]


def _track(root: Path, base: Path, file: Path, name: str) -> Track:
    named = attributes_beside("otb2015", name, base, root)
    return Track(name, read_boxes(file), attributes=named)


def _read(root: Path, base: Path, file: Path, name: str) -> list[Clip]:
    track, folder = _track(root, base, file, name), file.parent / "img"
    files = image_names(folder)
    if file.parent.name in FRAMES:
        first, last = FRAMES[file.parent.name]
        mine = [each for each in files if first <= int(re.sub(r"\D", "", each) or 0) <= last]
        if len(mine) < len(files):
            note = f"images {first} to {last} of {len(files)}, as the benchmark's list says"
            track = replace(track, notes=(*track.notes, note))
        files = mine
    return [listed_clip(root, folder, track, files, spare=True)]
