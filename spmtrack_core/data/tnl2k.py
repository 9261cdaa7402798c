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
)
from spmtrack_core.data.images import image_paths
from spmtrack_core.data.lasot import FLAGS as LASOT_FLAGS
from spmtrack_core.data.sequence import GROUNDTRUTH, read_boxes, wrong_root
from spmtrack_core.data.toolkits import (
    annotation_entry,
    attributes_beside,
    fitting_flags,
    toolkit_folder,
)

NO_FLAGS = "no flags of absence, annos/absent/ of the toolkit: official is not the toolkit's score"


def find(root: Path, split: str) -> list[Entry]:
    """The sequences of the test set, folders with ``groundtruth.txt`` and ``imgs``.

    The toolkit may lie beside them, for flags of absence and attributes; alone it will do to score
    results. Raises ``ValueError`` for another split and a root without sequences.
    """
    if split != "test":
        raise ValueError(f"split of tnl2k must be test, got {split!r}")
    base = base_of(root, f"*/{GROUNDTRUTH}")
    folders = [
        path
        for path in folders_in(base)
        if (path / GROUNDTRUTH).is_file() and not (path / LASOT_FLAGS[0]).is_file()
    ]
    boxes = toolkit_folder(root, "gt_rect")
    if not folders and boxes:
        paths = sorted(boxes.glob("*.txt"))
        return [annotation_entry("tnl2k", boxes.parent, path) for path in paths]
    if not folders:
        expected = (
            f"<sequence>/{GROUNDTRUTH} and <sequence>/imgs/, or annos/gt_rect/ of the toolkit"
        )
        raise wrong_root(root, "TNL2K", expected)
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
    boxes, base = read_boxes(folder / GROUNDTRUTH), folder.parent
    named = attributes_beside("tnl2k", base, folder.name)
    flags = toolkit_folder(base, "absent")
    places = [folder / "absent.txt", *([flags / f"{folder.name}.txt"] if flags else [])]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return Track(folder.name, boxes, attributes=named, notes=(NO_FLAGS,))
    absent, notes = fitting_flags(path, len(boxes))
    return Track(folder.name, boxes, absent=absent, attributes=named, notes=notes)


def _read(root: Path, folder: Path) -> list[Clip]:
    images = folder / "imgs" if (folder / "imgs").is_dir() else folder / "img"
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images at {folder / 'imgs'}")
    # OSTrack and SPMTrack sort the names as text: 10.png comes before 2.png
    files = sorted(path.name for path in image_paths(images))
    return [listed_clip(root, images, _track(folder), files, spare=True)]
