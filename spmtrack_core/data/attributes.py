"""Challenges of benchmarks: names by column, flags from the files of the toolkits."""

from __future__ import annotations

from pathlib import Path

from spmtrack_core.data.clips import read_flags
from spmtrack_core.data.uav123 import NAMES as UAV_NAMES

LASOT = ("IV", "POC", "DEF", "MB", "CM", "ROT", "BC", "VC", "SV", "FOC", "FM", "OV", "LR", "ARC")
NAMES = {
    "lasot": LASOT,
    "lasot_ext": LASOT,
    "tnl2k": (
        *("CM", "ROT", "DEF", "FOC", "IV", "OV", "POC", "VC", "SV", "BC", "MB", "ARC", "LR"),
        *("FM", "AS", "TC", "MS"),
    ),
    "uav123": UAV_NAMES,
    "uav20l": UAV_NAMES,
    "otb2015": ("IV", "SV", "OCC", "DEF", "MB", "FM", "IPR", "OPR", "OV", "BC", "LR"),
}
"""Columns of the files ``<sequence>.txt``, one flag each."""


def read_attributes(dataset: str, folder: Path, sequence: str) -> tuple[str, ...]:
    """The attributes of a sequence, by the flags in ``folder/<sequence>.txt``.

    Raises ``FileNotFoundError`` without the folder or the file, ``ValueError`` for a dataset whose
    columns are not known and for another number of flags.
    """
    if dataset not in NAMES:
        raise ValueError(f"attributes are known for {', '.join(NAMES)}; got {dataset!r}")
    path = folder / f"{sequence}.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"no attributes at {path}: expected one file a sequence with {len(NAMES[dataset])} "
            "flags, as in the dataset's toolkit"
        )
    names = NAMES[dataset]
    flags = read_flags(path, len(names))
    return tuple(name for name, flag in zip(names, flags, strict=True) if flag)
