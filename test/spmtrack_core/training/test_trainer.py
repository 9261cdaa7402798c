"""The trainer on a tiny network: files, precisions, errors, and the command."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
import typer
import yaml
from lightning_fabric import Fabric
from rich.console import Console
from tiny_model import TINY
from torchvision.models import mobilenet_v2
from typer.testing import CliRunner

from spmtrack_core.cli.plot import plot
from spmtrack_core.cli.train import train as command
from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.settings import load_yaml, to_dict
from spmtrack_core.training.config import SyntheticConfig, TrainConfig
from spmtrack_core.training.run import read_settings
from spmtrack_core.training.sources import first_batch
from spmtrack_core.training.synthetic import SyntheticTracks
from spmtrack_core.training.trainer import TrainingDiverged, train
from test.spmtrack_core.training.finished_runs import rows, weights


def test_a_run_writes_its_files(finished):
    checkpoint = load_checkpoint(weights(finished))
    settings = checkpoint.model_config, checkpoint.tracker_config
    assert settings == (finished.model, finished.tracker)
    provenance = checkpoint.provenance
    assert provenance["command"] == "spmtrack train tiny.yaml"
    assert provenance["samples"] == "24 synthetic tracks"
    assert all(p.isfinite().all() for p in checkpoint.model.parameters())
    log = rows(finished)
    assert [row["step"] for row in log] == list("123456")
    assert [bool(row["validation_iou"]) for row in log] == [False, False, True] * 2
    folder = Path(finished.output)
    names = {path.name for path in folder.iterdir() if "events" not in path.name}
    assert names == {
        ".lock",
        "config.yaml",
        "log.csv",
        "checkpoint.pt",
        "weights.safetensors",
        "best.safetensors",
        "curves.png",
    }
    assert any("tfevents" in path.name for path in folder.iterdir())
    assert load_yaml(folder / "config.yaml", TrainConfig) == finished


def test_a_plot_replaces_no_other_file_of_its_run(copied):
    for name in ("checkpoint.pt", "weights.safetensors", "log.csv"):
        with pytest.raises(ValueError, match=rf"{name} is an input of this run"):
            plot(Path(copied.output), Path(copied.output, name))


@pytest.fixture
def spoiled(monkeypatch) -> None:
    """Every batch has a search of NaN."""
    original = SyntheticTracks.batch

    def spoil(tracks, index):
        batch = original(tracks, index)
        batch.searches[0, 0] = float("nan")
        return batch

    monkeypatch.setattr(SyntheticTracks, "batch", spoil)


def test_a_nan_loss_stops_the_run_and_saves_its_batch(config, spoiled):
    text = r"step 0 .*bad_batch_0\.pt\. Try an lr below 0\.001 or precision=float32$"
    with pytest.raises(TrainingDiverged, match=text):
        train(config)
    (kept,) = torch.load(Path(config.output, "bad_batch_0.pt"))
    assert kept["searches"].isnan().any() and kept["references"].shape[1] == 3


def test_a_dry_run_with_a_nan_loss_names_no_file(config, spoiled):
    with pytest.raises(TrainingDiverged, match="step 0 ") as error:
        train(config, dry_run=True)
    assert config.output not in str(error.value) and not Path(config.output).exists()


def test_a_nan_loss_after_a_checkpoint_keeps_the_weights(config, request):
    before = train(config, time_limit_min=1e-9).read_bytes()
    request.getfixturevalue("spoiled")
    text = rf"step 1 .*, in a new output, with start_from={weights(config)} to keep"
    with pytest.raises(TrainingDiverged, match=text):
        train(config, resume=True)
    assert weights(config).read_bytes() == before


def test_a_run_with_three_searches(config):
    longer = replace(config, searches=3, steps=2)
    assert first_batch(longer).searches.shape[1] == 3
    train(longer)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"synthetic": SyntheticConfig(images=("nowhere",))}, "no folder of photographs nowhere"),
        ({"start_from": "nothing"}, "no weights 'nothing'"),
        ({"start_from": "nano"}, "start_from nano: its network is"),
        ({"trunk": "nowhere.pth"}, r"nowhere\.pth"),
        (
            {"model": replace(TINY, stem="mobilenetv2"), "stem": "nowhere.pt"},
            "no weights of a Mob",
        ),
        ({"device": "abacus"}, "device must be auto"),
    ],
    ids=["photographs", "no weights", "another network", "trunk", "stem", "device"],
)
def test_errors_come_before_other_processes_start(config, monkeypatch, change, match):
    """Each process would report them, and the folder would stay behind."""
    monkeypatch.setattr(Fabric, "launch", lambda _: pytest.fail("other processes were started"))
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        train(replace(config, **change, devices=2))
    assert not Path(config.output).exists()


def test_a_run_with_absent_targets_validates_the_confidence(config):
    train(replace(config, steps=3, synthetic=replace(config.synthetic, absent_share=0.5)))
    last = rows(config)[-1]
    assert 0 <= float(last["validation_iou"]) <= 1
    assert last["validation_auc"] == "" or 0 <= float(last["validation_auc"]) <= 1


def test_bfloat16(config):
    train(replace(config, precision="bfloat16", steps=2))
    assert all(float(row["loss"]) < 100 for row in rows(config))


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_float16_on_a_gpu(config, optimizer):
    train(replace(config, device="cuda", precision="float16", optimizer=optimizer))
    assert all(float(row["loss"]) < 100 for row in rows(config))


def test_a_few_steps_fit_one_batch(config, monkeypatch):
    original = SyntheticTracks.batch
    monkeypatch.setattr(SyntheticTracks, "batch", lambda self, index: original(self, 0))
    train(replace(config, steps=20, lr=5e-3, log_every=4, validation_every=20))
    losses = [float(row["loss"]) for row in rows(config)]
    assert losses[-1] < 0.8 * losses[0]


def test_activation_checkpointing_gives_the_same_run(config, finished):
    train(replace(config, activation_checkpointing=True))
    for row, other in zip(rows(config), rows(finished), strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4)


def test_a_dry_run_writes_nothing(config, capsys):
    train(config, dry_run=True, console=Console(width=200))
    assert not Path(config.output).exists()
    shown = capsys.readouterr().out
    for part in ("samples/s", "peak memory of a process", "of them trainable", "step 2"):
        assert part in shown


def test_the_command(config, tmp_path, monkeypatch):
    """Overrides, the contact sheet, a run, and one clear error for a key that does not exist."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    runner, app = CliRunner(), typer.Typer()
    app.command()(command)
    shown = runner.invoke(app, [str(path), "--show", str(tmp_path / "sheet.png")])
    assert shown.exit_code == 0 and cv2.imread(str(tmp_path / "sheet.png")) is not None
    assert not Path(config.output).exists()
    done = runner.invoke(app, [str(path), "steps=2", "synthetic.noise=0", "--time-limit", "5"])
    assert done.exit_code == 0, done.output
    assert rows(config)[-1]["step"] == "2"
    wrong = runner.invoke(app, [str(path), "learning_rate=1"])
    assert isinstance(wrong.exception, ValueError) and "learning_rate" in str(wrong.exception)


def test_paths_of_a_recipe_may_start_with_a_tilde(config, tmp_path, monkeypatch):
    """Whether they stand in the file or on the command line; the settings keep them as written."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    stem, trunk = tmp_path / "home" / "stem.pt", tmp_path / "home" / "trunk.safetensors"
    stem.parent.mkdir()
    torch.save(mobilenet_v2().state_dict(), stem)
    config = replace(config, model=replace(TINY, stem="mobilenetv2"), stem="~/stem.pt", steps=1)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    assert train(read_settings(path, ["output=~/run"], resume=False)) == tmp_path.joinpath(
        "home", "run", "weights.safetensors"
    )
    stored = load_yaml(tmp_path / "home" / "run" / "config.yaml", TrainConfig)
    assert (stored.output, stored.stem) == ("~/run", "~/stem.pt")
    shutil.copy(tmp_path / "home" / "run" / "weights.safetensors", trunk)
    second = ["trunk=~/trunk.safetensors", "output=~/second", "trained=adapters"]
    adapters = train(read_settings(path, second, resume=False))
    third = ["start_from=~/second/weights.safetensors", *second[:2], "output=~/third"]
    train(read_settings(path, third, resume=False))
    train(read_settings(path, [*third, "steps=2"], resume=True), resume=True)
    assert adapters.is_file() and not (tmp_path / "~").exists()


def test_a_missing_device_is_an_error(config):
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N; got 'abacus'"):
        train(replace(config, device="abacus"))
