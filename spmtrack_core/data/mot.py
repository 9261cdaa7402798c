"""MOT16, 17, 20 and what shares their layout (DanceTrack, SportsMOT): many people per video."""

from __future__ import annotations

import configparser
from functools import partial
from pathlib import Path

import numpy as np

from spmtrack_core.data.clips import Clip, Entry, Track, folders_in
from spmtrack_core.data.images import image_paths
from spmtrack_core.files import read_text

PEDESTRIAN = 1


def find(root: Path, split: str) -> list[Entry]:
    """The sequences with truth in ``root/split`` where that is there, else in ``root``.

    Raises ``ValueError`` for a root that holds none.
    """
    base = root / split if (root / split).is_dir() else root
    folders = [path for path in folders_in(base) if (path / "gt" / "gt.txt").is_file()]
    if not folders:
        raise ValueError(f"{base} is no MOT: expected <sequence>/gt/gt.txt, seqinfo.ini, img1/")
    return [
        Entry(
            folder.name,
            (folder / "gt" / "gt.txt", folder / "seqinfo.ini", folder / "img1"),
            partial(_read, root, folder),
        )
        for folder in folders
    ]


def _read(root: Path, folder: Path) -> list[Clip]:
    """One track for every id; absent where it has no row, or nothing of it is visible."""
    info = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        info.read_string(read_text(folder / "seqinfo.ini"))
        length = info.getint("Sequence", "seqLength")
        images = folder / info.get("Sequence", "imDir", fallback="img1")
    except (configparser.Error, ValueError) as error:
        raise ValueError(f"{folder / 'seqinfo.ini'}: {error}") from None
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images at {images}")
    files = tuple(path.name for path in image_paths(images))
    if not files or len(files) != length or Path(files[-1]).stem.lstrip("0") != str(length):
        raise ValueError(
            f"{images} has {len(files)} images, expected the numbers 1 to {length} of seqinfo.ini"
        )

    truth = folder / "gt" / "gt.txt"
    try:
        # frame, id, x, y, w, h, considered, class, and in most also visibility in 0..1
        lines = [line for line in read_text(truth).splitlines() if line.strip()]
        rows = np.empty((0, 9))
        if lines:
            rows = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{truth}: {error}") from None
    if not np.isfinite(rows).all():
        raise ValueError(f"{truth} has a number that is not finite")
    if rows.shape[1] < 8:
        raise ValueError(f"{truth} must have at least 8 columns; got {rows.shape[1]}")
    rows = rows[(rows[:, 6] == 1) & (rows[:, 7] == PEDESTRIAN)]
    if rows.shape[1] > 8:
        rows = rows[rows[:, 8] != 0]
    if not len(rows):
        raise ValueError(f"{truth} has no visible pedestrian (flag 1, class {PEDESTRIAN})")
    frames, ids = rows[:, 0].astype(int) - 1, rows[:, 1].astype(int)
    if frames.min() < 0 or frames.max() >= length:
        raise ValueError(f"{truth} has a frame beyond 1 to {length}")

    tracks = []
    for number in np.unique(ids):
        mine = ids == number
        start, stop = int(frames[mine].min()), int(frames[mine].max()) + 1
        if stop - start < 2:
            continue
        boxes = np.full((stop - start, 4), np.nan)
        boxes[frames[mine] - start] = rows[mine, 2:6] - (1, 1, 0, 0)  # the first pixel is 1 there
        tracks.append(Track(f"{folder.name}/{number}", boxes, start))
    path = images.relative_to(root).as_posix()
    return [Clip(folder.name, path, length, tracks, files=files)]
