"""The two .onnx files of ``spmtrack export``, whichever runtime reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spmtrack_core.runtimes.description import Description, description_of, read_description

ONNX_FORMAT = "spmtrack-onnx-2"
SECOND_SUFFIX = ".references.onnx"
"""Of an .onnx file that ``second_file`` names."""


def files_of(path: Path) -> dict[str, Path]:
    """The files of the networks in ``INPUTS``: ``path``, and the one beside it for ``encode``.

    Raises ``FileNotFoundError`` where one of them is absent, and ``ValueError`` where ``path`` is
    the second.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    if path.name.endswith(SECOND_SUFFIX):
        first = path.name.removesuffix(SECOND_SUFFIX)
        raise ValueError(f"{path} encodes reference frames: give {first}.onnx, which needs it")
    files = pair(path)
    if not files["encode"].is_file():
        name = files["encode"].name
        raise FileNotFoundError(
            f"{path} has no {name} beside it, as .onnx files of spmtrack export have"
        )
    return files


def pair(path: Path) -> dict[str, Path]:
    """Where the networks in ``INPUTS`` are written: ``path``, and ``encode`` beside it."""
    return {"encode": second_file(path), "locate": path}


def second_file(path: Path) -> Path:
    """Name of the network that encodes reference frames, beside ``path``."""
    return path.with_suffix(f".references{path.suffix}")


def description_of_both(metadata: Mapping[str, Mapping[str, str]]) -> Description:
    """Settings and provenance from the metadata of both networks.

    Raises ``ValueError`` where they are damaged, or not from one export.
    """
    found = description_of(metadata["locate"], ONNX_FORMAT)
    about = {part: read_description(each, ONNX_FORMAT) for part, each in metadata.items()}
    for part, each in about.items():
        if each.get("part") != part:
            raise ValueError(f"the file of the network to {part} has another: export again")
    if len({each.get("weights") for each in about.values()}) > 1:
        raise ValueError("its two files are of different weights: export again")
    return found
