"""The authors' checkpoints and the DINOv2 trunks under them, as tensors of ``SPMTrack``.

Published names of parameters exist in this file and nowhere else. The authors' files contain only
the trained tensors; the frozen ones come from the DINOv2 release, under its own names or timm's.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from torch import Tensor

from spmtrack_core.config import ModelConfig
from spmtrack_core.model.spmtrack import SPMTrack, trainable_names
from spmtrack_core.model.tensors import check_finite, check_tensors
from spmtrack_core.model.trunk import resample_positions

TRUNKS = {  # (width, hidden width of the FFN): name in timm, blocks
    (384, 1536): ("vit_small_patch14_dinov2", 12),
    (768, 3072): ("vit_base_patch14_dinov2", 12),
    (1024, 4096): ("vit_large_patch14_dinov2", 24),
    (1536, 4096): ("vit_giant_patch14_dinov2", 40),
}
HUB_FILE = "model.safetensors"

_BRING = "name the trunk's file with --trunk, or put both into one file with spmtrack convert"
_SCALARS = ("expert_alpha", "use_rsexpert")  # stored beside the tensors, where alpha is not 1
_NAMES = (  # own -> published, applied in order
    (r"^target_token$", "track_query"),
    (r"^target_embed$", "query_embed"),
    (r"^token_types$", "token_type_embed"),
    (r"^head\.score\.", "head.cls_mlp."),
    (r"^head\.box\.", "head.reg_mlp."),
    (r"^trunk\.", ""),
    (r"((?:\.qkv\.[qkv]|\.attn\.proj|\.mlp\.fc[12])\.)(weight|bias)$", r"\1linear.\2"),
    (r"\.router$", ".tmoe.expert_route.weight"),
    (r"\.shared$", ".tmoe.shared_expert"),
    (r"\.down$", ".tmoe.compress_expert"),
    (r"\.experts$", ".tmoe.routed_experts"),
)
_PACKED_FFN = ((r"\.mlp\.fc1\.", ".mlp.w12."), (r"\.mlp\.fc2\.", ".mlp.w3."))


def is_published(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file has the names of the authors' SPMTrack."""
    return "track_query" in tensors


def is_trunk(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file has the names of a ViT of DINOv2 or timm."""
    return {"pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= set(tensors)


def published_settings(tensors: Mapping[str, Tensor], source: object) -> dict[str, Any]:
    """Values of ``ModelConfig`` that follow from the tensors of an SPMTrack checkpoint.

    Crop sizes are the published 196 and 378 px, unless a position table gives the size of the
    (square) search grid. Heads have 64 channels each, as in DINOv2. Raises ``ValueError`` for
    missing or mis-shaped tensors that the settings follow from, and for missing blocks.
    """
    swiglu = "blocks.0.mlp.w12.tmoe.expert_route.weight" in tensors
    q, last = "blocks.0.attn.qkv.q.tmoe.", f"blocks.0.mlp.{'w3' if swiglu else 'fc2'}.tmoe."
    several = f"{q}compress_expert.0" in tensors
    compressor = f"{q}compress_expert{'.0' if several else ''}"
    axes = {
        "track_query": 2,
        compressor: 2,
        f"{q}expert_route.weight": 2,
        f"{last}expert_route.weight": 2,
    }
    if missing := [name for name in axes if name not in tensors]:
        raise ValueError(f"{source} is no SPMTrack checkpoint; missing: {', '.join(missing)}")
    axes |= {"patch_embed.proj.weight": 4, "pos_embed": 3}
    for name, count in axes.items():
        if name in tensors and (tensors[name].ndim != count or 0 in tensors[name].shape):
            raise ValueError(f"{source}: mis-shaped: {name} {tuple(tensors[name].shape)}")
    width, hidden = tensors["track_query"].shape[1], tensors[f"{last}expert_route.weight"].shape[1]
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))}
    if gaps := sorted(set(range(len(blocks))) - blocks):
        raise ValueError(f"{source} has {len(blocks)} blocks; missing: blocks.{gaps[0]}")
    trunk, depth = TRUNKS.get((width, hidden), ("explicit", len(blocks)))
    if len(blocks) != depth:
        raise ValueError(f"{source} has {len(blocks)} of the {depth} blocks of {trunk}")
    settings: dict[str, Any] = {
        "trunk": trunk,
        "embed_dim": width,
        "depth": depth,
        "num_heads": max(1, width // 64),
        "mlp_hidden": hidden,
        "ffn": "swiglu" if swiglu else "mlp",
        "rank": tensors[compressor].shape[0],
        "experts": tensors[f"{q}expert_route.weight"].shape[0],
        "alpha": _scalar(tensors, "expert_alpha", 1.0, source),
        "rs_scaling": _scalar(tensors, "use_rsexpert", 0.0, source) != 0,
        "shared_expert": f"{q}shared_expert" in tensors,
        "expert_compressors": several,
    }
    if "patch_embed.proj.weight" in tensors:
        settings["patch_size"] = tensors["patch_embed.proj.weight"].shape[-1]
    if "pos_embed" in tensors:
        side = math.isqrt(tensors["pos_embed"].shape[1])
        if side * side == tensors["pos_embed"].shape[1]:
            settings["search_hw"] = [side * settings.get("patch_size", 14)] * 2
    return settings


def _scalar(tensors: Mapping[str, Tensor], name: str, default: float, source: object) -> float:
    tensor = tensors.get(name, torch.tensor(default))
    if tensor.numel() != 1 or tensor.is_complex() or not math.isfinite(tensor.item()):
        raise ValueError(f"{source}: {name} must be one finite number; got {tensor.tolist()}")
    return float(tensor)


def check_published(
    tensors: Mapping[str, Tensor], model: SPMTrack, source: object
) -> dict[str, dict[str, tuple[int, ...]]]:
    """By tensor of ``model``, the authors' names and shapes of what makes it up.

    Raises ``ValueError`` as ``from_published`` does, without reading the numbers.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if "norm.weight" not in tensors:
        trained = trainable_names(model)
        shapes = {name: shape for name, shape in shapes.items() if name in trained}
    packed = any(".mlp.w12." in name for name in tensors)
    parts = {name: _parts(name, shape, packed) for name, shape in shapes.items()}
    wanted = {name: shape for part in parts.values() for name, shape in part.items()}
    check_tensors(wanted, tensors, source, _SCALARS)
    return parts


def from_published(
    tensors: Mapping[str, Tensor], model: SPMTrack, source: object = "the checkpoint"
) -> dict[str, Tensor]:
    """Tensors under the authors' names as tensors of ``model``: all, or its trainable ones.

    The published experts, one tensor each, are stacked: ``experts`` (out, E, r), ``down``
    (1 or E, r, in). Raises ``ValueError`` that lists, in the authors' names, the tensors that are
    missing, unexpected, mis-shaped or not finite.
    """
    parts = check_published(tensors, model, source)
    check_finite({name: tensors[name] for part in parts.values() for name in part}, source)
    own = {}
    for name, part in parts.items():
        found = [tensors[each] for each in part]
        if name.endswith(".experts"):
            own[name] = torch.stack(found, dim=1)  # (out, E, r)
        elif name.endswith(".down"):
            own[name] = torch.stack(found)  # (1 or E, r, in)
        else:
            (own[name],) = found
    return own


def _parts(name: str, shape: tuple[int, ...], packed: bool) -> dict[str, tuple[int, ...]]:
    """The published names and shapes that make up one tensor of ``SPMTrack``."""
    theirs = name
    for pattern, replacement in _NAMES + (_PACKED_FFN if packed else ()):
        theirs = re.sub(pattern, replacement, theirs)
    if name.endswith(".experts"):
        outputs, experts, rank = shape
        return {f"{theirs}.{expert}": (outputs, rank) for expert in range(experts)}
    if name.endswith(".down"):
        if shape[0] == 1:
            return {theirs: shape[1:]}
        return {f"{theirs}.{expert}": shape[1:] for expert in range(shape[0])}
    return {theirs: shape}


def from_trunk(
    tensors: Mapping[str, Tensor], model: SPMTrack, config: ModelConfig, source: object = "a trunk"
) -> dict[str, Tensor]:
    """The frozen tensors of ``model`` from a ViT of DINOv2 or timm, in either naming.

    q, k and v are thirds of the packed layer; the position table loses its row for the class token
    and is resampled to the search grid. Raises ``ValueError`` that lists, in the file's names,
    what is missing, unexpected, mis-shaped and not finite.
    """
    trained = trainable_names(model)
    frozen = {n: tuple(t.shape) for n, t in model.state_dict().items() if n not in trained}
    packed = "blocks.0.mlp.w12.weight" in tensors
    theirs, wanted = {}, {}
    for name, shape in frozen.items():
        file_name = name.removeprefix("trunk.")
        for pattern, replacement in _PACKED_FFN if packed else ():
            file_name = re.sub(pattern, replacement, file_name)
        if third := re.search(r"\.qkv\.([qkv])\.", file_name):
            file_name = file_name.replace(third[0], ".qkv.")
            shape = (3 * shape[0], *shape[1:])
        theirs[name], wanted[file_name] = file_name, shape
    if "pos_embed" in tensors:  # of any grid: it is resampled
        rows = tensors["pos_embed"].shape[1:2]
        wanted["pos_embed"] = (1, *rows, wanted["pos_embed"][-1])
    # parts of a ViT that SPMTrack does not use
    check_tensors(wanted, tensors, source, ("cls_token", "mask_token"))
    check_finite({name: tensors[name] for name in wanted}, source)
    own = {}
    for name, file_name in theirs.items():
        tensor = tensors[file_name]
        if third := re.search(r"\.qkv\.([qkv])\.", name):
            tensor = tensor.chunk(3)["qkv".index(third[1])]
        own[name] = tensor
    own["trunk.pos_embed"] = _positions(own["trunk.pos_embed"], config, source)
    return own


def _positions(table: Tensor, config: ModelConfig, source: object) -> Tensor:
    rows = table.shape[1]
    if rows < 4:
        raise ValueError(f"{source} has a position table of {rows} rows: not a grid")
    side = math.isqrt(rows)
    if side * side != rows:
        table, side = table[:, 1:], math.isqrt(rows - 1)
        if side * side != rows - 1:
            raise ValueError(f"{source} has a position table of {rows} rows: not a square grid")
    return resample_positions(table, (side, side), config.search_grid_hw, config.swapped_positions)


def download_trunk(name: str) -> Path:
    """The weights of timm's pretrained model ``name``: from the hub's cache, or from the hub.

    Raises ``FileNotFoundError``, which names the file to bring, if the hub cannot be reached, and
    ``ValueError`` for a model without pretrained weights.
    """
    known = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    repository = known and known.hf_hub_id
    if not repository:
        raise ValueError(f"timm has no pretrained weights of {name!r}: {_BRING}")
    cached = huggingface_hub.try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # fails at once if the hub cannot be reached; the download itself tries for half a minute
        huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(repository, HUB_FILE), timeout=10
        )
        return Path(huggingface_hub.hf_hub_download(repository, HUB_FILE))
    except Exception as error:  # the errors differ between versions of the hub's client
        reason = textwrap.shorten(str(error).split("(Request")[0] or type(error).__name__, 100)
        raise FileNotFoundError(
            f"the trunk {name} is not in the cache and the hub cannot be reached ({reason}): "
            f"bring {HUB_FILE} of {repository} on huggingface.co, or "
            f"{known.url.rsplit('/', 1)[-1] or 'its DINOv2 file'} of the DINOv2 release, and "
            f"{_BRING}"
        ) from None
