"""The inference layout against the golden fixtures, and against the plain network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from golden_model import golden_config, golden_model, golden_tensors

from spmtrack_core.config import ModelConfig
from spmtrack_core.model.fused import fuse
from spmtrack_core.model.spmtrack import build_spmtrack
from spmtrack_core.model.weights import PRECISIONS, in_precision, load_tensors

VARIANTS = ["default", "shared_expert", "route_compression", "swiglu_nonsquare"]


def tokens_of(model, io, names):
    """(1, R, Nz, C) tokens of the crops and masks of a fixture."""
    return torch.stack(
        [model.embed_references(io[f"in.{crop}"], io[f"in.{mask}"]) for crop, mask in names], 1
    )


@pytest.mark.golden
@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_two_frames_give_the_published_maps(variant, parity):
    fixture = f"model_{variant}"
    model, io = fuse(golden_model(f"{fixture}_params")), golden_tensors(f"{fixture}_io")
    references = tokens_of(model, io, [(f"z_{i}", f"z_{i}_feat_mask") for i in range(3)])
    for slot in range(3):
        parity.close(
            fixture,
            "embedded tokens, fused",
            references[:, slot],
            io[f"mid.z_{slot}_tokens"],
            atol=1e-5,
        )
    state = None
    for frame in range(2):
        prediction = model(io[f"in.x_{frame}"], references, state)
        parity.close(
            fixture,
            "score logits, fused",
            prediction.score_map,
            io[f"out.{frame}_score_map"],
            atol=1e-5,
        )
        parity.close(
            fixture, "boxes, fused", prediction.boxes, io[f"out.{frame}_boxes"], atol=1e-5
        )
        state = prediction.state_token


@pytest.mark.golden
@torch.inference_mode()
def test_four_tracked_frames_carry_the_state_token(parity):
    model, io = fuse(golden_model("model_default_params")), golden_tensors("tracking_default_io")
    state = None
    for frame in range(4):
        slots = io["in.memory_index"][frame].tolist()
        references = tokens_of(model, io, [(f"mem_{slot}", f"mem_mask_{slot}") for slot in slots])
        seen = model(io[f"in.x_{frame}"], references, state)
        state = seen.state_token
        for quantity, actual, name in (
            ("score logits", seen.score_map, "score_map"),
            ("boxes", seen.boxes, "boxes"),
            ("state token", state, "query_state"),
        ):
            parity.close(
                "tracking_default_io",
                f"{quantity}, fused",
                actual,
                io[f"out.{frame}.{name}"],
                atol=1e-5,
            )


SMALL = ModelConfig(
    trunk="explicit",
    embed_dim=32,
    depth=2,
    num_heads=2,
    mlp_hidden=64,
    patch_size=16,
    stem="conv",
    template_hw=(32, 48),
    search_hw=(80, 96),
    rank=4,
    alpha=4.0,
    experts=3,
)


def filled(**changes):
    """A small network; all of its parameters differ from their initial values."""
    torch.manual_seed(0)
    model = build_spmtrack(replace(SMALL, **changes)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += torch.randn_like(parameter) * (0.3 if parameter.ndim < 2 else 0.1)
    return model


def inputs(batch, config=SMALL):
    references = torch.randn(batch, 3, 3, *config.template_hw)
    masks = (torch.rand(batch, 3, *config.template_grid_hw) > 0.5).float()
    state = torch.randn(batch, 1, config.embed_dim)
    return torch.randn(batch, 3, *config.search_hw), references, masks, state


def run_fused(fused, search, references, masks, state):
    slots = [fused.encode_reference(references[:, i], masks[:, i])[0] for i in range(3)]
    assert slots[0].shape[1:] == fused.reference_shapes[0]
    return fused(search, torch.stack(slots, 1), state)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"adapted": ()},
        {"adapted": ("q", "v")},
        {"adapted": ("k", "fc2")},
        {"adapted": ("fc1", "proj"), "expert_compressors": True},
        {"adapted": ("q", "fc1"), "shared_expert": True},
        {"experts": 1},
        {"experts": 1, "shared_expert": True},
        {"experts": 1, "expert_compressors": True},
        {"experts": 2, "rs_scaling": True},
        {"ffn": "swiglu", "stem": "patch"},
        {"rank": 1, "depth": 1},
        {"separate_references": True},
        {"separate_references": True, "depth": 1, "ffn": "swiglu", "stem": "mobilenetv2"},
    ],
    ids=str,
)
@torch.inference_mode()
def test_fused_network_gives_the_same_numbers(changes, batch):
    model = filled(**changes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = inputs(batch)
    plain, fused = model(*given), run_fused(fuse(model), *given)
    for name, expected, actual in zip(plain._fields, plain, fused, strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-5, msg=name)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_fused_network_shares_no_memory_with_the_model():
    """The model may be trained further."""
    model = filled(adapted=("q", "fc1"))
    starts = [
        {t.untyped_storage().data_ptr() for t in m.state_dict().values() if t.numel()}
        for m in (model, fuse(model))
    ]
    assert not starts[0] & starts[1]


@torch.inference_mode()
def test_targets_of_a_batch_are_independent():
    fused, given = fuse(filled()), inputs(3)
    together = run_fused(fused, *given)
    for target in range(3):
        alone = run_fused(fused, *(tensor[target : target + 1] for tensor in given))
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_[target], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_first_frame_equals_a_state_token_of_zero():
    fused, (search, references, masks, state) = fuse(filled()), inputs(1)
    first = run_fused(fused, search, references, masks, None)
    zero = run_fused(fused, search, references, masks, torch.zeros_like(state))
    assert all(torch.equal(*pair) for pair in zip(first, zero, strict=True))


@torch.inference_mode()
def test_inputs_are_unchanged():
    fused, given = fuse(filled()), inputs(2)
    tokens = torch.randn(2, 3, 6, SMALL.embed_dim)
    kept = [given[0].clone(), tokens.clone(), given[3].clone()]
    fused(given[0], tokens, given[3])
    assert all(map(torch.equal, (given[0], tokens, given[3]), kept))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@torch.inference_mode()
def test_half_precision_is_as_accurate_as_autocast(precision):
    model, given = golden_model("e2e_params"), inputs(1, golden_config("e2e_params"))
    full, dtype = model(*given), PRECISIONS[precision]
    with torch.autocast("cpu", dtype):
        autocast = model(*given)
    stored = golden_model("e2e_params")
    load_tensors(stored, in_precision(stored.state_dict(), stored, dtype), "e2e_params")
    for fused in (fuse(model, dtype), fuse(stored)):
        assert fused.dtype is dtype
        seen = run_fused(fused, *given)
        assert all(tensor.dtype is torch.float32 for tensor in seen)
        for mine, theirs, exact in zip(seen, autocast, full, strict=True):
            off = [(half.float() - exact).abs().max().item() for half in (mine, theirs)]
            assert off[0] < 2 * off[1], "more than rounding"


def test_no_parameter_is_trainable_and_a_single_expert_is_folded():
    fused = fuse(filled(experts=1))
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    maps = fused.blocks[0].fc1
    assert not maps.columns and maps.weight.shape == (64, 32)
