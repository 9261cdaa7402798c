"""A finished run on a tiny network. Runs draw no curves: that takes longer than their steps."""

from __future__ import annotations

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from tiny_model import TINY

from spmtrack_core.config import TrackerConfig
from spmtrack_core.training import runlog, trainer
from spmtrack_core.training.config import SyntheticConfig, TrainConfig
from spmtrack_core.training.trainer import train


@pytest.fixture(scope="session", autouse=True)
def no_curves():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "plot", lambda rows, path: None)
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for i in range(4):
        image = cv2.resize(random.integers(0, 256, (9, 12, 3), np.uint8), (60, 48))
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return str(folder)


@pytest.fixture(scope="session")
def settings(images) -> TrainConfig:
    return TrainConfig(
        model=TINY,
        tracker=TrackerConfig(search_area_factor=4.0),
        synthetic=SyntheticConfig(images=(images,), image_side=32, patch_side=16),
        ema_decay=0.999,
        device="cpu",
        steps=6,
        batch_size=4,
        warmup_steps=2,
        log_every=1,
        validation_every=3,
        validation_samples=8,
        checkpoint_every=2,
    )


@pytest.fixture(scope="session")
def finished(settings, tmp_path_factory) -> TrainConfig:
    """A run of six steps with its curves, to read from."""
    config = replace(settings, output=str(tmp_path_factory.mktemp("finished") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "plot", runlog.plot)
        train(config, command="spmtrack train tiny.yaml")
    return config


@pytest.fixture
def copied(finished, tmp_path) -> TrainConfig:
    """The same run, to write into."""
    shutil.copytree(finished.output, tmp_path / "copied")
    return replace(finished, output=str(tmp_path / "copied"))


@pytest.fixture
def config(settings, tmp_path) -> TrainConfig:
    """Settings of a new run."""
    return replace(settings, output=str(tmp_path / "run"))
