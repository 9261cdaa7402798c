"""TMoE (SPMTrack, section 3.2): frozen linear layers extended by a dense mixture of experts.

A router weighs all experts for every token; the experts share one down-projection. Routing is a
softmax and every expert runs: no token is dropped, no load is balanced.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F


class TMoELinear(nn.Module):
    """``y = W x + b + scaling * sum_e w_e(x) B_e A x`` with ``w(x) = softmax(R x)``.

    ``shared_expert`` adds ``scaling * B_s A x``; ``expert_compressors`` gives every expert an
    ``A_e`` of its own.
    """

    def __init__(
        self,
        linear: nn.Linear,
        rank: int,
        experts: int,
        scaling: float,
        shared_expert: bool = False,
        expert_compressors: bool = False,
    ) -> None:
        super().__init__()
        inputs, outputs = linear.in_features, linear.out_features
        self.scaling = scaling
        self.weight = linear.weight
        self.bias = linear.bias
        self.down = nn.Parameter(torch.empty(experts if expert_compressors else 1, rank, inputs))
        self.router = nn.Parameter(torch.empty(experts, inputs))
        self.experts = nn.Parameter(torch.zeros(outputs, experts, rank))
        self.shared = nn.Parameter(torch.zeros(outputs, rank)) if shared_expert else None
        for projection in (*self.down, self.router):
            nn.init.kaiming_uniform_(projection, a=math.sqrt(5))

    def route(self, x: Tensor) -> Tensor:
        """(B, N, in) to the weight of every expert, (B, N, E), summing to 1."""
        return F.linear(x, self.router).softmax(-1)  # (B, N, E)

    def mixture(self, x: Tensor) -> Tensor:
        """(B, N, in) to the sum of the experts, (B, N, out), without the frozen layer."""
        rank = self.experts.shape[-1]
        hidden = F.linear(x, self.down.flatten(0, 1))  # (B, N, rank) or (B, N, E * rank)
        by_expert = hidden.unflatten(-1, (-1, rank))  # (B, N, 1 or E, rank)
        weighted = self.route(x).unsqueeze(-1) * by_expert  # (B, N, E, rank)
        # the weighted sum over experts is one multiplication of inner width E * rank
        out = F.linear(weighted.flatten(-2), self.experts.flatten(1))  # (B, N, out)
        if self.shared is not None:
            out = out + F.linear(hidden, self.shared)
        return self.scaling * out

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self.mixture(x)  # (B, N, out)

    def adapter_names(self) -> list[str]:
        """Names of the parameters that fine-tuning trains; the others stay frozen."""
        return [name for name, _ in self.named_parameters() if name not in ("weight", "bias")]


class SplitQKV(nn.Module):
    """timm's packed qkv layer as three layers, each with its own router and experts, or none."""

    def __init__(self, q: nn.Module, k: nn.Module, v: nn.Module) -> None:
        super().__init__()
        self.q, self.k, self.v = q, k, v

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.q(x), self.k(x), self.v(x)), dim=-1)  # (B, N, 3 * C)


def adapt(
    trunk: VisionTransformer,
    rank: int,
    experts: int,
    scaling: float,
    shared_expert: bool = False,
    expert_compressors: bool = False,
    layers: Collection[str] = ("q", "k", "v", "proj", "fc1", "fc2"),
) -> None:
    """Extend the linear ``layers`` of every block, in place; q, k and v are split in any case."""

    def extend(name: str, linear: nn.Linear) -> nn.Module:
        if name not in layers:
            return linear
        return TMoELinear(linear, rank, experts, scaling, shared_expert, expert_compressors)

    for block in trunk.blocks:
        parts = zip("qkv", _thirds(block.attn.qkv), strict=True)
        block.attn.qkv = SplitQKV(*(extend(name, part) for name, part in parts))
        block.attn.proj = extend("proj", block.attn.proj)
        block.mlp.fc1 = extend("fc1", block.mlp.fc1)
        block.mlp.fc2 = extend("fc2", block.mlp.fc2)


def initialize_experts(model: nn.Module) -> None:
    """Truncated normal 0.02 for experts and down-projections, ``init_method: bert`` in SPMTrack.

    Routers stay as ``nn.Linear`` starts them, there as here.
    """
    for module in model.modules():
        if isinstance(module, TMoELinear):
            for projection in (module.down, module.experts, module.shared):
                if projection is not None:
                    nn.init.trunc_normal_(projection, std=0.02)


def adapter_names(model: nn.Module) -> set[str]:
    """Names of every adapter parameter in ``model``."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, TMoELinear)
        for name in module.adapter_names()
    }


def _thirds(packed: nn.Linear) -> list[nn.Linear]:
    """A packed qkv layer as three linear layers with their own copies of its rows."""
    width, inputs = packed.out_features // 3, packed.in_features
    parts = []
    for index in range(3):
        rows = slice(index * width, (index + 1) * width)
        part = nn.Linear(inputs, width, bias=packed.bias is not None, device=packed.weight.device)
        part.weight = nn.Parameter(packed.weight.detach()[rows].clone())
        if packed.bias is not None:
            part.bias = nn.Parameter(packed.bias.detach()[rows].clone())
        parts.append(part)
    return parts
