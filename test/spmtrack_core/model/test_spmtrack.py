"""The network against every golden fixture of the published implementation."""

from __future__ import annotations

import pytest
import torch
from golden_model import golden_model, golden_tensors
from torch.testing import assert_close

from spmtrack_core.model.spmtrack import (
    build_spmtrack,
    spmtrack_b,
    spmtrack_g,
    spmtrack_l,
    trainable_names,
)

VARIANTS = ["default", "shared_expert", "route_compression", "swiglu_nonsquare"]


def close(actual, expected, atol, rtol=0.0):
    assert_close(actual, expected, atol=atol, rtol=rtol)


def references_of(io):
    references = torch.stack([io[f"in.z_{i}"] for i in range(3)], 1)
    return references, torch.stack([io[f"in.z_{i}_feat_mask"] for i in range(3)], 1)


@pytest.mark.golden
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_two_frames_give_the_published_maps(variant):
    model, io = golden_model(f"model_{variant}_params"), golden_tensors(f"model_{variant}_io")
    references, masks = references_of(io)
    state = None
    for frame in range(2):
        prediction = model(io[f"in.x_{frame}"], references, masks, state)
        close(prediction.score_map, io[f"out.{frame}_score_map"], 1e-5)
        close(prediction.boxes, io[f"out.{frame}_boxes"], 1e-5)
        state = prediction.state_token


@pytest.mark.golden
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_each_step_inside_is_the_published_one(variant):
    """Localises a fault that the test above only notices."""
    model, io = golden_model(f"model_{variant}_params"), golden_tensors(f"model_{variant}_io")
    references, masks = references_of(io)
    seen: dict[str, torch.Tensor] = {}

    def keep(name, module, of_input=False):
        module.register_forward_hook(
            lambda _, inputs, output: seen.__setitem__(name, inputs[0] if of_input else output)
        )

    blocks = model.trunk.blocks
    keep("mid.tokens_in", blocks[0], of_input=True)
    keep("mid.block_0_q", blocks[0].attn.qkv.q)
    keep("q_in", blocks[0].attn.qkv.q, of_input=True)
    keep("mid.block_0_attn_out", blocks[0].attn)
    keep("mid.block_0_mlp_out", blocks[0].mlp)
    for index, block in enumerate(blocks):
        keep(f"mid.block_{index}_out", block)
    prediction = model(io["in.x_0"], references, masks)

    q = blocks[0].attn.qkv.q
    seen["mid.block_0_q_tmoe"] = q.mixture(seen["q_in"])
    seen["mid.block_0_q_route_weight"] = q.route(seen.pop("q_in"))
    normed = model.trunk.norm(seen[f"mid.block_{len(blocks) - 1}_out"])
    seen["mid.tokens_normed"] = normed
    for name, tensor in seen.items():
        close(tensor, io[name], 2e-5)
    found = normed[:, -prediction.score_map[0].numel() :]
    head_in = io["mid.head_in"]  # sums of large terms: relative to the tensor's magnitude
    atol = 1e-5 + 1e-5 * head_in.abs().max().item()
    close(model.head.gate(found, normed[:, :1]), head_in, atol)
    for slot in range(3):
        tokens = model.embed_references(references[:, slot : slot + 1], masks[:, slot : slot + 1])
        close(tokens, io[f"mid.z_{slot}_tokens"], 2e-5)
    for frame in range(2):
        close(model.embed_search(io[f"in.x_{frame}"]), io[f"mid.x_{frame}_tokens"], 2e-5)


@pytest.mark.golden
@torch.no_grad()
def test_four_tracked_frames_carry_the_state_token():
    model, io = golden_model("model_default_params"), golden_tensors("tracking_default_io")
    state = None
    for frame in range(4):
        slots = io["in.memory_index"][frame].tolist()
        references = torch.stack([io[f"in.mem_{slot}"] for slot in slots], 1)
        masks = torch.stack([io[f"in.mem_mask_{slot}"] for slot in slots], 1)
        prediction = model(io[f"in.x_{frame}"], references, masks, state)
        close(prediction.score_map, io[f"out.{frame}.score_map"], 1e-5)
        close(prediction.boxes, io[f"out.{frame}.boxes"], 1e-5)
        close(prediction.state_token, io[f"out.{frame}.query_state"], 1e-5)
        state = prediction.state_token
    fresh = model(io["in.x_3"], references, masks, None)
    close(fresh.score_map, io["out.3_fresh_state.score_map"], 1e-5)
    assert (fresh.score_map - prediction.score_map).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("build", "total", "trainable"),
    [
        (spmtrack_b, 115_330_565, 29_243_909),
        (spmtrack_l, 379_582_469, 75_872_261),
        (spmtrack_g, 1_339_511_813, 204_018_693),
    ],
    ids=["B", "L", "G"],
)
def test_named_sizes_have_the_published_parameter_counts(build, total, trainable):
    with torch.device("meta"):
        model = build()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sum(sizes.values()) == total
    assert sum(sizes[name] for name in trainable_names(model)) == trainable


def test_a_fresh_network_is_finite_and_starts_at_the_frozen_map():
    from golden_model import golden_config

    model = build_spmtrack(golden_config("model_shared_expert_params"))
    linear = model.trunk.blocks[0].attn.proj
    x = torch.randn(1, 5, 64)
    assert_close(linear(x), torch.nn.functional.linear(x, linear.weight, linear.bias))
    assert all(torch.isfinite(p).all() for p in model.parameters())
