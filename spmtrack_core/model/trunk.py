"""The trunk: a plain ViT from timm without class token, and its position table."""

from __future__ import annotations

import itertools
import math

import timm
import torch
from timm.layers import DropPath, LayerNorm2d, SwiGLUPacked
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from spmtrack_core.config import ModelConfig
from spmtrack_core.model.mobilenet import MobileNetStem


class ConvStem(nn.Module):
    """Patches by 3x3 stride-2 convolutions instead of one large one; small trunks learn faster.

    Stands in for timm's ``PatchEmbed``: (B, 3, H, W) to (B, H * W / patch_size ** 2, C).
    """

    def __init__(
        self,
        img_size: tuple[int, int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        **_: object,
    ) -> None:
        super().__init__()
        stages = int(math.log2(patch_size))
        widths = [in_chans, *(embed_dim >> (stages - 1 - stage) for stage in range(stages))]
        self.num_patches = (img_size[0] // patch_size) * (img_size[1] // patch_size)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), LayerNorm2d(b), nn.GELU())
                for a, b in itertools.pairwise(widths)
            ),
            nn.Conv2d(embed_dim, embed_dim, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images).flatten(2).transpose(1, 2)  # (B, N, C)


STEMS = {"conv": ConvStem, "mobilenetv2": MobileNetStem}


def build_trunk(config: ModelConfig) -> VisionTransformer:
    """The ViT of ``config`` with a position table of the search grid, randomly initialized.

    Raises ``ValueError`` for a name timm does not know, or whose model is no plain ViT with
    patches of ``config.patch_size``.
    """
    explicit = config.trunk == "explicit"
    trunk = _explicit_trunk(config) if explicit else _trunk_of_timm(config)
    trunk.patch_embed.strict_img_size = False  # templates are smaller than search regions
    for block in trunk.blocks:  # the same rate for every block, as published
        if config.drop_path:
            block.drop_path1 = DropPath(config.drop_path)
            block.drop_path2 = DropPath(config.drop_path)
    return trunk


def _explicit_trunk(config: ModelConfig) -> VisionTransformer:
    """A ViT of the sizes in ``config``."""
    swiglu = config.ffn == "swiglu"
    return VisionTransformer(
        img_size=config.search_hw,
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        # timm truncates width times ratio: half a unit keeps rounding from losing one
        mlp_ratio=(config.mlp_hidden * (2 if swiglu else 1) + 0.5) / config.embed_dim,
        mlp_layer=SwiGLUPacked if swiglu else timm.layers.Mlp,
        act_layer=nn.SiLU if swiglu else nn.GELU,
        init_values=1.0,
        class_token=False,
        global_pool="",
        num_classes=0,
        weight_init=_weight_init(),
        **({} if config.stem == "patch" else {"embed_layer": STEMS[config.stem]}),
    )


def _trunk_of_timm(config: ModelConfig) -> VisionTransformer:
    """The ViT that timm knows by the name in ``config``."""
    if not timm.is_model(config.trunk):
        raise ValueError(f"timm {timm.__version__} has no model {config.trunk!r}")
    try:
        trunk = timm.create_model(
            config.trunk,
            pretrained=False,
            img_size=config.search_hw,
            class_token=False,
            global_pool="",
            num_classes=0,
            weight_init=_weight_init(),
        )
    except TypeError:  # other families take other arguments
        trunk = None
    if not isinstance(trunk, VisionTransformer):
        raise ValueError(f"trunk {config.trunk} is not a plain ViT of timm")
    plain = (
        all(map(is_plain, trunk.blocks))
        and isinstance(trunk.norm_pre, nn.Identity)
        and trunk.reg_token is None
        and trunk.pos_embed is not None
        and trunk.pos_embed.shape[1] == trunk.patch_embed.num_patches
    )
    if not plain:
        raise ValueError(f"trunk {config.trunk} has parts beyond a plain ViT's")
    patch = trunk.patch_embed.patch_size[0]
    if patch != config.patch_size:
        raise ValueError(f"{config.trunk} has {patch} px patches, not {config.patch_size}")
    return trunk


def _weight_init() -> str:
    """On the meta device initialization has no effect but to import torch's compiler."""
    return "skip" if torch.get_default_device().type == "meta" else ""


def is_plain(block: nn.Module) -> bool:
    """Whether a block has nothing between its linear layers but attention and an activation."""
    if type(block) is not Block:
        return False
    between = [getattr(block.attn, name, None) for name in ("q_norm", "k_norm", "norm", "gate")]
    between.append(getattr(block.mlp, "norm", None))
    plain = all(part is None or isinstance(part, nn.Identity) for part in between)
    return plain and not getattr(block.mlp, "gate_last", False)


def resample_positions(
    table: Tensor, old_hw: tuple[int, int], new_hw: tuple[int, int], swapped: bool = False
) -> Tensor:
    """(1, h*w, C) position table of ``old_hw`` cells as (1, H*W, C) of ``new_hw`` cells.

    Bicubic without antialias, half-pixel centers; the identity for equal sizes. The published code
    passes (W, H) to a function that expects (H, W); ``swapped=True`` repeats that for weights
    trained so. For square grids both are the same.
    """
    if table.shape[1] != old_hw[0] * old_hw[1]:
        raise ValueError(f"a table of {table.shape[1]} rows is not a grid of {old_hw} cells")
    if old_hw == new_hw:
        return table
    grid = table.reshape(1, *old_hw, -1).permute(0, 3, 1, 2)  # (1, C, h, w)
    size = new_hw[::-1] if swapped else new_hw
    grid = F.interpolate(grid.float(), size=size, mode="bicubic", align_corners=False)
    return grid.flatten(2).transpose(1, 2).to(table.dtype)  # (1, H*W, C)


@torch.no_grad()
def initialize_attention(query_weight: Tensor, key_weight: Tensor, gain: float = 1.0) -> None:
    """Let a random trunk attend to similar tokens at the start: q and k near the identity."""
    for weight in (query_weight, key_weight):
        nn.init.trunc_normal_(weight, std=0.02)
        weight.diagonal().add_(gain)
