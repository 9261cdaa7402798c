"""The inference layout: the numbers of ``SPMTrack`` from fewer and larger matrix multiplications.

Built once from a loaded network; that one stays the reference, and is the one to train.

- Linear layers with the same input are one: frozen weights, down-projections and routers together.
- A token's routing weights sum to one. So the first expert is added to the frozen weights, and the
  others become differences from the first: one expert less, and no shared expert.
- The remaining experts are one multiplication, added to that of the frozen weights, with the bias.
- Scaling, LayerScale and the sums of embeddings are folded into weights and tables.
- Reference frames enter as tokens, embedded once, when their frame arrives; separate ones as keys
  and values of every block.
- Tokens that the head reads come first, and the last block computes no others.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from timm.layers import GluMlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from spmtrack_core.model.folding import fold
from spmtrack_core.model.head import Head
from spmtrack_core.model.spmtrack import Prediction, SPMTrack
from spmtrack_core.model.tmoe import TMoELinear

CACHE_LINE = 64
"""Bytes."""


class FusedLinear(nn.Module):
    """One or several linear layers with the same input, each with experts or without.

    ``scale`` (out,) is LayerScale's factor on the output.
    """

    def __init__(
        self,
        layers: Sequence[nn.Linear | TMoELinear],
        dtype: torch.dtype,
        scale: Tensor | None = None,
    ) -> None:
        super().__init__()
        parts = [fold(part, scale) for part in layers]
        routed = [part for part in parts if part.experts.shape[1]]
        rows = [part.weight for part in parts]
        self.out_features = sum(map(len, rows))
        rows += [part.down for part in routed] + [part.router for part in routed]
        biases = [part.bias for part in parts]
        self.columns: list[slice] = []
        self.experts = nn.ParameterList()
        if routed:
            self.used_experts, self.rank = routed[0].experts.shape[1:]
            self.hidden_features, self.all_experts = len(routed[0].down), len(routed[0].router)
            start = 0
            for part in parts:
                columns = slice(start, start + len(part.weight))
                start = columns.stop
                if part.experts.shape[1]:
                    self.columns.append(columns)
                    wide = torch.cat((part.experts.flatten(1), part.bias.unsqueeze(1)), 1)
                    self.experts.append(_frozen(F.pad(wide, (0, -wide.shape[1] % 16)), dtype))
                    part.bias.zero_()
            # rows whose length is an odd number of cache lines spread over all sets of the cache
            line, length = CACHE_LINE // dtype.itemsize, sum(map(len, rows))
            padding = (-(-length // line) | 1) * line - length
            rows.append(rows[0].new_zeros(padding, rows[0].shape[1]))
        self.weight = _frozen(torch.cat(rows), dtype)
        bias = torch.cat(biases)
        bias = F.pad(bias, (0, len(self.weight) - len(bias)))
        self.bias = _frozen(bias, dtype) if bias.any() else None

    def forward(self, x: Tensor) -> Tensor:
        """(M, in) to (M, out), a view of rows that are longer."""
        out = F.linear(x, self.weight, self.bias)  # (M, out + T * hidden + T * E + padding)
        if not self.columns:
            return out
        if torch.jit.is_tracing() or torch.compiler.is_compiling():  # others cannot write to views
            return self.traced(out)
        mixed = self.mix(out[:, self.out_features :])  # (M, T, inner)
        for index, (columns, experts) in enumerate(zip(self.columns, self.experts, strict=True)):
            out[:, columns].addmm_(mixed[:, index], experts.t())
        return out[:, : self.out_features]  # (M, out)

    def traced(self, out: Tensor) -> Tensor:
        """As ``forward``, from its first multiplication (M, ...), without writing to a tensor."""
        layers, inner = len(self.columns), self.used_experts * self.rank
        ends = [self.out_features, layers * self.hidden_features, layers * self.all_experts]
        _, hidden, logits, _ = out.tensor_split([sum(ends[:n]) for n in (1, 2, 3)], 1)
        hidden = hidden.unflatten(1, (layers, self.hidden_features // self.rank, self.rank))
        weights = logits.unflatten(1, (layers, self.all_experts)).softmax(-1)  # (M, T, E)
        mixed = (weights[..., -self.used_experts :].unsqueeze(-1) * hidden).flatten(2)
        found, start = [], 0
        for index, (columns, experts) in enumerate(zip(self.columns, self.experts, strict=True)):
            found.append(out[:, start : columns.start])  # layers without experts
            mixture = F.linear(mixed[:, index], experts[:, :inner], experts[:, inner])
            found.append(out[:, columns] + mixture)
            start = columns.stop
        return torch.cat([*found, out[:, start : self.out_features]], 1)  # (M, out)

    def mix(self, hidden_and_logits: Tensor) -> Tensor:
        """Inputs of the experts of each of T layers, from the hidden units and routing logits.

        (M, T, inner): hidden units times routing weights, expert by expert, and a one for the
        bias; the padding is multiplied by zeros.
        """
        layers, used = len(self.columns), self.used_experts
        split = layers * self.hidden_features
        hidden = hidden_and_logits[:, :split]
        hidden = hidden.view(-1, layers, self.hidden_features // self.rank, self.rank)
        logits = hidden_and_logits[:, split : split + layers * self.all_experts]
        weights = logits.unflatten(1, (layers, -1)).softmax(-1, dtype=torch.float32)  # (M, T, E)
        weights = weights[..., -used:].unsqueeze(-1).to(hidden.dtype)  # (M, T, E', 1)
        mixed = hidden.new_empty(len(hidden), layers, self.experts[0].shape[1])  # (M, T, inner)
        inner = used * self.rank
        torch.mul(hidden, weights, out=mixed[..., :inner].unflatten(-1, (used, self.rank)))
        mixed[..., inner:].fill_(1)
        return mixed


class FusedBlock(nn.Module):
    """A block of the trunk; the ``last`` one projects only the queries that the head reads."""

    def __init__(self, block: Block, dtype: torch.dtype, last: bool) -> None:
        super().__init__()
        attention, mlp = block.attn, block.mlp
        scales = [getattr(scale, "gamma", None) for scale in (block.ls1, block.ls2)]
        layers = attention.qkv.q, attention.qkv.k, attention.qkv.v
        self.dtype = dtype
        self.heads = attention.num_heads
        self.norm1, self.norm2 = copy.deepcopy(block.norm1), copy.deepcopy(block.norm2)
        self.query = FusedLinear(layers[:1], dtype) if last else None
        self.qkv = FusedLinear(layers[1:] if last else layers, dtype)
        self.proj = FusedLinear([attention.proj], dtype, scales[0])
        self.fc1 = FusedLinear([mlp.fc1], dtype)
        self.act = copy.deepcopy(mlp.act)
        self.gated = isinstance(mlp, GluMlp)
        self.fc2 = FusedLinear([mlp.fc2], dtype, scales[1])

    def forward(
        self,
        tokens: Tensor,
        read: int,
        encoded: Tensor | None = None,
        pairs: list[Tensor] | None = None,
    ) -> Tensor:
        """(B, N, C), which may be overwritten, to the first ``read`` of them (B, read, C).

        They also attend to the ``encoded`` keys and values (2, B, heads, M, d). Their own keys and
        values (2, B, heads, N, d) are appended to ``pairs``.
        """
        batch, count, _ = tokens.shape
        x = self.norm1(tokens).to(self.dtype)  # (B, N, C)
        parts = self.qkv(x.flatten(0, 1)).unflatten(1, (-1, self.heads, x.shape[2] // self.heads))
        parts = parts.unflatten(0, (batch, count)).permute(2, 0, 3, 1, 4)  # (3, B, heads, N, d)
        if self.query is not None:
            query = self.query(x[:, :read].flatten(0, 1))  # (B * read, C)
            query = query.unflatten(1, (self.heads, -1)).unflatten(0, (batch, read))
            query = query.transpose(1, 2)  # (B, heads, read, d)
        else:
            query, parts = parts[0], parts[1:]
        if pairs is not None:
            pairs.append(parts)
        if encoded is not None:
            parts = torch.cat((encoded, parts), 3)  # (2, B, heads, M + N, d)
        x = F.scaled_dot_product_attention(query, *parts)  # (B, heads, read, d)
        x = x.transpose(1, 2).flatten(2)  # (B, read, C)
        tokens = tokens[:, :read]
        tokens = tokens + self.proj(x.flatten(0, 1)).unflatten(0, (batch, read))
        x = self.fc1(self.norm2(tokens).to(self.dtype).flatten(0, 1))  # (B * read, hidden)
        if self.gated:
            gate, x = x.chunk(2, -1)
            x = self.act(gate).mul_(x)  # (B * read, hidden / 2)
        else:
            x = activate(x, self.act)
        tokens += self.fc2(x).unflatten(0, (batch, read))
        return tokens  # (B, read, C)


class FusedHead(nn.Module):
    """``Head`` with the score and the box MLP side by side."""

    def __init__(self, head: Head, dtype: torch.dtype) -> None:
        super().__init__()
        self.grid_hw = head.grid_hw
        pairs = zip(head.score.layers, head.box.layers, strict=True)
        first, second, (score, box) = cast("list[tuple[nn.Linear, nn.Linear]]", list(pairs))
        self.first = FusedLinear(first, dtype)
        folded = [fold(layer) for layer in second]
        self.hidden = _frozen(torch.stack([part.weight.t() for part in folded]), dtype)
        self.hidden_bias = _frozen(torch.stack([part.bias[None] for part in folded]), dtype)
        self.score, self.box = FusedLinear([score], dtype), FusedLinear([box], dtype)
        rows, columns = self.grid_hw
        x = (torch.arange(columns, device=self.hidden.device) + 0.5) / columns
        y = (torch.arange(rows, device=self.hidden.device) + 0.5) / rows
        self.center = _frozen(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1), torch.float32)

    def forward(self, search_tokens: Tensor, state_token: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Head``."""
        batch, dtype = search_tokens.shape[0], self.hidden.dtype
        search_tokens = search_tokens * (search_tokens @ state_token.transpose(1, 2))  # (B, HW, C)
        x = activate(self.first(search_tokens.to(dtype).flatten(0, 1)))  # (B * HW, 2 * C)
        x = x.unflatten(1, (2, -1)).transpose(0, 1)  # (2, B * HW, C)
        score, box = activate(torch.baddbmm(self.hidden_bias, x, self.hidden))
        score_map = self.score(score).float().view(batch, *self.grid_hw)  # (B, H, W)
        sides = self.box(box).float().sigmoid().view(batch, *self.grid_hw, 4)  # (B, H, W, 4)
        boxes = torch.cat((self.center - sides[..., :2], self.center + sides[..., 2:]), -1)
        return score_map, boxes


class FusedSPMTrack(nn.Module):
    """The network of ``fuse``, for inference. Keeps nothing of a target."""

    def __init__(self, model: SPMTrack, dtype: torch.dtype) -> None:
        super().__init__()
        trunk = model.trunk
        rows, columns = model.template_grid_hw
        self.dtype = dtype
        self.template_grid_hw = model.template_grid_hw
        self.search_grid_hw = model.search_grid_hw
        self.patch_embed = copy.deepcopy(trunk.patch_embed)
        for module in self.patch_embed.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(dtype)
        self.patch_embed.to(memory_format=torch.channels_last)
        table = trunk.pos_embed.float()
        corner = table.unflatten(1, model.search_grid_hw)[:, :rows, :columns].flatten(1, 2)
        self.search_table = _frozen(table + model.token_types[2], torch.float32)  # (1, Nx, C)
        self.reference_tables = _frozen(corner + model.token_types[:2, None], torch.float32)
        self.query = _frozen((model.target_token + model.target_embed)[None], torch.float32)
        self.separate_references = model.separate_references
        self.heads = trunk.blocks[0].attn.num_heads
        # where reference frames are separate, the head reads all the other tokens
        last = None if model.separate_references else len(trunk.blocks) - 1
        self.blocks = nn.ModuleList(
            FusedBlock(block, dtype, index == last) for index, block in enumerate(trunk.blocks)
        )
        self.norm = copy.deepcopy(trunk.norm)
        self.head = FusedHead(model.head, dtype)
        self.eval().requires_grad_(False)

    @property
    def no_state(self) -> Tensor:
        """(1, 1, C) zeros: the target state token before the first frame."""
        return torch.zeros_like(self.query)

    @property
    def reference_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what ``encode_reference`` returns for one frame."""
        _, count, width = self.reference_tables.shape
        if not self.separate_references:
            return ((count, width),)
        return ((len(self.blocks), 2, self.heads, count, width // self.heads),)

    def encode_reference(self, references: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Reference frames (B, 3, h, w) and masks (B, Hz, Wz), encoded for ``forward``.

        As tokens (B, Nz, C) or, if they are separate, as keys and values of every block, (B, L, 2,
        heads, Nz, d).
        """
        tokens = self.embed_references(references, masks)
        if not self.separate_references:
            return (tokens,)
        pairs: list[Tensor] = []
        for block in self.blocks:
            tokens = block(tokens, tokens.shape[1], None, pairs)
        return (torch.stack(pairs).permute(2, 0, 1, 3, 4, 5).float(),)

    def embed_patches(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, N, C), before positions."""
        half = self.dtype is not torch.float32
        with torch.autocast(images.device.type, self.dtype if half else None, enabled=half):
            return self.patch_embed(images)

    def embed_references(self, references: Tensor, masks: Tensor) -> Tensor:
        """(B, 3, h, w) reference frames and (B, Hz, Wz) masks to (B, Nz, C) float32 tokens."""
        background, target = self.reference_tables  # (Nz, C)
        table = torch.where(masks.flatten(1).bool().unsqueeze(-1), target, background)
        return self.embed_patches(references) + table  # (B, Nz, C)

    def forward(
        self, search: Tensor, references: Tensor, state_token: Tensor | None = None
    ) -> Prediction:
        """Find the target of the reference frames in ``search``.

        ``search`` (B, 3, H, W) is a normalized image, ``references`` (B, R, ...) come from
        ``encode_reference``, ``state_token`` (B, 1, C) from the previous frame's prediction; it is
        None on the first.
        """
        query = self.query.expand(search.shape[0], 1, -1)  # (B, 1, C)
        if state_token is not None:
            query = query + state_token
        search_tokens = self.embed_patches(search) + self.search_table  # (B, Nx, C)
        read = 1 + search_tokens.shape[1]
        if self.separate_references:
            tokens = torch.cat((query, search_tokens), 1)  # (B, 1 + Nx, C)
            encoded = references.to(self.dtype).permute(2, 3, 0, 4, 1, 5, 6).flatten(4, 5)
            for block, pair in zip(self.blocks, encoded, strict=True):  # (2, B, heads, R * Nz, d)
                tokens = block(tokens, read, pair)
        else:
            # attention gives the same result for any order
            tokens = torch.cat((query, search_tokens, references.flatten(1, 2)), 1)
            for block in self.blocks[:-1]:
                tokens = block(tokens, tokens.shape[1])  # (B, 1 + Nx + R * Nz, C)
            tokens = self.blocks[-1](tokens, read)
        tokens = self.norm(tokens)  # (B, 1 + Nx, C)
        state = tokens[:, :1].clone()  # (B, 1, C)
        score_map, boxes = self.head(tokens[:, 1:], state)
        return Prediction(score_map, boxes, state)


def fuse(model: SPMTrack, dtype: torch.dtype | None = None) -> FusedSPMTrack:
    """The inference layout of ``model``, which it leaves as it is; no memory is shared.

    ``dtype`` is the compute dtype of matrix multiplications (None: that of the model's linear
    layers); everything around them is float32, as under autocast.
    """
    with torch.no_grad():
        return FusedSPMTrack(model, dtype or model.trunk.blocks[0].attn.proj.weight.dtype)


def activate(x: Tensor, act: nn.Module | None = None) -> Tensor:
    """``act(x)``, by default GELU, in the memory of ``x``: a copy would not fit into the cache."""
    if act is None or (isinstance(act, nn.GELU) and act.approximate == "none"):
        return torch.ops.aten.gelu_(x)
    return act(x)


def _frozen(tensor: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """A copy of ``tensor`` that is not trained."""
    return nn.Parameter(tensor.detach().to(dtype).contiguous(), requires_grad=False)
