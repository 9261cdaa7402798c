"""The network of a run: initial weights, trainable parameters, average for validation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from spmtrack_core.files import user_path
from spmtrack_core.model.mobilenet import MobileNetStem, read_mobilenet
from spmtrack_core.model.published import download_trunk
from spmtrack_core.model.spmtrack import SPMTrack, build_spmtrack, trainable_names
from spmtrack_core.model.tmoe import initialize_experts
from spmtrack_core.model.trunk import resample_positions
from spmtrack_core.model.weights import PRECISIONS, in_precision, load_checkpoint, read_trunk
from spmtrack_core.tracking.loading import find_weights
from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.optim import EMA


def initial_model(config: TrainConfig, resume: bool) -> tuple[SPMTrack, dict[str, str]]:
    """The network before the first step, and the provenance of its weights, empty for random ones.

    With ``resume``, only frozen tensors are read: the run's checkpoint has the trainable ones. The
    linear layers of a frozen trunk are rounded to the precision of the run, as the weights of the
    run have them; autocast would round them at every step.
    """
    pretrained = config.trunk == "pretrained"
    trunk = None if config.trunk is None or pretrained else user_path(config.trunk)
    if config.start_from is not None and not (resume and config.trained == "all"):
        loaded = load_checkpoint(find_weights(config.start_from), trunk)
        theirs, ours = loaded.model_config, config.model
        may_differ: dict[str, Any] = {
            "template_hw": ours.template_hw,
            "search_hw": ours.search_hw,
            "drop_path": 0.0,
        }
        if replace(theirs, **may_differ) != replace(ours, drop_path=0.0):
            raise ValueError(
                f"start_from {config.start_from}: its network is {theirs}, not the {ours} of this "
                "run"
            )
        weights = loaded.model.state_dict()
        weights["trunk.pos_embed"] = resample_positions(
            weights["trunk.pos_embed"],
            theirs.search_grid_hw,
            ours.search_grid_hw,
            ours.swapped_positions,
        )
        # a new network: the loaded one is mapped from the file and has another stochastic depth
        model = build_spmtrack(ours)
        model.load_state_dict(weights)
        if config.trained == "adapters":
            names = trainable_names(model)
            frozen = {n: t for n, t in model.state_dict().items() if n not in names}
            frozen = in_precision(frozen, model, PRECISIONS[config.precision])
            model.load_state_dict(frozen, strict=False, assign=True)
        return model, dict(loaded.provenance)
    model = build_spmtrack(config.model)
    if config.expert_init == "normal":
        initialize_experts(model)
    if config.stem is not None and not resume:
        stem = read_mobilenet(user_path(config.stem))
        model.trunk.patch_embed.features.load_state_dict(stem)
    path = download_trunk(config.model.trunk) if pretrained else trunk
    if path is not None:
        frozen = read_trunk(model, config.model, path)
        if config.trained == "adapters":
            frozen = in_precision(frozen, model, PRECISIONS[config.precision])
        model.load_state_dict(frozen, strict=False, assign=True)
    return model, {}


def prepare(model: SPMTrack, config: TrainConfig, device: torch.device) -> SPMTrack:
    """Set the trainable parameters of ``model`` and how its blocks are computed in training."""
    names = trainable_names(model) if config.trained == "adapters" else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(names is None or name in names)
    model.activation_checkpointing = config.activation_checkpointing
    if device.type == "cpu" and config.precision == "bfloat16":
        for block in model.trunk.blocks:  # the CPU's fused kernel is 4 times slower backwards
            block.attn.fused_attn = False
    return model


def stem_of(model: SPMTrack) -> MobileNetStem | None:
    """The stem of ``model`` that can be frozen for some steps, if it has one."""
    stem = model.trunk.patch_embed
    return stem if isinstance(stem, MobileNetStem) else None


def averaged(model: SPMTrack, ema: EMA, config: TrainConfig) -> SPMTrack:
    """The network with the averaged weights; it shares memory with ``model`` and ``ema``."""
    with torch.device("meta"):
        copy = build_spmtrack(config.model)
    copy.load_state_dict({**model.state_dict(), **ema.weights}, assign=True)
    return copy
