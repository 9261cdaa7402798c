"""What the optimiser needs to know: which parameters decay, how fast they learn, their mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spmtrack_core.training.config import TrainConfig


def decays(name: str, parameter: Tensor) -> bool:
    """Weight decay is for matrices: not for 1-D parameters, tokens, token types and positions."""
    embedding = name.endswith(("target_token", "target_embed", "token_types", "pos_embed"))
    return parameter.ndim > 1 and not embedding


def adamw(learning: Mapping[str, Tensor], config: TrainConfig, fused: bool) -> torch.optim.AdamW:
    """AdamW over named parameters, in two groups: with weight decay and without."""
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in learning.items() if decays(name, p)]},
        {"params": [p for n, p in learning.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def muon(learning: Mapping[str, Tensor], config: TrainConfig, fused: bool) -> Together:
    """Muon over the linear maps of the blocks, AdamW over all else that learns.

    Muon (Jordan 2024) makes the step of a whole matrix orthogonal; with the scale of Liu et al.
    (2025, section 2.2) it takes AdamW's learning rate and weight decay. Raises ValueError where
    PyTorch does not have it.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"optimizer muon needs PyTorch 2.9 or newer, this is {torch.__version__}")
    maps = {n: p for n, p in learning.items() if ".blocks." in n and p.ndim == 2 and decays(n, p)}
    first = torch.optim.Muon(
        list(maps.values()), lr=config.lr, weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    rest = {name: p for name, p in learning.items() if name not in maps}
    return Together(first, adamw(rest, config, fused))


class Together(torch.optim.Optimizer):
    """Optimisers of different parameters that step, are saved and are clipped as one."""

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
        # loading replaces the groups of a part, and ours are to be the same ones
        self.param_groups[:] = [group for part in self.parts for group in part.param_groups]


def learning_rate(config: TrainConfig, step: int, done: float | None = None) -> float:
    """Linear warm-up, then a cosine over the rest of the run (``done``: its share, 0..1)."""
    if step < config.warmup_steps:
        share = (step + 1) / (config.warmup_steps + 1)
        return config.warmup_lr + (config.lr - config.warmup_lr) * share
    if done is None:
        done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * done)) / 2


class Mean:
    """Running mean of the learning parameters, which is often better than the last of them."""

    def __init__(self, learning: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.learning = learning
        self.values = {n: p.detach().clone() for n, p in learning.items()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimiser step number ``step`` (from 1)."""
        if self.values:
            decay = min(self.decay, step / (10 + step))  # the random start is soon forgotten
            torch._foreach_lerp_(
                list(self.values.values()), [p.detach() for p in self.learning.values()], 1 - decay
            )
