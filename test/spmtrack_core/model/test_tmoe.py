"""TMoE: the weighted sum of experts, and the trainable parameters."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from golden_model import GOLDEN, golden_config, golden_tensors
from safetensors import safe_open
from torch import nn
from torch.testing import assert_close

from spmtrack_core.model.published import from_published
from spmtrack_core.model.spmtrack import build_spmtrack, trainable_names
from spmtrack_core.model.tmoe import TMoELinear, initialize_experts


def filled(**options):
    """A linear layer with experts that are not zero, unlike at the start of training."""
    torch.manual_seed(0)
    linear = TMoELinear(nn.Linear(6, 5), rank=3, experts=4, scaling=0.7, **options)
    nn.init.normal_(linear.experts)
    if linear.shared is not None:
        nn.init.normal_(linear.shared)
    return linear


@pytest.mark.parametrize("options", [{}, {"shared_expert": True}, {"expert_compressors": True}])
def test_the_fused_multiplication_is_the_weighted_sum_of_experts(options):
    linear, x = filled(**options), torch.randn(2, 7, 6)
    weights = torch.softmax(x @ linear.router.T, -1)
    assert_close(weights, linear.route(x))
    expected = x @ linear.weight.T + linear.bias
    for expert in range(4):
        down = linear.down[expert if len(linear.down) > 1 else 0]
        output = (x @ down.T) @ linear.experts[:, expert].T
        expected = expected + 0.7 * weights[..., expert, None] * output
    if linear.shared is not None:
        expected = expected + 0.7 * (x @ linear.down[0].T) @ linear.shared.T
    assert_close(linear(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"shared_expert": True}, {"expert_compressors": True}])
def test_the_published_start_of_experts_is_normal(options):
    torch.manual_seed(0)
    linear = TMoELinear(nn.Linear(60, 50), rank=30, experts=4, scaling=0.7, **options)
    assert not linear.experts.any()  # their usual start
    kept = {name: getattr(linear, name).clone() for name in ("weight", "bias", "router")}
    initialize_experts(nn.Sequential(linear))
    for name in set(linear.adapter_names()) - {"router"}:
        deviation, mean = torch.std_mean(getattr(linear, name))
        assert (deviation - 0.02).abs() < 0.002 and mean.abs() < 0.002, name
    assert all(torch.equal(getattr(linear, name), tensor) for name, tensor in kept.items())


@pytest.mark.golden
@pytest.mark.parametrize(
    "variant", ["default", "shared_expert", "route_compression", "swiglu_nonsquare"]
)
def test_trainable_parameters_are_the_published_ones(variant, parity):
    name = f"model_{variant}_params"
    config = golden_config(name)
    model = build_spmtrack(config)
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        published = set(json.loads(file.metadata()["trainable"]))
    tensors = golden_tensors(name)
    expected = set(from_published({key: tensors[key] for key in published}, model))
    parity.equal(
        f"model_{variant}",
        "names of trained tensors",
        sorted(trainable_names(model)),
        sorted(expected),
    )
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key in expected)
    prediction = model(
        torch.randn(1, 3, *config.search_hw),
        torch.randn(1, 3, 3, *config.template_hw),
        torch.ones(1, 3, *config.template_grid_hw),
    )
    (prediction.score_map.sum() + prediction.boxes.sum()).backward()
    assert {key for key, p in model.named_parameters() if p.grad is not None} == expected


def test_only_the_chosen_layers_have_experts():
    config = replace(golden_config("model_default_params"), adapted=("q", "fc2"))
    model = build_spmtrack(config)
    kinds = {name: type(module) for name, module in model.trunk.blocks[1].named_modules()}
    assert [n for n, kind in kinds.items() if kind is TMoELinear] == ["attn.qkv.q", "mlp.fc2"]
    names = {name.split(".")[-2] for name in trainable_names(model) if name.startswith("trunk.")}
    assert names == {"q", "fc2"}
    with pytest.raises(ValueError, match="adapted must be one of"):
        replace(config, adapted=("qkv",))
