"""Runs that end early, are resumed, or find a folder in use."""

from __future__ import annotations

import errno
import fcntl
import itertools
import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_tracks
from spmtrack_core.data.recording import write_boxes, write_image
from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.training import trainer
from spmtrack_core.training.run import lock_folder, save_tensors
from spmtrack_core.training.trainer import train
from test.spmtrack_core.training.finished_runs import assert_same, rows, weights


@pytest.mark.parametrize("change", [{}, {"optimizer": "muon", "expert_init": "normal"}])
def test_resuming_gives_the_same_losses(config, finished, tmp_path, change):
    config, whole = replace(config, **change), finished
    if change:
        train(config)
        whole = config
    half = replace(config, output=str(tmp_path / "half"))
    stopped_at = 3  # beyond the last checkpoint: step 3 must be repeated, its line replaced
    original, calls = trainer.Meter.add, []

    def interrupt(meter, values, samples):
        calls.append(values)
        original(meter, values, samples)
        if len(calls) == stopped_at:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Meter, "add", interrupt)
        with pytest.raises(RuntimeError, match="power cut"):
            train(half)
    train(half, resume=True)
    assert_same(half, whole)
    validated = [[row["validation_iou"] for row in rows(run)] for run in (half, whole)]
    assert validated[0] == validated[1]


def test_resuming_with_other_settings_is_rejected(finished):
    with pytest.raises(ValueError, match=r"made with batch_size: 4, not 8"):
        train(replace(finished, batch_size=8), resume=True)
    other = replace(finished, model=replace(finished.model, rank=4))
    with pytest.raises(ValueError, match=r"made with model\.rank: 2, not 4; resume"):
        train(other, resume=True)


def test_resuming_without_a_checkpoint_is_an_error(config):
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        train(config, resume=True)


@pytest.mark.parametrize("anneal", ["steps", "time"])
def test_the_time_limit_ends_a_run_with_weights(config, anneal, monkeypatch):
    seconds = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(seconds))  # a second passes at every look
    monkeypatch.setattr(trainer, "time", clock)
    limited = replace(config, steps=1_000_000, time_limit_min=0.4, anneal=anneal)
    limited = replace(limited, validation_every=1000, checkpoint_every=1000)
    path = train(limited)
    last = rows(limited)[-1]
    assert 2 < int(last["step"]) < 24 and last["validation_iou"]
    for file in (path, path.with_name("best.safetensors")):  # this is the end of the run itself
        assert load_checkpoint(file).provenance["steps"] == last["step"]
    if anneal == "time":
        assert float(last["lr"]) < 0.1 * config.lr
    train(replace(limited, time_limit_min=0.5), resume=True)  # more time: it continues
    assert int(rows(limited)[-1]["step"]) > int(last["step"])


def test_each_job_of_a_chain_continues_the_run(config, finished):
    """The limit of a call counts from the call; an interruption does not count as stale."""
    for part in range(1, 4):
        train(replace(config, patience=1), resume=part > 1, time_limit_min=1e-9)
        assert int(rows(config)[-1]["step"]) == part
    train(replace(config, patience=9), resume=True)
    assert [row["loss"] for row in rows(config)] == [row["loss"] for row in rows(finished)]


def test_interruptions_do_not_choose_the_best_weights(config, monkeypatch):
    """Nor when ``patience`` ends the run; its last validation counts, scheduled or not."""
    scores = iter([0.9, 0.5, 0.4, 0.6])  # after step 1 (interrupted), 2, 4 and 5 (the end)
    monkeypatch.setattr(trainer, "validate", lambda *_: {"validation_iou": next(scores)})
    config = replace(config, steps=5, validation_every=2, patience=2)
    best, checkpoint = (Path(config.output, n) for n in ("best.safetensors", "checkpoint.pt"))
    train(config, time_limit_min=1e-9)
    assert rows(config)[-1]["validation_iou"] == "0.9" and not best.exists()
    train(config, resume=True, time_limit_min=1e-9)
    assert load_checkpoint(best).provenance["steps"] == "2"
    train(config, resume=True)
    assert load_checkpoint(best).provenance["steps"] == "5"
    state = torch.load(checkpoint)
    assert (state["step"], state["best"], state["stale"]) == (5, 0.6, 0)


def test_resuming_a_run_that_has_ended_restores_its_weights(copied, finished, capsys):
    weights(copied).unlink()
    train(copied, resume=True, console=Console(width=200))
    assert "has ended already: nothing was trained" in capsys.readouterr().out
    ours, theirs = (load_checkpoint(weights(run)).model for run in (copied, finished))
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_one_run_at_a_time_in_a_folder(config):
    with lock_folder(Path(config.output)):
        with pytest.raises(ValueError, match="another process is training in"):
            train(config)


def test_a_file_system_without_locks_is_trained_on_but_keeps_no_index(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="run cannot be locked: No locks available"):
        lock_folder(tmp_path / "run").close()
    write_image(tmp_path / "clips" / "a" / "1.png", np.zeros((8, 8, 3), np.uint8))
    write_boxes(tmp_path / "clips" / "a" / "groundtruth.txt", np.array([[1, 1, 5, 5]]))
    with pytest.raises(ValueError, match=r"cannot keep the index .*set XDG_CACHE_HOME"):
        open_tracks(DatasetConfig("folder", str(tmp_path / "clips")), tmp_path)


def test_a_locked_folder_is_named_before_other_processes_start(config, monkeypatch):
    monkeypatch.setattr(Fabric, "launch", lambda _: pytest.fail("other processes were started"))
    with lock_folder(Path(config.output)):
        with pytest.raises(ValueError, match="another process is training in"):
            train(replace(config, devices=2))


def test_the_shortest_time_limit_gives_one_step(config):
    train(replace(config, time_limit_min=1e-9))
    assert [row["step"] for row in rows(config)] == ["1"]
    load_checkpoint(weights(config))


def test_a_run_is_not_overwritten_and_a_broken_checkpoint_is_named(copied):
    with pytest.raises(ValueError, match="has a run already"):
        train(copied)
    path = Path(copied.output, "checkpoint.pt")
    for content in (b"", b"nonsense", path.read_bytes()[:999]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is not a complete .* of a run$"):
            train(copied, resume=True)


@pytest.mark.parametrize("numbers", [3_000, 300_000])
def test_a_checkpoint_that_the_disk_cannot_hold_is_named(tmp_path, numbers):
    path = tmp_path / "checkpoint.pt"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint\.pt cannot be written: File too large"):
            save_tensors(path, {"network": torch.zeros(numbers)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("name", ["weights.safetensors", "best.safetensors"])
def test_weights_without_a_checkpoint_are_not_overwritten(copied, name):
    """Users delete large checkpoints of ended runs; an early Ctrl-C comes before the first one."""
    folder = Path(copied.output)
    for other in ("checkpoint.pt", "weights.safetensors", "best.safetensors"):
        if other != name:
            (folder / other).unlink()
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=rf"has {name} of a run, but no checkpoint.* or move"):
        train(copied)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_run_without_improvement_stops_early(config, monkeypatch):
    monkeypatch.setattr(trainer, "validate", lambda *_: {"validation_iou": 0.1})
    train(replace(config, steps=50, validation_every=1, patience=2))
    assert rows(config)[-1]["step"] == "3"  # the first is the best; then two that are not better
    provenance = load_checkpoint(Path(config.output, "best.safetensors")).provenance
    assert (provenance["steps"], provenance["validation_iou"]) == ("1", "0.1000")


def test_a_run_that_stopped_early_has_ended(config, monkeypatch, capsys):
    """Each job of a chain calls --resume; only more patience lets the run go on."""
    monkeypatch.setattr(trainer, "validate", lambda *_: {"validation_iou": 0.1})
    stopped = replace(config, steps=50, validation_every=1, patience=2)
    train(stopped)
    train(stopped, resume=True, console=Console(width=200))
    assert rows(config)[-1]["step"] == "3"
    assert "has ended already: nothing was trained" in capsys.readouterr().out
    train(replace(stopped, patience=4), resume=True)
    assert rows(config)[-1]["step"] == "5"
