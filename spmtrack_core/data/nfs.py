"""NfS (Need for Speed): 100 videos, here at 30 frames per second, with two annotations in use."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from spmtrack_core.data.clips import (
    Clip,
    Entry,
    Track,
    base_of,
    cut_track,
    folders_in,
    listed_clip,
)
from spmtrack_core.data.images import image_paths
from spmtrack_core.data.sequence import read_boxes, wrong_root
from spmtrack_core.files import read_text

STEP = 8
"""The dataset's own annotation is for 240 frames per second: every 8th row is kept."""
CUTS = {"pingpong_2": 263}
"""Frames, of 240 per second, at which SPMTrack's code stops."""


def find(root: Path, split: str) -> list[Entry]:
    """The sequences at 30 frames per second, by one of two annotations.

    ``test``: the dataset's own ``<name>/30/<name>.txt``, which SPMTrack uses, else that of
    pytracking, ``anno/nfs_<name>.txt``; ``pytracking``: the latter alone. Raises ``ValueError``
    for another split and a root without sequences.
    """
    if split not in ("test", "pytracking"):
        raise ValueError(f"split of nfs must be test or pytracking; got {split!r}")
    base = base_of(root, "*/30/*.txt", "anno/nfs_*.txt")
    own = [
        (folder.name, folder / "30" / f"{folder.name}.txt")
        for folder in folders_in(base)
        if split == "test" and (folder / "30" / f"{folder.name}.txt").is_file()
    ]
    others = [
        (path.stem.removeprefix("nfs_"), path) for path in sorted(base.glob("anno/nfs_*.txt"))
    ]
    found = own or others
    if not found:
        expected = "<name>/30/<name>.txt with <name>/30/<name>/, or anno/nfs_<name>.txt"
        raise wrong_root(root, "NfS", expected)
    return [
        Entry(name, (path,), partial(_read, root, base, name, path), partial(_track, name, path))
        for name, path in found
    ]


def _track(name: str, path: Path) -> Track:
    if path.name.startswith("nfs_"):
        return Track(name, read_boxes(path))
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            # id, x1, y1, x2, y2, frame from 1, flags and a label in quotation marks (VATIC)
            rows.append([float(word) for word in line.split()[1:6]])
            if len(rows[-1]) < 5:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: expected id x1 y1 x2 y2 frame ...; got {line[:60]!r}"
            ) from None
    table = np.array(rows, float).reshape(-1, 5)
    frames = table[:, 4].astype(int) - 1
    last = CUTS.get(name)
    kept = (frames % STEP == 0) & (frames < (last or np.inf))
    if not kept.any():
        raise ValueError(f"{path} holds no box of a frame at 30 frames per second")
    indices, corners = frames[kept] // STEP, table[kept, :4]
    boxes = np.full((indices.max() + 1, 4), np.nan)
    boxes[indices] = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    note = f"cut at frame {last} of 240 frames per second, as SPMTrack's code does"
    notes = (note,) if last and (frames >= last).any() else ()
    return Track(name, boxes, notes=notes)


def _read(root: Path, base: Path, name: str, path: Path) -> list[Clip]:
    track = _track(name, path)
    places = (base / name / "30" / name, base / "sequences" / name, base / name)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"no folder of images at {places[0]}")
    files = [file.name for file in image_paths(folder)]
    if len(files) == len(track.boxes_xywh) - 1:
        note = f"{len(files)} images for {len(track.boxes_xywh)} boxes: the last box is dropped"
        track = cut_track(track, len(files), note)
    return [listed_clip(root, folder, track, files, spare=True)]
