"""What a training run wrote."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.training.config import TrainConfig


def weights(config: TrainConfig) -> Path:
    return Path(config.output, "weights.safetensors")


def rows(config: TrainConfig) -> list[dict[str, str]]:
    with open(Path(config.output, "log.csv"), newline="") as file:
        return list(csv.DictReader(file))


def assert_same(run: TrainConfig, other: TrainConfig) -> None:
    same = ("step", "lr", "loss", "score_loss", "box_loss", "gradient_norm")
    logs = [[[row[c] for c in same] for row in rows(config)] for config in (run, other)]
    assert logs[0] == logs[1]
    a, b = (load_checkpoint(weights(config)).model for config in (run, other))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
