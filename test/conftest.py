"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import warnings
from pathlib import Path

# Workers of pytest-xdist share the processor: one thread each, and in the processes they start.
# PyTorch reads this when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

# indices of datasets, made by the tests and by the processes they start, are not the user's
# one folder for all workers: a network is converted for OpenVINO once
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="spmtrack-test-")

sys.path.insert(0, str(Path(__file__).parent))  # golden_model, under importlib import mode

pytest_plugins = ["parity"]
hypothesis.settings.register_profile("busy machines", deadline=None)
hypothesis.settings.load_profile("busy machines")

from spmtrack_core.cli import main
from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.model.spmtrack import build_spmtrack
from spmtrack_core.model.weights import Checkpoint, save_checkpoint


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is marked ``gpu`` says what is missing where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A complete checkpoint of a very small network with random weights."""
    torch.manual_seed(0)
    config = ModelConfig(
        trunk="explicit",
        embed_dim=32,
        depth=2,
        num_heads=2,
        mlp_hidden=64,
        patch_size=16,
        stem="conv",
        template_hw=(48, 48),
        search_hw=(96, 96),
        rank=2,
        alpha=2.0,
        experts=2,
    )
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tracker_config = TrackerConfig(lost_threshold=0.0)
    save_checkpoint(path, Checkpoint(build_spmtrack(config), config, tracker_config))
    return path


@pytest.fixture
def spmtrack(monkeypatch, capsys):
    """Runs the command; exit code, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["spmtrack", *map(str, arguments)])
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = {number: signal.getsignal(number) for number in numbers}
        try:
            with pytest.raises(SystemExit) as stop:
                main()
                raise SystemExit(0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return call
