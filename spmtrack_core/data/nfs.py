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
    first_of,
    folders_in,
    has_gaps,
    image_names,
    listed_clip,
)
from spmtrack_core.data.sequence import read_boxes, wrong_root
from spmtrack_core.files import read_text

STEP = 8
"""The dataset's own annotation is for 240 frames per second: every 8th row is kept."""
MOST = 1_000_000
"""Frames of 240 per second that no video of NfS has: such a number in a file is damage."""
CUTS = {"pingpong_2": 263}
"""Frames, of 240 per second, from which on SPMTrack's code has no boxes."""


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
        if split == "test" and (folder / "30").is_dir()
    ]
    others = [
        (path.stem.removeprefix("nfs_"), path) for path in sorted(base.glob("anno/nfs_*.txt"))
    ]
    found = own if any(path.is_file() for _, path in own) else others
    if not found:
        expected = "<name>/30/<name>.txt with <name>/30/<name>/, or anno/nfs_<name>.txt"
        raise wrong_root(root, "NfS", expected)
    return [
        Entry(
            name,
            (path, _images(base, name)),
            partial(_read, root, base, name, path),
            partial(_track, name, path),
        )
        for name, path in found
    ]


def _track(name: str, path: Path) -> Track:
    if path.name.startswith("nfs_"):
        return Track(name, read_boxes(path))
    if not path.is_file():
        raise FileNotFoundError(f"no boxes at {path}")
    rows, hidden = [], []
    for number, line in enumerate(read_text(path).rstrip().splitlines(), 1):
        try:
            # VATIC: id, x1, y1, x2, y2, frame, lost, occluded, generated, a label in quotes
            words = line.split()
            rows.append([float(word) for word in words[1:6]])
            hidden.append("1" in words[6:8])
            frame = rows[-1][4] if len(rows[-1]) == 5 else np.nan
            if not (0 <= frame <= MOST and frame.is_integer()):
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: expected id x1 y1 x2 y2 frame ... with a frame from 0 to "
                f"{MOST}; got {line[:60]!r}"
            ) from None
    table = np.array(rows, float).reshape(-1, 5)
    frames = table[:, 4].astype(int) - 1  # some files begin at 0, which SPMTrack's code drops
    last = CUTS.get(name)
    kept = (frames % STEP == 0) & (frames < (last or np.inf))
    if not kept.any():
        raise ValueError(f"{path} holds no box of a frame at 30 frames per second")
    indices, corners = frames[kept] // STEP, table[kept, :4]
    boxes = np.full((indices.max() + 1, 4), np.nan)
    boxes[indices] = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    boxes[indices[np.array(hidden)[kept]]] = np.nan  # SPMTrack's code has no truth there
    note = (
        f"cut at frame {last} of 240 frames per second, where SPMTrack's code has no more boxes: "
        "it tracks on, and counts all later frames as failures"
    )
    notes = (note,) if last and (frames >= last).any() else ()
    return Track(name, boxes, notes=notes)


def _images(base: Path, name: str) -> Path:
    return first_of(base / name / "30" / name, base / "sequences" / name, base / name)


def _read(root: Path, base: Path, name: str, path: Path) -> list[Clip]:
    track, folder = _track(name, path), _images(base, name)
    files = image_names(folder)
    if 0 < len(files) == len(track.boxes_xywh) - 1 and not has_gaps(files):
        note = f"{len(files)} images for {len(track.boxes_xywh)} boxes: the last box is dropped"
        track = cut_track(track, len(files), note)
    return [listed_clip(root, folder, track, files, spare=True)]
