"""The runs of recipes/nano.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.run import read_settings

RECIPES = Path(__file__).parents[1] / "recipes"


def runs_of_nano() -> list[list[str]]:
    """The words of each ``spmtrack train`` of the script, which is run without training."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "recipes/nano.sh")
        script.parent.mkdir()
        shutil.copy(RECIPES / "nano.sh", script)
        said = Path(folder, "said.txt")
        program = Path(folder, "spmtrack")
        program.write_text('#!/bin/sh\necho "$@" >>"$SAID"\n')
        program.chmod(0o755)
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "SAID": str(said)}
        subprocess.run(["bash", script], env=environment, check=True, capture_output=True)
        return [line.split() for line in said.read_text().splitlines()]


def settings_of(command: list[str]) -> TrainConfig:
    """The settings of a run, with the bundled weights in place of those of the run before."""
    assert command[:2] == ["train", "recipes/nano.yaml"]
    words = [word for word in command[2:] if not word.startswith("start_from=")]
    start = ["start_from=nano"] if len(words) < len(command[2:]) else []
    return read_settings(RECIPES / "nano.yaml", [*words, *start], resume=False)
