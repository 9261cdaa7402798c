"""What the toolkits of benchmarks bring: flags of absence, attributes, boxes without images."""

from __future__ import annotations

import re
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spmtrack_core.data.clips import Clip, Entry, Track, read_flags
from spmtrack_core.data.sequence import read_boxes

LASOT = ("IV", "POC", "DEF", "MB", "CM", "ROT", "BC", "VC", "SV", "FOC", "FM", "OV", "LR", "ARC")
UAV = ("SV", "ARC", "LR", "FM", "FOC", "POC", "OV", "BC", "IV", "VC", "CM", "SOB")
NAMES = {
    "lasot": LASOT,
    "lasot_ext": LASOT,
    "tnl2k": (
        *("CM", "ROT", "DEF", "FOC", "IV", "OV", "POC", "VC", "SV", "BC", "MB", "ARC", "LR"),
        *("FM", "AS", "TC", "MS"),
    ),
    "uav123": UAV,
    "uav20l": UAV,
    "otb2015": ("IV", "SV", "OCC", "DEF", "MB", "FM", "IPR", "OPR", "OV", "BC", "LR"),
}
"""Columns of the files of attributes, one flag each."""
PLACES = ("", "annos", "annos/annos", "anno", "*oolkit*/annos", "*oolkit*/annos/annos")
"""Where the folders ``att``, ``absent`` and ``gt_rect`` of a toolkit lie: below itself, or below a
dataset that it was unpacked into."""


@lru_cache(64)
def toolkit_folder(kind: str, *bases: Path) -> Path | None:
    """The folder ``att``, ``absent`` or ``gt_rect`` of a toolkit, in the first of ``bases`` that
    has one; None without.
    """
    for base in bases:
        if base.name == kind:
            return base
        patterns = (f"{place}/{kind}".removeprefix("/") for place in PLACES)
        found = (path for pattern in patterns for path in sorted(base.glob(pattern)))
        if folder := next((path for path in found if path.is_dir()), None):
            return folder
    return None


def attributes_beside(dataset: str, sequence: str, *bases: Path) -> tuple[str, ...]:
    """The attributes of a sequence by the toolkit in one of ``bases``; none without its file.

    Raises ``ValueError`` for another number of flags.
    """
    folder = toolkit_folder("att", *bases)
    path = _file(folder, sequence) if folder else None
    return _flagged(dataset, path) if path else ()


def read_attributes(dataset: str, folder: Path, sequence: str) -> tuple[str, ...]:
    """As ``attributes_beside``, also by files in ``folder`` itself.

    Raises ``FileNotFoundError`` without a file of the sequence, also ``ValueError`` for a dataset
    whose columns are not known.
    """
    if dataset not in NAMES:
        raise ValueError(f"attributes are known for {', '.join(NAMES)}; got {dataset!r}")
    path = _file(toolkit_folder("att", folder) or folder, sequence)
    if path is None:
        raise FileNotFoundError(
            f"no attributes at {folder / f'{sequence}.txt'}: expected one file a sequence with "
            f"{len(NAMES[dataset])} flags, as in the dataset's toolkit"
        )
    return _flagged(dataset, path)


def annotation_entry(dataset: str, base: Path, boxes: Path, origin: float = 0.0) -> Entry:
    """A sequence of which the toolkit in ``base`` has boxes and flags, and nobody images."""

    def read() -> list[Clip]:
        raise FileNotFoundError(f"no images: {base} is a toolkit, fit for --rescore alone")

    return Entry(boxes.stem, (boxes,), read, partial(_track, dataset, base, boxes, origin))


def _track(dataset: str, base: Path, path: Path, origin: float) -> Track:
    boxes, name = read_boxes(path), path.stem
    boxes[:, :2] -= origin
    folder = toolkit_folder("absent", base)
    if folder is None or not (folder / path.name).is_file():
        raise FileNotFoundError(f"no flags of absence at {folder or base / 'absent'}/{path.name}")
    absent, notes = fitting_flags(folder / path.name, len(boxes))
    named = attributes_beside(dataset, name, base)
    return Track(name, boxes, absent=absent, origin=origin, attributes=named, notes=notes)


def fitting_flags(path: Path, length: int) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """(length,) flags of a file that may have more, with a note; ``ValueError`` if it has less.

    TNL2K's advSamp_monitor_bikeyellow has 930 flags for 929 boxes.
    """
    flags = read_flags(path)
    if len(flags) < length:
        raise ValueError(f"{path} holds {len(flags)} numbers for {length} boxes")
    longer = f"{len(flags)} flags for {length} boxes: the boxes decide"
    return flags[:length] != 0, (longer,) if len(flags) > length else ()


def _file(folder: Path, sequence: str) -> Path | None:
    """The file of a sequence: named as it or its video is, or with ``_attribute`` behind (TNL2K);
    case and punctuation do not matter.
    """
    files = _files(folder)
    video = re.sub(r"[_.-]\d$", "", sequence)
    return files.get(_plain(sequence)) or files.get(_plain(video))


@lru_cache(64)
def _files(folder: Path) -> dict[str, Path]:
    paths = sorted(folder.glob("*.txt"))
    return {_plain(path.stem.removesuffix("_attribute")): path for path in paths}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.casefold())


def _flagged(dataset: str, path: Path) -> tuple[str, ...]:
    names = NAMES[dataset]
    flags = read_flags(path, len(names))
    return tuple(name for name, flag in zip(names, flags, strict=True) if flag)
