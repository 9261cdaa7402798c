"""The layout of the published code, as what the speed of the inference layout is measured against.

q, k and v are three products, each with a router, a down-projection and experts of its own; the
experts run one after the other; reference frames are embedded anew for each frame. The numbers
are those of ``SPMTrack``.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional as F

from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.model.tmoe import TMoELinear


class LoopedTMoE(nn.Module):
    """A ``TMoELinear`` expert by expert."""

    def __init__(self, linear: TMoELinear) -> None:
        super().__init__()
        self.scaling, self.shared = linear.scaling, linear.shared
        self.weight, self.bias = linear.weight, linear.bias
        self.router, self.down = linear.router, linear.down
        count = linear.experts.shape[1]
        self.experts = [linear.experts[:, index].contiguous() for index in range(count)]

    def forward(self, x: Tensor) -> Tensor:
        weights = F.linear(x, self.router).softmax(-1)  # (B, N, E)
        hidden = [F.linear(x, down) for down in self.down]  # one for all, or one each
        out = F.linear(x, self.weight, self.bias)  # (B, N, out)
        mixture = 0.0 if self.shared is None else F.linear(hidden[0], self.shared)
        for index, expert in enumerate(self.experts):
            output = F.linear(hidden[index if len(hidden) > 1 else 0], expert)
            mixture = mixture + weights[..., index, None] * output
        return out + self.scaling * mixture


def published_layout(model: SPMTrack) -> SPMTrack:
    """A copy of ``model`` in the published layout, for inference on the CPU."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, TMoELinear):
                setattr(module, name, LoopedTMoE(child))
    return model
