"""Learning rate, weight decay, Muon beside AdamW, and the moving average of the weights."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from tiny_model import TINY

from spmtrack_core.model.spmtrack import build_spmtrack
from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.optim import EMA, adamw, decays, learning_rate, muon


def test_schedule():
    config = TrainConfig(steps=100, warmup_steps=10, lr=1.0, min_lr=0.1)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] < rates[5] < rates[9] < rates[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert learning_rate(config, 100) == pytest.approx(0.1)
    assert learning_rate(config, 50, done=1.0) == pytest.approx(0.1)


def test_a_late_cosine_lets_a_run_be_made_longer():
    """Until the shorter run begins to decay, the longer one has the same rates."""
    short = TrainConfig(lr=1.0, min_lr=0.1, warmup_steps=10, steps=100, decay_steps=40)
    longer = replace(short, steps=300, decay_steps=100)
    rates = [learning_rate(short, step) for step in range(101)]
    assert rates[:61] == [learning_rate(longer, step) for step in range(61)]
    assert rates[60] == 1.0 > rates[61] and rates[80] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)


def test_updates_of_muon_are_orthogonal_and_adamw_has_the_rest():
    model, config = build_spmtrack(TINY), TrainConfig()
    trainable = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in trainable.items()}
    optimizer = muon(trainable, config, torch.device("cpu"))
    torch.manual_seed(0)
    for parameter in trainable.values():
        parameter.grad = torch.randn_like(parameter)
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = 0.1, 0.0
    optimizer.step()
    turned = 0
    for name, parameter in trainable.items():
        update = (parameter.detach() - before[name]).double()
        if ".blocks." in name and parameter.ndim == 2:
            sizes = torch.linalg.svdvals(update) / (0.1 * 0.2 * max(update.shape) ** 0.5)
            assert 0.6 < sizes.median() and sizes.max() < 1.3, name
            assert (sizes > 0.6).double().mean() > 0.9, name  # the smallest are left behind
            turned += 1
        else:  # AdamW's first update is the sign of the gradient
            expected = torch.full_like(update, 0.1)
            torch.testing.assert_close(update.abs(), expected, rtol=1e-3, atol=1e-6)
    assert turned == 12 * len(model.trunk.blocks)  # six linear layers and their routers


def test_weight_decay_is_for_matrices():
    model = build_spmtrack(TINY)
    without = {n for n, p in model.named_parameters() if not decays(n, p) and p.ndim > 1}
    assert without == {"target_token", "target_embed", "token_types", "trunk.pos_embed"}


def test_ema_drops_the_random_start_and_is_empty_without_a_decay():
    weight = torch.zeros(2)
    ema, none = EMA({"w": weight}, 0.9), EMA({"w": weight}, 0.0)
    weight.fill_(1.0)
    expected = 0.0
    for step in range(1, 200):
        ema.update(step)
        none.update(step)
        decay = min(0.9, step / (10 + step))
        expected = decay * expected + (1 - decay)
    torch.testing.assert_close(ema.weights["w"], torch.full((2,), expected))
    assert expected > 0.999 and not none.weights


CPU, GPU = torch.device("cpu"), torch.device("cuda")


def two_parameters() -> dict[str, torch.nn.Parameter]:
    """One for each optimizer of ``muon``. The CPU has a fused kernel too, so they do for a GPU."""
    names = "trunk.blocks.0.weight", "head.weight"
    return {name: torch.nn.Parameter(torch.ones(2, 2)) for name in names}


@pytest.mark.parametrize("make", [adamw, muon])
@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        (GPU, "float32", True),
        (GPU, "bfloat16", True),
        (GPU, "float16", False),  # gradients are scaled
        (CPU, "float32", False),
    ],
)
def test_the_devices_on_which_adamw_is_fused(make, device, precision, expected):
    optimizer = make(two_parameters(), TrainConfig(precision=precision), device)
    assert optimizer.param_groups[-1]["fused"] == expected


@pytest.mark.parametrize("make", [adamw, muon])
@pytest.mark.parametrize("saved, loaded", [(CPU, GPU), (GPU, CPU)])
def test_a_state_from_another_device_keeps_the_kernel_of_this_one(make, saved, loaded):
    parameters = two_parameters()
    first, second = (make(parameters, TrainConfig(), each) for each in (saved, loaded))
    for parameter in parameters.values():
        parameter.grad = torch.ones(2, 2)
    first.param_groups[-1]["lr"] = 0.5
    first.step()
    second.load_state_dict(first.state_dict())
    last = second.param_groups[-1]
    assert (last["fused"], last["lr"]) == (loaded == GPU, 0.5)
    second.step()
