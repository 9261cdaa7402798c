"""The second run of recipes/nano.sh."""

from __future__ import annotations

from pathlib import Path

from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.run import read_settings

RECIPE = Path(__file__).parents[1] / "recipes/nano.yaml"


def second_settings() -> list[str]:
    script = RECIPE.with_suffix(".sh").read_text()
    _, _, settings = script.replace("\\\n", " ").partition("run runs/nano_second ")
    return settings.partition('"$@"')[0].split()


def second_run() -> TrainConfig:
    """Its settings, with the bundled weights in place of those of the first run."""
    words = second_settings()
    assert "start_from=runs/nano/weights.safetensors" in words
    settings = [word for word in words if not word.startswith("start_from=")]
    return read_settings(RECIPE, [*settings, "start_from=nano"], resume=False)
