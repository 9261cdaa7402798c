"""The head: a score and a box for every cell of the search region."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Three linear layers with GELU between; hidden width C."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, outputs)]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.gelu(layer(x))
        return self.layers[-1](x)


class Head(nn.Module):
    """Search tokens, weighted by their similarity to the state token, to score and box maps.

    Input: search tokens (B, H * W, C) and target state token (B, 1, C), both after the final norm.
    Output: score map (B, H, W), logits; box map (B, H, W, 4), normalized xyxy, which may leave
    [0, 1].
    """

    def __init__(self, width: int, grid_hw: tuple[int, int]) -> None:
        super().__init__()
        self.grid_hw = grid_hw
        self.score = MLP(width, 1)
        self.box = MLP(width, 4)

    def gate(self, search_tokens: Tensor, state_token: Tensor) -> Tensor:
        """Each search token times its dot product with the state token, (B, H * W, C)."""
        return search_tokens * (search_tokens @ state_token.transpose(1, 2))  # (B, HW, C)

    def forward(self, search_tokens: Tensor, state_token: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = self.grid_hw
        gated = self.gate(search_tokens, state_token)  # (B, HW, C)
        score_map = self.score(gated).unflatten(1, self.grid_hw).squeeze(-1)  # (B, H, W)
        sides = self.box(gated).float().sigmoid().unflatten(1, self.grid_hw)  # (B, H, W, 4)
        x = (torch.arange(columns, device=gated.device) + 0.5) / columns
        y = (torch.arange(rows, device=gated.device) + 0.5) / rows
        center = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (H, W, 2)
        boxes = torch.cat((center - sides[..., :2], center + sides[..., 2:]), -1)  # (B, H, W, 4)
        return score_map, boxes
