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


QUANTITIES = {  # of the tensors inside, by how their names begin
    "z_": "embedded tokens",
    "x_": "embedded tokens",
    "tokens_in": "embedded tokens",
    "block_0_q_tmoe": "expert part of q",
    "block_0_q_route_weight": "routing weights of q",
    "block_0_q": "q projection",
    "block_0_attn_out": "attention outputs",
    "block_0_mlp_out": "FFN outputs",
    "block_": "block outputs",
    "tokens_normed": "normed tokens",
}


def references_of(io):
    references = torch.stack([io[f"in.z_{i}"] for i in range(3)], 1)
    return references, torch.stack([io[f"in.z_{i}_feat_mask"] for i in range(3)], 1)


@pytest.mark.golden
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_two_frames_give_the_published_maps(variant, parity):
    model, io = golden_model(f"model_{variant}_params"), golden_tensors(f"model_{variant}_io")
    references, masks = references_of(io)
    state = None
    for frame in range(2):
        prediction = model(io[f"in.x_{frame}"], references, masks, state)
        parity.close(
            f"model_{variant}",
            "score logits",
            prediction.score_map,
            io[f"out.{frame}_score_map"],
            atol=1e-5,
        )
        parity.close(
            f"model_{variant}", "boxes", prediction.boxes, io[f"out.{frame}_boxes"], atol=1e-5
        )
        state = prediction.state_token


@pytest.mark.golden
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_intermediate_tensors_are_the_published_ones(variant, parity):
    """Localizes a fault that the test above only detects."""
    model, io = golden_model(f"model_{variant}_params"), golden_tensors(f"model_{variant}_io")
    references, masks = references_of(io)
    seen: dict[str, torch.Tensor] = {}

    def keep(name, module, of_input=False):
        module.register_forward_hook(
            lambda _, inputs, output: seen.__setitem__(name, inputs[0] if of_input else output)
        )

    blocks = model.trunk.blocks
    keep("tokens_in", blocks[0], of_input=True)
    keep("block_0_q", blocks[0].attn.qkv.q)
    keep("q_in", blocks[0].attn.qkv.q, of_input=True)
    keep("block_0_attn_out", blocks[0].attn)
    keep("block_0_mlp_out", blocks[0].mlp)
    for index, block in enumerate(blocks):
        keep(f"block_{index}_out", block)
    prediction = model(io["in.x_0"], references, masks)

    q = blocks[0].attn.qkv.q
    seen["block_0_q_tmoe"] = q.mixture(seen["q_in"])
    seen["block_0_q_route_weight"] = q.route(seen.pop("q_in"))
    normed = model.trunk.norm(seen[f"block_{len(blocks) - 1}_out"])
    seen["tokens_normed"] = normed
    for slot in range(3):
        seen[f"z_{slot}_tokens"] = model.embed_references(
            references[:, slot : slot + 1], masks[:, slot : slot + 1]
        )
    for frame in range(2):
        seen[f"x_{frame}_tokens"] = model.embed_search(io[f"in.x_{frame}"])
    inside = {n.removeprefix("mid."): t for n, t in io.items() if n.startswith("mid.")}
    head_in = inside.pop("head_in")  # sums of large terms: relative to the tensor's magnitude
    for name, tensor in inside.items():
        quantity = next(QUANTITIES[start] for start in QUANTITIES if name.startswith(start))
        parity.close(f"model_{variant}", quantity, seen[name], tensor, atol=2e-5, about=name)
    found = normed[:, -prediction.score_map[0].numel() :]
    parity.close(
        f"model_{variant}",
        "head inputs",
        model.head.gate(found, normed[:, :1]),
        head_in,
        atol=1e-5 + 1e-5 * head_in.abs().max().item(),
    )


@pytest.mark.golden
@torch.no_grad()
def test_four_tracked_frames_carry_the_state_token(parity):
    model, io = golden_model("model_default_params"), golden_tensors("tracking_default_io")
    state = None

    def compare(quantity, actual, name):
        parity.close(
            "tracking_default_io", quantity, actual, io[f"out.{name}"], atol=1e-5, about=name
        )

    for frame in range(4):
        slots = io["in.memory_index"][frame].tolist()
        references = torch.stack([io[f"in.mem_{slot}"] for slot in slots], 1)
        masks = torch.stack([io[f"in.mem_mask_{slot}"] for slot in slots], 1)
        prediction = model(io[f"in.x_{frame}"], references, masks, state)
        compare("score logits", prediction.score_map, f"{frame}.score_map")
        compare("boxes", prediction.boxes, f"{frame}.boxes")
        compare("state token", prediction.state_token, f"{frame}.query_state")
        state = prediction.state_token
    fresh = model(io["in.x_3"], references, masks, None)
    compare("score logits", fresh.score_map, "3_fresh_state.score_map")
    compare("boxes", fresh.boxes, "3_fresh_state.boxes")
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


def test_a_new_network_is_finite_and_experts_add_nothing():
    from golden_model import golden_config

    model = build_spmtrack(golden_config("model_shared_expert_params"))
    linear = model.trunk.blocks[0].attn.proj
    x = torch.randn(1, 5, 64)
    assert_close(linear(x), torch.nn.functional.linear(x, linear.weight, linear.bias))
    assert all(torch.isfinite(p).all() for p in model.parameters())
