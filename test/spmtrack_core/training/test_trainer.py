"""The trainer on a tiny network: files, resumption, limits, and errors of users."""

from __future__ import annotations

import csv
import errno
import fcntl
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import typer
import yaml
from lightning_fabric import Fabric
from rich.console import Console
from tiny_model import TINY
from torchvision.models import mobilenet_v2
from typer.testing import CliRunner

from spmtrack_core.cli.train import train as command
from spmtrack_core.config import DatasetConfig, TrackerConfig
from spmtrack_core.data.catalog import open_tracks
from spmtrack_core.data.recording import write_boxes, write_image
from spmtrack_core.model.mobilenet import read_mobilenet
from spmtrack_core.model.spmtrack import trainable_names
from spmtrack_core.model.trunk import resample_positions
from spmtrack_core.model.weights import layer_names, load_checkpoint
from spmtrack_core.settings import load_yaml, to_dict
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.training import runlog, trainer
from spmtrack_core.training.config import SyntheticConfig, TrainConfig
from spmtrack_core.training.network import initial_model
from spmtrack_core.training.run import lock_folder, read_settings
from spmtrack_core.training.sources import first_batch
from spmtrack_core.training.synthetic import SyntheticTracks
from spmtrack_core.training.trainer import TrainingDiverged, train


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for i in range(4):
        image = cv2.resize(random.integers(0, 256, (9, 12, 3), np.uint8), (60, 48))
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return str(folder)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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


def weights(config: TrainConfig) -> Path:
    return Path(config.output, "weights.safetensors")


def rows(config: TrainConfig) -> list[dict[str, str]]:
    with open(Path(config.output, "log.csv"), newline="") as file:
        return list(csv.DictReader(file))


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


def assert_same(run: TrainConfig, other: TrainConfig) -> None:
    same = ("step", "lr", "loss", "score_loss", "box_loss", "gradient_norm")
    logs = [[[row[c] for c in same] for row in rows(config)] for config in (run, other)]
    assert logs[0] == logs[1]
    a, b = (load_checkpoint(weights(config)).model for config in (run, other))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_resuming_with_other_settings_is_rejected(finished):
    with pytest.raises(ValueError, match=r"made with batch_size: 4, not 8"):
        train(replace(finished, batch_size=8), resume=True)
    other = replace(finished, model=replace(finished.model, rank=4))
    with pytest.raises(ValueError, match=r"made with model\.rank: 2, not 4; resume"):
        train(other, resume=True)


def test_resuming_without_a_checkpoint_is_an_error(config):
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        train(config, resume=True)


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


def test_a_run_with_three_searches(config):
    longer = replace(config, searches=3, steps=2)
    assert first_batch(longer).searches.shape[1] == 3
    train(longer)


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


def test_a_locked_folder_is_named_before_other_processes_start(config, monkeypatch):
    monkeypatch.setattr(Fabric, "launch", lambda _: pytest.fail("other processes were started"))
    with lock_folder(Path(config.output)):
        with pytest.raises(ValueError, match="another process is training in"):
            train(replace(config, devices=2))


def test_the_shortest_time_limit_gives_one_step(config):
    train(replace(config, time_limit_min=1e-9))
    assert [row["step"] for row in rows(config)] == ["1"]
    load_checkpoint(weights(config))


def test_a_run_that_starts_from_weights(config, finished, tmp_path):
    second = replace(config, start_from=str(weights(finished)), lr=1e-9, steps=2)
    before, after = (load_checkpoint(path) for path in (weights(finished), train(second)))
    for p, q in zip(before.model.parameters(), after.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-4)
    assert json.loads(after.provenance["before"]) == [before.provenance]

    kept = Path(second.output).rename(tmp_path / "kept")
    third = replace(second, start_from=str(kept / "weights.safetensors"))
    told = json.loads(load_checkpoint(train(third)).provenance["before"])
    assert [each["command"] for each in told] == ["", "spmtrack train tiny.yaml"]
    shutil.rmtree(kept)
    train(third, resume=True)  # the checkpoint alone is needed; it holds the provenance as well
    state = torch.load(Path(third.output, "checkpoint.pt"))
    assert state["before"] == after.provenance


def test_unusable_start_weights_are_rejected(config, finished):
    other = replace(config.model, mlp_hidden=64)
    with pytest.raises(ValueError, match=r"start_from .*mlp_hidden=32.*not the .*mlp_hidden=64"):
        train(replace(config, model=other, start_from=str(weights(finished))))
    with pytest.raises(FileNotFoundError, match="no weights 'nothing'"):
        train(replace(config, start_from="nothing"))
    path = Path(config.output + ".yaml")
    path.write_text(f"{{start_from: {weights(finished)}, model: 3}}")
    with pytest.raises(ValueError, match="model must be ModelConfig; got 3"):
        read_settings(path, (), resume=False)


def test_a_run_that_starts_from_weights_of_other_crops(config, finished):
    larger = replace(config.model, template_hw=(48, 48), search_hw=(96, 96))
    path = train(
        replace(config, model=larger, start_from=str(weights(finished)), lr=1e-9, steps=2)
    )
    before, after = (load_checkpoint(each).model for each in (weights(finished), path))
    table = resample_positions(before.trunk.pos_embed, (4, 4), (6, 6))
    torch.testing.assert_close(after.trunk.pos_embed, table, rtol=0, atol=1e-4)
    torch.testing.assert_close(after.target_token, before.target_token, rtol=0, atol=1e-4)
    tracker = load_tracker(path, device="cpu")
    tracker.init(np.zeros((60, 80, 3), np.uint8), (20, 20, 20, 20))
    tracker.update(np.zeros((60, 80, 3), np.uint8))


def test_a_run_with_absent_targets_validates_the_confidence(config):
    train(replace(config, steps=3, synthetic=replace(config.synthetic, absent_share=0.5)))
    last = rows(config)[-1]
    assert 0 <= float(last["validation_iou"]) <= 1
    assert last["validation_auc"] == "" or 0 <= float(last["validation_auc"]) <= 1


def test_a_run_is_not_overwritten_and_a_broken_checkpoint_is_named(copied):
    with pytest.raises(ValueError, match="has a run already"):
        train(copied)
    path = Path(copied.output, "checkpoint.pt")
    for content in (b"", b"nonsense", path.read_bytes()[:999]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is not a complete .* of a run$"):
            train(copied, resume=True)


@pytest.mark.parametrize("name", ["weights.safetensors", "best.safetensors"])
def test_weights_whose_checkpoint_was_deleted_are_not_overwritten(copied, name):
    """Checkpoints are large, so users delete them once a run has ended."""
    folder = Path(copied.output)
    for other in ("checkpoint.pt", "weights.safetensors", "best.safetensors"):
        if other != name:
            (folder / other).unlink()
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=rf"has {name} of a run .* name another output, or move"):
        train(copied)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_bfloat16(config):
    train(replace(config, precision="bfloat16", steps=2))
    assert all(float(row["loss"]) < 100 for row in rows(config))


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_float16_on_a_gpu(config, optimizer):
    train(replace(config, device="cuda", precision="float16", optimizer=optimizer))
    assert all(float(row["loss"]) < 100 for row in rows(config))


def test_only_adapters_are_trained(config, finished):
    first = weights(finished)
    path = train(
        replace(config, trained="adapters", ema_decay=0.0, start_from=str(first), steps=4)
    )
    before, model = load_checkpoint(first).model, load_checkpoint(path).model
    names = trainable_names(model)
    for name, parameter in model.named_parameters():
        frozen = torch.equal(parameter, before.get_parameter(name))
        assert frozen == (name not in names), name
    stored = torch.load(Path(config.output, "checkpoint.pt"))["network"]
    assert {name.removeprefix("model.") for name in stored} == names


@pytest.mark.parametrize("source", ["start_from", "trunk"])
def test_a_frozen_trunk_is_kept_in_the_precision_of_the_run(config, finished, source):
    """Half the memory, as docs/training.md counts it, and what autocast would compute anyway."""
    change = {source: str(weights(finished)), "trained": "adapters", "precision": "bfloat16"}
    run = replace(config, steps=2, **change)
    model, _ = initial_model(run, resume=False)
    trained, layers = trainable_names(model), layer_names(model)
    whole = load_checkpoint(weights(finished)).model
    for name, parameter in model.named_parameters():
        rounded = name in layers and name not in trained
        assert parameter.dtype == (torch.bfloat16 if rounded else torch.float32), name
        if source == "start_from" or name not in trained:
            assert torch.equal(parameter, whole.get_parameter(name).to(parameter.dtype)), name
    train(run)
    assert all(float(row["loss"]) < 100 for row in rows(run))


def test_only_fresh_experts_get_the_published_start(config, finished):
    torch.manual_seed(0)
    model, _ = initial_model(replace(config, expert_init="normal"), resume=False)
    experts = [model.get_parameter(n) for n in trainable_names(model) if n.endswith(".experts")]
    assert experts and all(0.015 < expert.std() < 0.025 for expert in experts)
    start = replace(config, expert_init="normal", start_from=str(weights(finished)))
    model, whole = initial_model(start, resume=False)[0], load_checkpoint(weights(finished)).model
    assert all(map(torch.equal, model.parameters(), whole.parameters()))


def test_adapters_are_trained_on_a_trunk_file(config, finished):
    """The weights are the adapters alone, and load on the trunk they were trained on."""
    trunk = weights(finished)
    adapters = replace(config, trained="adapters", trunk=str(trunk), precision="bfloat16")
    path = train(adapters)
    with pytest.raises(ValueError, match="no pretrained weights of 'explicit'"):
        load_checkpoint(path)
    model, whole = load_checkpoint(path, trunk).model, load_checkpoint(trunk).model
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter, whole.get_parameter(name))
        assert same == (name not in trainable_names(model)), name
    with pytest.raises(ValueError, match="steps: 6, not 8"):
        train(replace(adapters, steps=8), resume=True)


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


def test_the_stem_learns_later_and_slower(config, tmp_path):
    path = tmp_path / "mobilenet.pt"
    torch.save(mobilenet_v2().state_dict(), path)
    given = read_mobilenet(path)
    config = replace(
        config,
        model=replace(config.model, stem="mobilenetv2"),
        stem=str(path),
        stem_frozen_steps=2,
        stem_lr_factor=0.1,
        ema_decay=0.0,
        lr=1e-3,
        warmup_steps=0,
        steps=4,
        decay_steps=1,
    )

    def change(run: Path) -> float:
        features = load_checkpoint(run).model.trunk.patch_embed.features.state_dict()
        return max(float((features[name] - given[name]).abs().max()) for name in given)

    short = replace(config, steps=2, output=str(tmp_path / "short"))
    assert change(train(short)) == 0
    assert 0 < change(train(config)) < 4e-4
    # a run that is made longer goes on as if it had been planned so
    longer = replace(config, output=short.output)
    train(longer, resume=True)
    assert [row["loss"] for row in rows(longer)] == [row["loss"] for row in rows(config)]
