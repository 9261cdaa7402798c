"""Optimizers, their weight decay and learning rate, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from spmtrack_core.training.config import TrainConfig


def decays(name: str, parameter: Tensor) -> bool:
    """Whether a parameter has weight decay: all but 1-D parameters, tokens and positions."""
    embedding = name.endswith(("target_token", "target_embed", "token_types", "pos_embed"))
    return parameter.ndim > 1 and not embedding


class AdamW(torch.optim.AdamW):
    """AdamW with the kernel of this device, also for a state that was saved on another one."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pairs = zip(state_dict["param_groups"], self.param_groups, strict=True)
        groups = [stored | {"fused": ours["fused"]} for stored, ours in pairs]
        super().load_state_dict(state_dict | {"param_groups": groups})


def adamw(trainable: Mapping[str, Tensor], config: TrainConfig, device: torch.device) -> AdamW:
    """AdamW for named parameters: with weight decay, without it, and those of a pretrained stem.

    The stem has ``stem_lr_factor`` times the learning rate, and no decay towards zero.
    """
    # the fused kernel takes scaled gradients, which cannot be clipped
    fused = device.type == "cuda" and config.precision != "float16"
    stem = {n: p for n, p in trainable.items() if ".patch_embed.features." in n}
    rest = {n: p for n, p in trainable.items() if n not in stem}
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in rest.items() if decays(n, p)]},
        {"params": [p for n, p in rest.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    if stem:  # a pretrained one is not pulled towards zero
        groups.append(
            {
                "params": list(stem.values()),
                "weight_decay": 0.0,
                "lr_factor": config.stem_lr_factor,
            }
        )
    return AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def muon(
    trainable: Mapping[str, Tensor], config: TrainConfig, device: torch.device
) -> JointOptimizer:
    """Muon for the linear layers of the blocks, AdamW for all other trainable parameters."""
    matrices = {
        name: p
        for name, p in trainable.items()
        if ".blocks." in name and p.ndim == 2 and decays(name, p)
    }
    first = Muon(matrices.values(), config.lr, config.weight_decay)
    rest = {name: p for name, p in trainable.items() if name not in matrices}
    return JointOptimizer(first, adamw(rest, config, device))


class Muon(torch.optim.Optimizer):
    """Makes the update of a matrix orthogonal (Jordan 2024), with Nesterov momentum.

    With the scale of Liu et al. (2025, section 2.2) it uses AdamW's learning rate and weight
    decay. Unlike ``torch.optim.Muon`` it computes in float32 and for all matrices of one shape at
    once: bfloat16 is many times slower on a CPU without instructions for it.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(list(params), defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            momenta = [
                self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in parameters
            ]
            if not parameters:
                continue
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            updates = torch._foreach_lerp(gradients, momenta, group["momentum"])
            by_shape: dict[torch.Size, list[int]] = {}
            for index, parameter in enumerate(parameters):
                by_shape.setdefault(parameter.shape, []).append(index)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for (rows, columns), chosen in by_shape.items():
                size = 0.2 * math.sqrt(max(rows, columns)) * group["lr"]
                steps = orthogonalize(torch.stack([updates[index] for index in chosen]))
                torch._foreach_add_(
                    [parameters[index] for index in chosen], list(steps.unbind()), alpha=-size
                )


def orthogonalize(matrices: Tensor) -> Tensor:
    """(N, H, W) matrices with all singular values near 1: five Newton-Schulz iterations."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.transpose(1, 2) if tall else matrices).float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315) @ x
    return x.transpose(1, 2) if tall else x


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
        first = config.warmup_steps
        if config.decay_steps is not None:
            first = max(first, config.steps - config.decay_steps)
        done = max(0, step - first) / max(1, config.steps - first)
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
