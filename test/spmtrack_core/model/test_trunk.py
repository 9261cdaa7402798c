"""The trunk: position tables, and settings of unusable trunks."""

from __future__ import annotations

import json

import pytest
import torch
from golden_model import GOLDEN, golden_tensors
from safetensors import safe_open
from timm.layers import GluMlp, SwiGLUPacked
from timm.models.vision_transformer import Block
from torch.testing import assert_close

from spmtrack_core.config import ModelConfig
from spmtrack_core.model.trunk import build_trunk, is_plain, resample_positions


@pytest.mark.golden
def test_position_tables_are_resampled_as_published(parity):
    with safe_open(GOLDEN / "pos_interp.safetensors", "pt") as file:
        cases = json.loads(file.metadata()["cases"])
    tensors = golden_tensors("pos_interp")
    for case in cases:
        table = resample_positions(
            tensors[f"{case['name']}.src"],
            tuple(case["old_hw"]),
            tuple(reversed(case["new_wh"])),
            swapped=True,
        )
        parity.close(
            "pos_interp",
            "position tables",
            table,
            tensors[f"{case['name']}.dst"],
            atol=1e-5,
            about=case["name"],
        )


def test_a_nonsquare_table_keeps_rows_and_columns_apart():
    column = torch.arange(5.0).repeat(5, 1).reshape(1, 25, 1)  # every row alike
    table = resample_positions(column, (5, 5), (7, 9)).reshape(7, 9)
    assert_close(table, table[:1].expand(7, 9))
    assert table[0, -1] > table[0, 0] + 3


def test_a_table_of_another_grid_is_rejected():
    with pytest.raises(ValueError, match="24 rows"):
        resample_positions(torch.zeros(1, 24, 4), (5, 5), (7, 7))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"trunk": "no_such_vit"}, "has no model"),
        ({"trunk": "resnet18"}, "not a plain ViT"),
        ({"trunk": "vit_base_patch16_224"}, "16 px patches"),
        ({"trunk": "vit_base_patch14_reg4_dinov2"}, "beyond a plain ViT"),
        ({"trunk": "vit_base_patch16_clip_224"}, "beyond a plain ViT"),
    ],
)
def test_unusable_trunks_are_named(settings, match):
    with torch.device("meta"), pytest.raises(ValueError, match=match):
        build_trunk(ModelConfig(**settings))


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_the_ffn_has_exactly_the_width_of_the_settings(ffn):
    sizes = {"embed_dim": 112, "num_heads": 4, "depth": 1, "mlp_hidden": 244, "patch_size": 14}
    with torch.device("meta"):
        trunk = build_trunk(ModelConfig(trunk="explicit", ffn=ffn, **sizes))
    assert trunk.blocks[0].mlp.fc2.in_features == 244


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({}, True),
        ({"init_values": 1.0, "mlp_layer": SwiGLUPacked}, True),
        ({"qk_norm": True}, False),
        ({"scale_attn_norm": True}, False),
        ({"scale_mlp_norm": True}, False),
        ({"mlp_layer": GluMlp}, False),
    ],
    ids=str,
)
def test_a_block_with_more_than_linear_layers_is_not_plain(options, plain):
    assert is_plain(Block(8, 2, **options)) is plain
