"""VOT by its official toolkit: what makes a workspace run this tracker."""

from __future__ import annotations

import configparser
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from spmtrack_core.files import write_beside

TIMEOUT = 120
"""Seconds in which the tracker must start: weights are read, kernels chosen."""


def add_tracker(workspace: Path, label: str, arguments: Sequence[str]) -> tuple[Path, str]:
    """Put this tracker into ``trackers.ini`` of a workspace of the VOT toolkit.

    ``arguments`` are those of ``spmtrack eval vot --serve``. Other trackers of the file stay.
    Returns the file and the identifier of the tracker. Raises ``FileNotFoundError`` for a folder
    that is no workspace and ``ValueError`` for a file that cannot be read.
    """
    if not (workspace / "config.yaml").is_file():
        raise FileNotFoundError(
            f"no {workspace / 'config.yaml'}: expected a workspace of the VOT toolkit, made by "
            "vot initialize STACK --workspace FOLDER in the toolkit's environment"
        )
    path = workspace / "trackers.ini"
    registry = configparser.ConfigParser(interpolation=None)
    registry.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        registry.read(path, encoding="utf-8")
    except configparser.Error as error:
        raise ValueError(f"{path} is not a tracker registry: {error}") from None
    identifier = re.sub(r"[^0-9A-Za-z_]+", "_", f"spmtrack_{label}")
    command = [sys.executable, "-m", "spmtrack_core.cli", "eval", "vot", "--serve", *arguments]
    registry[identifier] = {
        "label": f"SPMTrack {label}",
        "protocol": "trax",
        "command": shlex.join(command),
        "timeout": str(TIMEOUT),
    }

    def write(beside: Path) -> None:
        with beside.open("w", encoding="utf-8") as file:
            registry.write(file)

    write_beside(path, write)
    return path, identifier
