"""SPMTrack (CVPR 2025): reference frames, a target state token and the search region in one ViT.

The network is a pure function: the tracker keeps everything that belongs to a target.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from spmtrack_core.config import ModelConfig
from spmtrack_core.model.head import Head
from spmtrack_core.model.tmoe import adapt, adapter_names
from spmtrack_core.model.trunk import build_trunk, initialize_attention


class Prediction(NamedTuple):
    """The output of the network for one search region of each of B targets."""

    score_map: Tensor
    """(B, H, W) logit of every search cell."""
    boxes: Tensor
    """(B, H, W, 4) normalized xyxy of every search cell; may lie outside [0, 1]."""
    state_token: Tensor
    """(B, 1, C) target state token, an input of the next frame."""


class SPMTrack(nn.Module):
    """Token order: target state token, reference frames, search region; full self-attention.

    With ``separate_references`` each reference frame attends to itself alone, and the other tokens
    attend to all: the keys and values of a reference frame are the same for every search.
    """

    def __init__(
        self,
        trunk: VisionTransformer,
        template_grid_hw: tuple[int, int],
        search_grid_hw: tuple[int, int],
        separate_references: bool = False,
    ) -> None:
        super().__init__()
        width = trunk.embed_dim
        self.template_grid_hw = template_grid_hw
        self.search_grid_hw = search_grid_hw
        self.separate_references = separate_references
        self.trunk = trunk
        self.head = Head(width, search_grid_hw)
        self.target_token = nn.Parameter(torch.empty(1, width))
        self.target_embed = nn.Parameter(torch.empty(1, width))
        self.token_types = nn.Parameter(torch.empty(3, width))
        """Rows: background of a reference frame, target of a reference frame, search region."""
        self.activation_checkpointing = False
        """While training, compute blocks again in the backward pass instead of keeping them."""
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """Truncated normal 0.02 for the three embeddings and the head.

        The published code leaves the first two uninitialized, and its losses are NaN at times.
        """
        for embedding in (self.target_token, self.target_embed, self.token_types):
            nn.init.trunc_normal_(embedding, std=0.02)
        for module in self.head.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def embed_search(self, search: Tensor) -> Tensor:
        """(B, 3, H, W) search regions to (B, N, C) tokens."""
        return self.trunk.patch_embed(search) + self.trunk.pos_embed + self.token_types[2]

    def embed_references(self, references: Tensor, masks: Tensor) -> Tensor:
        """(B, R, 3, h, w) reference frames and (B, R, Hz, Wz) masks to (B, R * N, C) tokens."""
        rows, columns = self.template_grid_hw
        table = self.trunk.pos_embed.unflatten(1, self.search_grid_hw)  # (1, Hx, Wx, C)
        corner = table[:, :rows, :columns].flatten(1, 2)  # (1, Nz, C)
        tokens = self.trunk.patch_embed(references.flatten(0, 1)) + corner  # (B * R, Nz, C)
        on_target = masks.flatten(0, 1).flatten(1).bool().unsqueeze(-1)  # (B * R, Nz, 1)
        tokens = tokens + torch.where(on_target, self.token_types[1], self.token_types[0])
        return tokens.unflatten(0, references.shape[:2]).flatten(1, 2)  # (B, R * Nz, C)

    def encode_references(self, references: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """What ``locate`` needs of reference frames, the same for every search.

        ``references`` (B, R, 3, h, w) are normalized images, ``masks`` (B, R, Hz, Wz) is 1 on
        cells that the target covers. Returns their tokens (B, R * Nz, C) or, with
        ``separate_references``, the keys and values of each block, (2, B, heads, R * Nz, d).
        """
        tokens = self.embed_references(references, masks)  # (B, R * Nz, C)
        if not self.separate_references:
            return (tokens,)
        batch, count = references.shape[:2]
        tokens = tokens.unflatten(1, (count, -1)).flatten(0, 1)  # (B * R, Nz, C)
        kept = []
        for block in self.trunk.blocks:
            query, *pair = queries_keys_values(block, tokens)
            joined = torch.stack(pair).unflatten(1, (batch, count))  # (2, B, R, heads, Nz, d)
            kept.append(joined.transpose(2, 3).flatten(3, 4))  # (2, B, heads, R * Nz, d)
            if len(kept) < len(self.trunk.blocks):
                tokens = finish_block(block, tokens, query, *pair)
        return tuple(kept)

    def locate(
        self, search: Tensor, encoded: tuple[Tensor, ...], state_token: Tensor | None = None
    ) -> Prediction:
        """Find the target of the reference frames ``encoded`` in ``search`` (B, 3, H, W).

        ``state_token`` (B, 1, C) comes from the previous frame's prediction and is None on the
        first.
        """
        query = (self.target_token + self.target_embed).expand(search.shape[0], 1, -1)  # (B, 1, C)
        if state_token is not None:
            query = query + state_token
        search_tokens = self.embed_search(search)  # (B, Nx, C)
        before = () if self.separate_references else encoded
        tokens = torch.cat((query, *before, search_tokens), dim=1)  # (B, 1 (+ R * Nz) + Nx, C)
        for index, block in enumerate(self.trunk.blocks):
            more = (encoded[index],) if self.separate_references else ()
            if self.activation_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(self._block, block, tokens, *more, use_reentrant=False)
            else:
                tokens = self._block(block, tokens, *more)
        state = self.trunk.norm(tokens[:, :1])  # (B, 1, C)
        found = self.trunk.norm(tokens[:, -search_tokens.shape[1] :])  # (B, Nx, C)
        score_map, boxes = self.head(found, state)
        return Prediction(score_map, boxes, state)

    @staticmethod
    def _block(block: Block, tokens: Tensor, encoded: Tensor | None = None) -> Tensor:
        """A block of the trunk, which attends to ``encoded`` keys and values as well."""
        if encoded is None:
            return block(tokens)
        query, key, value = queries_keys_values(block, tokens)
        key, value = torch.cat((encoded[0], key), 2), torch.cat((encoded[1], value), 2)
        return finish_block(block, tokens, query, key, value)

    def forward(
        self, search: Tensor, references: Tensor, masks: Tensor, state_token: Tensor | None = None
    ) -> Prediction:
        """Find the target of ``references`` in ``search``: see the two functions it consists of.

        ``search`` (B, 3, H, W), ``references`` (B, R, 3, h, w), ``masks`` (B, R, Hz, Wz),
        ``state_token`` (B, 1, C) or None.
        """
        return self.locate(search, self.encode_references(references, masks), state_token)


def queries_keys_values(block: Block, tokens: Tensor) -> tuple[Tensor, ...]:
    """(B, N, C) tokens to what attention takes of them, (B, heads, N, d) each."""
    parts = block.attn.qkv(block.norm1(tokens))  # (B, N, 3 * C)
    parts = parts.unflatten(2, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return tuple(parts.unbind(0))


def finish_block(
    block: Block, tokens: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    """The rest of a block for (B, N, C) tokens, of which only ``query`` must come."""
    mixed = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, d)
    mixed = block.attn.proj(mixed.transpose(1, 2).flatten(2))  # (B, N, C)
    tokens = tokens + block.drop_path1(block.ls1(mixed))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


def trainable_names(model: SPMTrack) -> set[str]:
    """Names of what the published recipe trains: experts, routers, head and the embeddings."""
    outside = {name for name, _ in model.named_parameters() if not name.startswith("trunk.")}
    return outside | adapter_names(model)


def build_spmtrack(config: ModelConfig) -> SPMTrack:
    """The network of ``config``, randomly initialized; ``model.weights`` fills it.

    Runs under ``torch.device("meta")`` too, at no cost of memory.
    """
    trunk = build_trunk(config)
    adapt(
        trunk,
        config.rank,
        config.experts,
        config.scaling,
        config.shared_expert,
        config.expert_compressors,
        config.adapted,
    )
    if config.trunk == "explicit":
        for block in trunk.blocks:
            initialize_attention(block.attn.qkv.q.weight, block.attn.qkv.k.weight)
    return SPMTrack(
        trunk, config.template_grid_hw, config.search_grid_hw, config.separate_references
    )


def spmtrack_b() -> SPMTrack:
    """SPMTrack-B: 115.3 M parameters, 29.2 M of them trainable."""
    return build_spmtrack(ModelConfig(trunk="vit_base_patch14_dinov2"))


def spmtrack_l() -> SPMTrack:
    """SPMTrack-L: 379.6 M parameters, 75.9 M of them trainable."""
    return build_spmtrack(ModelConfig(trunk="vit_large_patch14_dinov2"))


def spmtrack_g() -> SPMTrack:
    """SPMTrack-G: 1339.5 M parameters, 204.0 M of them trainable."""
    return build_spmtrack(ModelConfig(trunk="vit_giant_patch14_dinov2"))
