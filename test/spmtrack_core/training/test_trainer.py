"""The trainer on a tiny network: files, resumption, limits, and errors a user can mend."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import typer
import yaml
from rich.console import Console
from typer.testing import CliRunner

from spmtrack_core.cli.train import train as command
from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.model.spmtrack import build_spmtrack, trainable_names
from spmtrack_core.model.trunk import resample_positions
from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.settings import load_yaml, to_dict
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.training import trainer
from spmtrack_core.training.config import SyntheticConfig, TrainConfig
from spmtrack_core.training.optim import decays, learning_rate, muon
from spmtrack_core.training.trainer import TrainingDiverged, train

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for i in range(4):
        image = cv2.resize(random.integers(0, 256, (9, 12, 3), np.uint8), (60, 48))
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return str(folder)


@pytest.fixture
def config(images, tmp_path) -> TrainConfig:
    return TrainConfig(
        model=ModelConfig(
            trunk="explicit", embed_dim=32, depth=1, num_heads=2, mlp_hidden=32, patch_size=16,
            template_hw=(32, 32), search_hw=(64, 64), rank=2, alpha=2.0, experts=2,
        ),
        tracker=TrackerConfig(search_area_factor=4.0),
        synthetic=SyntheticConfig(images=images, image_side=32, patch_side=16), ema_decay=0.999,
        output=str(tmp_path / "run"), device="cpu", steps=6, batch_size=4, warmup_steps=2,
        log_every=1, validation_every=3, validation_samples=8, checkpoint_every=2,
    )  # fmt: skip


def rows(config: TrainConfig) -> list[dict[str, str]]:
    with open(Path(config.output, "log.csv"), newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_its_files(config):
    path = train(config, command="spmtrack train tiny.yaml")
    checkpoint = load_checkpoint(path)
    model, provenance = checkpoint.model, checkpoint.provenance
    assert (checkpoint.model_config, checkpoint.tracker_config) == (config.model, config.tracker)
    assert provenance["command"] == "spmtrack train tiny.yaml"
    assert provenance["samples"].startswith("24 ")
    assert all(p.isfinite().all() for p in model.parameters())
    log = rows(config)
    assert [row["step"] for row in log] == list("123456")
    assert [bool(row["validation_iou"]) for row in log] == [False, False, True] * 2
    names = {p.name for p in Path(config.output).iterdir() if "events" not in p.name}
    assert names == {".lock", "config.yaml", "log.csv", "checkpoint.pt", "weights.safetensors",
                     "best.safetensors", "curves.png"}  # fmt: skip
    assert any("tfevents" in p.name for p in Path(config.output).iterdir())
    assert load_yaml(Path(config.output, "config.yaml"), TrainConfig) == config


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_gives_the_same_losses(config, tmp_path, optimizer):
    config = replace(config, optimizer=optimizer)
    train(config)
    whole = rows(config)
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
    same = ("step", "lr", "loss", "score_loss", "box_loss", "gradient_norm", "validation_iou")
    assert [[row[c] for c in same] for row in rows(half)] == [[r[c] for c in same] for r in whole]
    a, b = (load_checkpoint(Path(c.output, "weights.safetensors")).model for c in (config, half))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_resuming_another_run_is_refused(config):
    train(replace(config, steps=2))
    with pytest.raises(ValueError, match=r"made with batch_size: 4, not 8"):
        train(replace(config, steps=2, batch_size=8), resume=True)


def test_resuming_from_nothing(config):
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        train(config, resume=True)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_batch(config, monkeypatch):
    train(replace(config, steps=4))
    weights = Path(config.output, "weights.safetensors").read_bytes()
    original = trainer.SyntheticTracks.batch

    def spoil(tracks, index):
        batch = original(tracks, index)
        batch.searches[0, 0] = float("nan")
        return batch

    monkeypatch.setattr(trainer.SyntheticTracks, "batch", spoil)
    Path(config.output, "checkpoint.pt").unlink()  # a new run in the same folder
    text = r"step 0 .*bad_batch_0\.pt.* lr than 0\.001 .*start_from="
    with pytest.raises(TrainingDiverged, match=text):
        train(config)
    assert Path(config.output, "weights.safetensors").read_bytes() == weights
    (kept,) = torch.load(Path(config.output, "bad_batch_0.pt"))
    assert kept["searches"].isnan().any() and kept["references"].shape[1] == 3


@pytest.mark.parametrize("anneal", ["steps", "time"])
def test_the_time_limit_ends_a_run_with_weights(config, anneal, monkeypatch):
    seconds = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(seconds))  # a second passes at every look
    monkeypatch.setattr(trainer, "time", clock)
    limited = replace(config, steps=1_000_000, time_limit_min=1.0, anneal=anneal)
    path = train(limited)
    last = rows(limited)[-1]
    assert 2 < int(last["step"]) < 60 and last["validation_iou"]
    load_checkpoint(path)
    if anneal == "time":
        assert float(last["lr"]) < 0.1 * config.lr
    train(replace(limited, time_limit_min=2.0), resume=True)  # more time: it goes on
    assert int(rows(limited)[-1]["step"]) > int(last["step"])


def test_jobs_in_a_chain_each_do_their_part(config):
    """The limit of a call counts from it; what it interrupts is validated and no verdict."""
    whole = replace(config, output=f"{config.output}_whole")
    train(whole)
    for part in range(1, 4):
        train(replace(config, patience=1), resume=part > 1, time_limit_min=1e-9)
        assert int(rows(config)[-1]["step"]) == part
    train(replace(config, patience=9), resume=True)
    assert [r["loss"] for r in rows(config)] == [r["loss"] for r in rows(whole)]


def test_resuming_a_run_that_has_ended_restores_its_weights(config, capsys):
    path = train(config)
    before = path.read_bytes()
    path.unlink()
    train(config, resume=True, console=Console(width=200))
    assert "has ended already: nothing was trained" in capsys.readouterr().out
    assert load_checkpoint(path).model.target_token.isfinite().all()
    assert len(path.read_bytes()) == pytest.approx(len(before), rel=0.01)


def test_a_run_with_longer_rows_of_searches(config):
    longer = replace(config, searches=3)
    assert trainer.first_batch(longer).searches.shape[1] == 3
    train(longer)


def test_one_run_at_a_time_in_a_folder(config):
    with trainer.hold(Path(config.output)):
        with pytest.raises(ValueError, match="another process is training in"):
            train(config)


def test_a_time_limit_too_short_for_a_step(config):
    with pytest.raises(ValueError, match="ended the run before a step"):
        train(replace(config, time_limit_min=1e-9))


def test_a_run_that_starts_from_weights(config, tmp_path):
    first = train(config, command="first")
    second = replace(config, start_from=str(first), lr=1e-9, output=str(tmp_path / "second"))
    before, after = (load_checkpoint(path) for path in (first, train(second, command="second")))
    for p, q in zip(before[0].parameters(), after[0].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-4)
    assert after[3]["command"] == "second" and json.loads(after[3]["before"]) == [before[3]]
    third = replace(config, start_from=str(Path(second.output, "weights.safetensors")),
                    lr=1e-9, output=str(tmp_path / "later"))  # fmt: skip
    told = json.loads(load_checkpoint(train(third, command="third")).provenance["before"])
    assert [each["command"] for each in told] == ["second", "first"]
    kept = first.rename(tmp_path / "kept.safetensors")
    train(second, resume=True)  # needs its checkpoint alone, which holds the provenance as well
    assert torch.load(Path(second.output, "checkpoint.pt"))["before"] == before[3]
    second = replace(second, start_from=str(kept))
    other = replace(second.model, mlp_hidden=64)
    with pytest.raises(ValueError, match=r"start_from .*mlp_hidden=32.*not the .*mlp_hidden=64"):
        train(replace(second, model=other, output=str(tmp_path / "third")))
    with pytest.raises(FileNotFoundError, match="no weights 'nothing'"):
        train(replace(second, start_from="nothing", output=str(tmp_path / "fourth")))


def test_a_run_that_starts_from_weights_of_other_crops(config, tmp_path):
    first = train(config)
    larger = replace(config.model, template_hw=(48, 48), search_hw=(96, 96))
    second = train(replace(config, model=larger, start_from=str(first), lr=1e-9, steps=2,
                           output=str(tmp_path / "second")))  # fmt: skip
    before, after = (load_checkpoint(path).model for path in (first, second))
    table = resample_positions(before.trunk.pos_embed, (4, 4), (6, 6))
    torch.testing.assert_close(after.trunk.pos_embed, table, rtol=0, atol=1e-4)
    torch.testing.assert_close(after.target_token, before.target_token, rtol=0, atol=1e-4)
    tracker = load_tracker(second, device="cpu")
    tracker.init(np.zeros((60, 80, 3), np.uint8), (20, 20, 20, 20))
    tracker.update(np.zeros((60, 80, 3), np.uint8))


def test_a_run_with_absent_targets_judges_its_confidence(config):
    train(replace(config, steps=3, synthetic=replace(config.synthetic, absent_share=0.5)))
    last = rows(config)[-1]
    assert 0 <= float(last["validation_iou"]) <= 1
    assert last["validation_auc"] == "" or 0 <= float(last["validation_auc"]) <= 1


def test_a_run_is_not_overwritten_and_a_broken_checkpoint_is_named(config):
    train(replace(config, steps=2))
    with pytest.raises(ValueError, match="holds a run already"):
        train(config)
    for content in (b"", b"nonsense", (Path(config.output) / "checkpoint.pt").read_bytes()[:999]):
        (Path(config.output) / "checkpoint.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is not a complete checkpoint"):
            train(config, resume=True)


def test_bfloat16(config):
    train(replace(config, precision="bfloat16"))
    assert all(float(row["loss"]) < 100 for row in rows(config))


def test_only_adapters_learn(config, tmp_path):
    first = train(replace(config, steps=2))
    adapters = replace(config, trained="adapters", ema_decay=0.0, start_from=str(first),
                       output=str(tmp_path / "peft"))  # fmt: skip
    before, model = load_checkpoint(first).model, load_checkpoint(train(adapters)).model
    names = trainable_names(model)
    for name, parameter in model.named_parameters():
        frozen = torch.equal(parameter, before.get_parameter(name))
        assert frozen == (name not in names), name
    stored = torch.load(Path(adapters.output, "checkpoint.pt"))["network"]
    assert {name.removeprefix("model.") for name in stored} == names


def test_adapters_on_a_trunk_of_ones_own(config, tmp_path):
    """The weights hold the adapters alone, and go back onto the trunk they were trained on."""
    trunk = train(replace(config, steps=2))
    adapters = replace(config, trained="adapters", trunk=str(trunk), output=str(tmp_path / "peft"),
                       precision="bfloat16")  # fmt: skip
    path = train(adapters)
    with pytest.raises(ValueError, match="no pretrained weights of 'explicit'"):
        load_checkpoint(path)
    model, whole = load_checkpoint(path, trunk).model, load_checkpoint(trunk).model
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter, whole.get_parameter(name))
        assert same == (name not in trainable_names(model)), name
    again = replace(adapters, steps=8)
    with pytest.raises(ValueError, match="steps: 6, not 8"):
        train(again, resume=True)


def test_a_few_steps_on_one_batch_learn_it(config, monkeypatch):
    original = trainer.SyntheticTracks.batch
    monkeypatch.setattr(trainer.SyntheticTracks, "batch", lambda self, index: original(self, 0))
    train(replace(config, steps=30, lr=3e-3, log_every=5, validation_every=30))
    losses = [float(row["loss"]) for row in rows(config)]
    assert losses[-1] < 0.8 * losses[0]


def test_blocks_computed_twice_give_the_same_run(config):
    train(replace(config, steps=2))
    train(replace(config, steps=2, checkpoint_blocks=True, output=f"{config.output}_twice"))
    twice = rows(replace(config, output=f"{config.output}_twice"))
    for row, other in zip(rows(config), twice, strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-5)


def test_a_run_that_gets_no_better_is_stopped(config, monkeypatch):
    monkeypatch.setattr(trainer, "validate_batches", lambda *_: {"validation_iou": 0.1})
    train(replace(config, steps=50, validation_every=2, patience=2))
    assert rows(config)[-1]["step"] == "6"  # the first is the best; then two that are not better
    provenance = load_checkpoint(Path(config.output, "best.safetensors")).provenance
    assert (provenance["steps"], provenance["validation_iou"]) == ("2", "0.1000")


def test_a_dry_run_leaves_nothing(config, capsys):
    train(config, dry_run=True, console=Console(width=200))
    assert not Path(config.output).exists()
    shown = capsys.readouterr().out
    for part in ("samples/s", "peak memory of a process", "of them learn", "step 2"):
        assert part in shown


def test_schedule():
    config = TrainConfig(steps=100, warmup_steps=10, lr=1.0, min_lr=0.1)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] < rates[5] < rates[9] < rates[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert learning_rate(config, 100) == pytest.approx(0.1)
    assert learning_rate(config, 50, done=1.0) == pytest.approx(0.1)


def test_muon_steps_are_orthogonal_and_adamw_has_the_rest(config):
    model = build_spmtrack(config.model)
    learning = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in learning.items()}
    optimizer = muon(learning, config, fused=False)
    torch.manual_seed(0)
    for parameter in learning.values():
        parameter.grad = torch.randn_like(parameter)
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = 0.1, 0.0
    optimizer.step()
    turned = 0
    for name, parameter in learning.items():
        step = (parameter.detach() - before[name]).double()
        if ".blocks." in name and parameter.ndim == 2:
            sizes = torch.linalg.svdvals(step) / (0.1 * 0.2 * max(step.shape) ** 0.5)
            assert 0.6 < sizes.median() and sizes.max() < 1.3, name
            assert (sizes > 0.6).double().mean() > 0.9, name  # the smallest are left behind
            turned += 1
        else:  # AdamW's first step is the sign of the gradient
            expected = torch.full_like(step, 0.1)
            torch.testing.assert_close(step.abs(), expected, rtol=1e-3, atol=1e-6)
    assert turned == 12 * len(model.trunk.blocks)  # six maps and their routers


def test_muon_needs_a_pytorch_that_has_it(config, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"needs PyTorch 2\.9 or newer, this is 2"):
        train(replace(config, optimizer="muon"))


def test_decay_is_for_matrices():
    model = build_spmtrack(ModelConfig(
        trunk="explicit", embed_dim=32, depth=1, num_heads=2, mlp_hidden=32, patch_size=16,
        template_hw=(32, 32), search_hw=(64, 64), rank=2, alpha=2.0, experts=2,
    ))  # fmt: skip
    without = {n for n, p in model.named_parameters() if not decays(n, p) and p.ndim > 1}
    assert without == {"target_token", "target_embed", "token_types", "trunk.pos_embed"}


@pytest.mark.parametrize(
    "change, text",
    [
        ({"precision": "fp8"}, "precision must be one of"),
        ({"data": "videos"}, r"needs videos\.datasets"),
        ({"strategy": "zero"}, "strategy must be one of"),
        ({"accumulate": 0}, "accumulate must be >= 1"),
        ({"patience": 0}, "patience must be >= 1"),
        ({"batch_size": 4, "devices": 3}, "batch_size 4 must be a multiple of 3: devices 3"),
        ({"trained": "adapters"}, "adapters needs trunk or start_from"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
        ({"optimizer": "muon", "strategy": "fsdp"}, "needs whole matrices"),
        ({"anneal": "time"}, "needs time_limit_min"),
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"searches": 0}, "searches must be >= 1, got 0"),
        ({"data": "mixed"}, r"data: mixed needs videos\.datasets"),
        ({"data": "mixed", "video_share": 1.0}, "video_share must be above 0 and below 1"),
        ({"data": "videos", "searches": 500}, r"search_gap 400 is too few frames for 500"),
        ({"lr": float("nan")}, "lr must be finite"),
        ({"ema_decay": 1.0}, "ema_decay must be in 0..1"),
        ({"time_limit_min": 0.0}, "time_limit_min must be > 0"),
    ],
)
def test_settings_that_cannot_work(change, text):
    with pytest.raises(ValueError, match=text):
        TrainConfig(**change)


def test_the_command(config, tmp_path, monkeypatch):
    """Overrides, the contact sheet, a run, and one clear error for a key that does not exist."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(trainer.plain(to_dict(config))))
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


def test_a_device_that_is_not_there(config):
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N; got 'abacus'"):
        train(replace(config, device="abacus"))


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("recipes/*.yaml")), ids=str)
def test_shipped_settings_can_be_read(path):
    assert path.read_text().startswith(f"# spmtrack train recipes/{path.name}\n")
    load_yaml(path, TrainConfig)
