"""Networks and tensors of the golden fixtures, shared by the tests that use them."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file

from spmtrack_core.config import ModelConfig
from spmtrack_core.model.published import from_published
from spmtrack_core.model.spmtrack import SPMTrack, build_spmtrack
from spmtrack_core.model.weights import load_tensors

GOLDEN = Path(__file__).parent / "golden"


def golden_tensors(name: str):
    return load_file(GOLDEN / f"{name}.safetensors")


def golden_config(name: str) -> ModelConfig:
    """The fixture's own settings in this project's words; grids there are (W, H)."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        stored = json.loads(file.metadata()["config"])
    swiglu = stored["ffn"] == "swiglu"
    width = stored["embed_dim"]
    return ModelConfig(
        trunk="explicit",
        embed_dim=width,
        depth=stored["depth"],
        num_heads=stored["num_heads"],
        mlp_hidden=-(-(4 * width * 2 // 3) // 8) * 8 if swiglu else 4 * width,
        ffn=stored["ffn"],
        patch_size=14,
        template_hw=tuple(14 * cells for cells in reversed(stored["template_feat_size"])),
        search_hw=tuple(14 * cells for cells in reversed(stored["search_feat_size"])),
        rank=stored["r"],
        alpha=stored["alpha"],
        experts=stored["expert_nums"],
        rs_scaling=stored["use_rsexpert"],
        shared_expert=stored["shared_expert"],
        expert_compressors=stored["route_compression"],
    )


def golden_model(name: str) -> SPMTrack:
    """The network of ``<name>.safetensors``, in evaluation mode."""
    model = build_spmtrack(golden_config(name))
    load_tensors(model, from_published(golden_tensors(name), model, name), name)
    return model.eval()
