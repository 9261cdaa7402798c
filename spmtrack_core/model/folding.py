"""A linear layer with experts, folded: fewer numbers to multiply, the same result.

A token's routing weights sum to one. So the first expert is added to the frozen weights, and the
others become differences from the first: one expert less, and no shared expert.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from spmtrack_core.model.tmoe import TMoELinear


class Folded(NamedTuple):
    """A linear layer in float32, with the common part of its experts in the frozen weights."""

    weight: Tensor
    """(out, in)"""
    bias: Tensor
    """(out,)"""
    down: Tensor
    """(hidden, in): rank rows, or rank rows for each expert."""
    router: Tensor
    """(E, in)"""
    experts: Tensor
    """(out, E', rank) for the last E' experts: E - 1, all or none."""


def fold(part: nn.Linear | TMoELinear, scale: Tensor | None = None) -> Folded:
    """``part`` times ``scale``, equal but for rounding."""
    weight = part.weight.detach().float()
    bias = weight.new_zeros(len(weight)) if part.bias is None else part.bias.detach().float()
    down = router = weight[:0]
    experts = weight.new_zeros(len(weight), 0, 1)
    if isinstance(part, TMoELinear):
        down, router = part.down.detach().float(), part.router.detach().float()
        experts = part.scaling * part.experts.detach().float()  # (out, E, rank)
        if len(down) == 1:
            always = experts[:, 0]
            experts = experts[:, 1:] - experts[:, :1]
            if part.shared is not None:
                always = always + part.scaling * part.shared.detach().float()
            weight = torch.addmm(weight, always, down[0])
        down = down.flatten(0, 1)
    if scale is not None:
        weight, bias = weight * scale[:, None], bias * scale
        experts = experts * scale[:, None, None]
    return Folded(weight, bias.clone(), down, router, experts)
