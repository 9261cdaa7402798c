"""The smallest network with all parts, for tests that train or sample."""

from __future__ import annotations

from spmtrack_core.config import ModelConfig

TINY = ModelConfig(
    trunk="explicit",
    embed_dim=32,
    depth=1,
    num_heads=2,
    mlp_hidden=32,
    patch_size=16,
    template_hw=(32, 32),
    search_hw=(64, 64),
    rank=2,
    alpha=2.0,
    experts=2,
)
