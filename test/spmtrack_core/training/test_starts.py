"""Runs that start from weights, a trunk or a stem: what is trained, and what stays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v2

from spmtrack_core.model.mobilenet import read_mobilenet
from spmtrack_core.model.spmtrack import trainable_names
from spmtrack_core.model.trunk import resample_positions
from spmtrack_core.model.weights import layer_names, load_checkpoint
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.training.network import initial_model
from spmtrack_core.training.run import read_settings
from spmtrack_core.training.trainer import train
from test.spmtrack_core.training.finished_runs import rows, weights


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
