"""OTB2015 (OTB100): 100 targets in 98 short videos."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import Clip, Entry, Track, base_of, folders_in, listed_clip
from spmtrack_core.data.images import image_paths
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
TRUTH = "groundtruth_rect*.txt"


def find(root: Path, split: str) -> list[Entry]:
    """Every target of every video: ``Jogging_1`` and ``Jogging_2``, ``Human4_2``, ``Walking``.

    Raises ``ValueError`` for another split than ``test`` and a root without videos.
    """
    if split != "test":
        raise ValueError(f"split of otb2015 must be test, got {split!r}")
    base = base_of(root, f"*/{TRUTH}")
    entries = []
    for folder in folders_in(base):
        # some copies have empty files, too
        files = [file for file in sorted(folder.glob(TRUTH)) if file.stat().st_size > 1]
        if folder.name == "Human4":  # the benchmark follows the second target alone
            files = [file for file in files if "2" in file.name] or files
        for file in files:
            target = re.fullmatch(r"groundtruth_rect\.?(\d*)\.txt", file.name)
            number = target[1] if target else ""
            name = f"{folder.name}_{number}" if number else folder.name
            read, track = partial(_read, root, base, file, name), partial(_track, base, file, name)
            entries.append(Entry(name, (file, folder / "img"), read, track))
    if not entries:
        raise wrong_root(root, "OTB2015", "<video>/groundtruth_rect.txt and <video>/img/")
    return entries


def _track(base: Path, file: Path, name: str) -> Track:
    return Track(name, read_boxes(file), attributes=attributes_beside("otb2015", base, name))


def _read(root: Path, base: Path, file: Path, name: str) -> list[Clip]:
    track, folder = _track(base, file, name), file.parent / "img"
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of images at {folder}")
    files = [path.name for path in image_paths(folder)]
    if file.parent.name in FRAMES:
        first, last = FRAMES[file.parent.name]
        mine = [each for each in files if first <= int(re.sub(r"\D", "", each) or 0) <= last]
        if len(mine) < len(files):
            note = f"images {first} to {last} of {len(files)}, as the benchmark's list says"
            track = replace(track, notes=(*track.notes, note))
        files = mine
    return [listed_clip(root, folder, track, files, spare=True)]
