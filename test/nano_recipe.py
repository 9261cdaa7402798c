"""The second command of recipes/nano.yaml: it stands in the head, on lines that are indented."""

from __future__ import annotations

from pathlib import Path

from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.run import read_settings

RECIPE = Path(__file__).parents[1] / "recipes/nano.yaml"


def second_command() -> str:
    lines = RECIPE.read_text().splitlines()
    return " ".join(" ".join(line[1:] for line in lines if line.startswith("#   ")).split())


def second_run() -> TrainConfig:
    """Its settings, with the bundled weights in place of those of the first run."""
    words = second_command().split()
    assert words[:3] == ["spmtrack", "train", "recipes/nano.yaml"]
    assert "start_from=runs/nano/weights.safetensors" in words
    settings = [word for word in words[3:] if not word.startswith("start_from=")]
    return read_settings(RECIPE, [*settings, "start_from=nano"], resume=False)
