"""Optimizers, their weight decay and learning rate, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spmtrack_core.training.config import TrainConfig


def decays(name: str, parameter: Tensor) -> bool:
    """Whether a parameter has weight decay: all but 1-D parameters, tokens and positions."""
    embedding = name.endswith(("target_token", "target_embed", "token_types", "pos_embed"))
    return parameter.ndim > 1 and not embedding


def adamw(trainable: Mapping[str, Tensor], config: TrainConfig, fused: bool) -> torch.optim.AdamW:
    """AdamW for named parameters, in two groups: with and without weight decay."""
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in trainable.items() if decays(name, p)]},
        {"params": [p for n, p in trainable.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def muon(trainable: Mapping[str, Tensor], config: TrainConfig, fused: bool) -> JointOptimizer:
    """Muon for the linear layers of the blocks, AdamW for all other trainable parameters.

    Muon (Jordan 2024) makes the update of a matrix orthogonal. With the scale of Liu et al. (2025,
    section 2.2) it uses AdamW's learning rate and weight decay. Raises ValueError for a PyTorch
    without Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"optimizer muon needs PyTorch 2.9 or newer; got {torch.__version__}")
    matrices = {
        name: p
        for name, p in trainable.items()
        if ".blocks." in name and p.ndim == 2 and decays(name, p)
    }
    first = torch.optim.Muon(
        list(matrices.values()),
        lr=config.lr,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    rest = {name: p for name, p in trainable.items() if name not in matrices}
    return JointOptimizer(first, adamw(rest, config, fused))


class JointOptimizer(torch.optim.Optimizer):
    """Optimizers of different parameters, used and saved as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, kept in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(kept)
        # loading replaces the groups of a part
        self.param_groups[:] = [group for part in self.parts for group in part.param_groups]


def learning_rate(config: TrainConfig, step: int, done: float | None = None) -> float:
    """Learning rate of step number ``step`` (from 0): linear warm-up, then a cosine.

    The cosine follows ``done`` (0..1), or the share of the steps after the warm-up.
    """
    if step < config.warmup_steps:
        share = (step + 1) / (config.warmup_steps + 1)
        return config.warmup_lr + (config.lr - config.warmup_lr) * share
    if done is None:
        done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * done)) / 2


class EMA:
    """Exponential moving average of the trainable parameters; without ``decay`` it is empty."""

    def __init__(self, trainable: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.trainable = trainable
        self.weights = {n: p.detach().clone() for n, p in trainable.items()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the parameters after step number ``step`` (from 1)."""
        if self.weights:
            decay = min(self.decay, step / (10 + step))  # low at first: drops the random start
            parameters = [p.detach() for p in self.trainable.values()]
            torch._foreach_lerp_(list(self.weights.values()), parameters, 1 - decay)
