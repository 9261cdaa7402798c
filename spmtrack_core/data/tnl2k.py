"""TNL2K: 700 videos to test on, with a sentence each; only their boxes are used."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from spmtrack_core.data.clips import (
    Clip,
    Entry,
    Track,
    base_of,
    first_of,
    folders_in,
    image_names,
    imgs_of,
    listed_clip,
)
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
    """The sequences of the test set, folders with ``imgs`` and ``groundtruth.txt``.

    The toolkit may lie beside them, for flags of absence and attributes; alone it will do to score
    results. Raises ``ValueError`` for another split and a root without sequences.
    """
    if split != "test":
        raise ValueError(f"split of tnl2k must be test, got {split!r}")
    base = base_of(root, f"*/{GROUNDTRUTH}")
    folders = [path for path in folders_in(base) if not (path / LASOT_FLAGS[0]).is_file()]
    known = any((path / GROUNDTRUTH).is_file() for path in folders)
    boxes = toolkit_folder("gt_rect", root)
    if not known and boxes:
        paths = sorted(boxes.glob("[!.]*.txt"))
        return [annotation_entry("tnl2k", boxes.parent, path) for path in paths]
    if not known:
        expected = (
            f"<sequence>/{GROUNDTRUTH} and <sequence>/imgs/, or annos/gt_rect/ of the toolkit"
        )
        raise wrong_root(root, "TNL2K", expected)
    return [
        Entry(
            folder.name,
            (folder / GROUNDTRUTH, imgs_of(folder), _flags(root, folder)),
            partial(_read, root, folder),
            partial(_track, root, folder),
        )
        for folder in folders
        if imgs_of(folder).is_dir() or (folder / GROUNDTRUTH).is_file()
    ]


def _flags(root: Path, folder: Path) -> Path:
    """The file of flags, in the sequence or, if there is none, in the toolkit."""
    own, toolkit = folder / "absent.txt", toolkit_folder("absent", folder.parent, root)
    return first_of(own, toolkit / f"{folder.name}.txt") if toolkit else own


def _track(root: Path, folder: Path) -> Track:
    boxes, flags = read_boxes(folder / GROUNDTRUTH), _flags(root, folder)
    named = attributes_beside("tnl2k", folder.name, folder.parent, root)
    if not flags.is_file():
        return Track(folder.name, boxes, attributes=named, notes=(NO_FLAGS,))
    absent, notes = fitting_flags(flags, len(boxes))
    return Track(folder.name, boxes, absent=absent, attributes=named, notes=notes)


def _read(root: Path, folder: Path) -> list[Clip]:
    images = imgs_of(folder)
    # OSTrack and SPMTrack sort the names as text: 10.png comes before 2.png
    files = sorted(image_names(images))
    return [listed_clip(root, images, _track(root, folder), files, spare=True)]
