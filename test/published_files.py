"""The golden parameters as the files users bring: the authors' checkpoint and a DINOv2 trunk."""

from __future__ import annotations

import json

import torch
from golden_model import GOLDEN, golden_config, golden_tensors
from safetensors import safe_open


def published_part(variant: str) -> dict[str, torch.Tensor]:
    """The trained tensors of a golden model with its two scalars, as the authors store them."""
    name = f"model_{variant}_params"
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        trained = json.loads(file.metadata()["trainable"])
    tensors, config = golden_tensors(name), golden_config(name)
    part = {name: tensors[name] for name in trained}
    if config.alpha != 1:
        part["expert_alpha"] = torch.tensor(config.alpha)
        part["use_rsexpert"] = torch.tensor(config.rs_scaling)
    return part


def trunk_part(variant: str, naming: str = "dinov2") -> dict[str, torch.Tensor]:
    """The frozen tensors of a golden model in the naming of ``dinov2`` or ``timm``."""
    tensors = golden_tensors(f"model_{variant}_params")
    trunk = {}
    for name, tensor in tensors.items():
        if ".attn.qkv.q.linear." in name:
            packed = [tensors[name.replace(".q.linear.", f".{part}.linear.")] for part in "qkv"]
            trunk[name.replace(".q.linear.", ".")] = torch.cat(packed)
        elif ".qkv." not in name and ".tmoe." not in name and not name.startswith("head."):
            trunk[name.replace(".linear.", ".")] = tensor
    for name in ("track_query", "query_embed", "token_type_embed"):
        del trunk[name]
    width = trunk["norm.weight"].numel()
    trunk["cls_token"] = torch.full((1, 1, width), 7.0)  # neither may be used
    trunk["pos_embed"] = torch.cat((torch.full((1, 1, width), 9.0), trunk["pos_embed"]), 1)
    if naming == "dinov2":
        trunk["mask_token"] = torch.zeros(1, width)
        return trunk
    return {
        name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."): tensor
        for name, tensor in trunk.items()
    }


def crop_overrides(variant: str) -> list[str]:
    """What such files do not tell."""
    config = golden_config(f"model_{variant}_params")
    return [
        f"model.num_heads={config.num_heads}",
        f"model.template_hw={list(config.template_hw)}",
        f"model.search_hw={list(config.search_hw)}",
    ]


def published_shapes(
    width: int, depth: int, hidden: int, swiglu: bool = False
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' tensors: rank 64, 4 experts, as golden/README.md lists."""
    ffn = ("mlp.w12", 2 * hidden, width), ("mlp.w3", width, hidden)
    if not swiglu:
        ffn = ("mlp.fc1", hidden, width), ("mlp.fc2", width, hidden)
    shapes: dict[str, tuple[int, ...]] = {
        "track_query": (1, width),
        "query_embed": (1, width),
        "token_type_embed": (3, width),
    }
    for block in range(depth):
        for name, outputs, inputs in (
            *((f"attn.qkv.{part}", width, width) for part in "qkv"),
            ("attn.proj", width, width),
            *ffn,
        ):
            tmoe = f"blocks.{block}.{name}.tmoe"
            shapes[f"{tmoe}.compress_expert"] = (64, inputs)
            shapes[f"{tmoe}.expert_route.weight"] = (4, inputs)
            shapes |= {f"{tmoe}.routed_experts.{e}": (outputs, 64) for e in range(4)}
    for mlp, outputs in (("cls_mlp", 1), ("reg_mlp", 4)):
        for layer, rows in enumerate((width, width, outputs)):
            shapes[f"head.{mlp}.layers.{layer}.weight"] = (rows, width)
            shapes[f"head.{mlp}.layers.{layer}.bias"] = (rows,)
    return shapes
