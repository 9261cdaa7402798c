"""TNL2K: 700 videos to test on, with a sentence each; only their boxes are used."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import (
    Clip,
    Entry,
    Track,
    base_of,
    folders_in,
    listed_clip,
    read_flags,
)
from spmtrack_core.data.images import image_paths
from spmtrack_core.data.sequence import GROUNDTRUTH, read_boxes, wrong_root

FLAGS = ("{folder}/absent.txt", "{base}/absent/{name}.txt", "{base}/annos/absent/{name}.txt")
"""Where the toolkit's flags of absence may lie; only the ``official`` convention uses them."""


def find(root: Path, split: str) -> list[Entry]:
    """The sequences of the test set, folders with ``groundtruth.txt`` and ``imgs``.

    Raises ``ValueError`` for another split and a root without sequences.
    """
    if split != "test":
        raise ValueError(f"split of tnl2k must be test, got {split!r}")
    base = base_of(root, f"*/{GROUNDTRUTH}")
    folders = [path for path in folders_in(base) if (path / GROUNDTRUTH).is_file()]
    if not folders:
        raise wrong_root(root, "TNL2K", f"<sequence>/{GROUNDTRUTH} and <sequence>/imgs/")
    return [
        Entry(
            folder.name,
            (folder / GROUNDTRUTH, folder / "imgs"),
            partial(_read, root, folder),
            partial(_track, folder),
        )
        for folder in folders
    ]


def _track(folder: Path) -> Track:
    boxes = read_boxes(folder / GROUNDTRUTH)
    places = (each.format(folder=folder, base=folder.parent, name=folder.name) for each in FLAGS)
    path = next((Path(place) for place in places if Path(place).is_file()), None)
    if path is None:
        return Track(folder.name, boxes)
    flags = read_flags(path)
    notes: tuple[str, ...] = ()
    if len(flags) > len(boxes):  # advSamp_monitor_bikeyellow: 930 flags, 929 boxes
        notes = (f"{len(flags)} flags for {len(boxes)} boxes: the boxes decide",)
    elif len(flags) < len(boxes):
        raise ValueError(f"{path} holds {len(flags)} numbers for {len(boxes)} boxes")
    return Track(folder.name, boxes, absent=flags[: len(boxes)] != 0, notes=notes)


def _read(root: Path, folder: Path) -> list[Clip]:
    images = folder / "imgs" if (folder / "imgs").is_dir() else folder / "img"
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images at {folder / 'imgs'}")
    # OSTrack and SPMTrack sort the names as text: 10.png comes before 2.png
    files = sorted(path.name for path in image_paths(images))
    return [listed_clip(root, images, _track(folder), files, spare=True)]
