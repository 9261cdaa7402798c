"""The networks to be measured, in every layout, and their inputs. ``layouts.py`` measures them."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.model.fused import fuse
from spmtrack_core.model.openvino_export import to_openvino
from spmtrack_core.model.spmtrack import SPMTrack, build_spmtrack
from spmtrack_core.model.tmoe import TMoELinear
from spmtrack_core.model.trunk import build_trunk
from spmtrack_core.model.weights import Checkpoint, load_checkpoint
from spmtrack_core.runtimes.openvino_model import OpenVinoSPMTrack, converted_description
from spmtrack_core.tracking.cuda_engine import CapturedGraph
from spmtrack_core.tracking.loading import find_weights
from spmtrack_core.tracking.references import REFERENCES

SIZES = {
    "spmtrack_b": "vit_base_patch14_dinov2",
    "spmtrack_l": "vit_large_patch14_dinov2",
    "spmtrack_g": "vit_giant_patch14_dinov2",
}
MAX_BATCH = 16
"""Largest number of targets in one pass."""


def network(name: str, device: torch.device) -> tuple[SPMTrack, ModelConfig, TrackerConfig]:
    """The network ``name`` on the CPU, with its settings; ``device`` draws random weights."""
    if name not in SIZES:
        checkpoint = load_checkpoint(find_weights(name))
        model, config = checkpoint.model, checkpoint.model_config
        tracker_config = checkpoint.tracker_config
        return model.eval(), config, tracker_config
    config = ModelConfig(trunk=SIZES[name])
    torch.manual_seed(0)
    with device:
        model = build_spmtrack(config)
    for module in model.modules():
        if isinstance(module, TMoELinear):  # experts are zero at the start of a training
            nn.init.normal_(module.experts, std=0.02)
    return model.cpu().eval().requires_grad_(False), config, TrackerConfig()


def layouts(
    model: SPMTrack, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name and forward pass of each layout, for the tensors of ``example``.

    Only one of the networks exists at a time, for memory.
    """
    half = dtype is not torch.float32
    autocast = partial(torch.autocast, device.type, dtype if half else None, enabled=half)

    def under_autocast(function: nn.Module, *inputs: Tensor) -> Any:
        with autocast():
            return function(*inputs)

    fused: Any = fuse(model, dtype).to(device)
    references, masks = example(config, MAX_BATCH, device)[1:3]
    (tokens,) = fused.encode_reference(references.flatten(0, 1), masks.flatten(0, 1))
    # encoded once, when they become references: (16, R, ...)
    tokens = tokens.unflatten(0, (MAX_BATCH, REFERENCES))
    del references, masks
    yield "fused", partial(_fused_pass, fused, tokens)
    if device.type == "cuda":
        captured: dict[int, CapturedGraph] = {}
        yield "graph", partial(_captured_pass, captured, fused, tokens)
        del captured
    elif dtype is torch.float32 and importlib.util.find_spec("openvino"):
        converted = to_openvino(Checkpoint(model, config, TrackerConfig()), REFERENCES)
        about = converted_description(converted)
        by_openvino = OpenVinoSPMTrack(converted, about, threads=torch.get_num_threads())
        yield "openvino", partial(_openvino_pass, by_openvino, tokens)
        del converted, by_openvino
    del fused, tokens
    plain = copy.deepcopy(model).to(device)
    yield "plain", partial(under_autocast, plain)
    for module in plain.modules():
        if isinstance(module, TMoELinear):
            module.forward = partial(one_expert_after_another, module)  # type: ignore[method-assign]
    yield "published", partial(under_autocast, plain)
    for module in plain.modules():  # the function in place of forward refers to its module
        module.__dict__.pop("forward", None)
    del plain, module
    with device:
        vit = PlainViT(config)
    for block in vit.trunk.blocks:  # cast once, as in the fused layout
        for linear in (block.attn.qkv, block.attn.proj, block.mlp):
            linear.to(dtype)
    yield "vit", partial(under_autocast, vit)


def _fused_pass(network: nn.Module, tokens: Tensor, search: Tensor, *others: Tensor) -> Any:
    return network(search, tokens[: len(search)], others[-1])


def _openvino_pass(
    network: OpenVinoSPMTrack, tokens: Tensor, search: Tensor, *others: Tensor
) -> Any:
    given = search, tokens[: len(search)], others[-1]
    return tuple(map(torch.from_numpy, network(*(tensor.numpy() for tensor in given))))


def _captured_pass(
    captured: dict[int, CapturedGraph], network: nn.Module, tokens: Tensor, *inputs: Tensor
) -> Any:
    """As ``_fused_pass``, captured at the first pass of a batch size; all inputs are copied."""
    batch, nothing = len(inputs[0]), np.zeros(1)
    others = inputs[0], tokens[:batch], inputs[-1]
    if batch not in captured:
        captured.clear()
        captured[batch] = CapturedGraph(
            lambda _, *given: tuple(network(*given)), nothing, others, tokens.device
        )
    return captured[batch](nothing, *others)


def one_expert_after_another(part: TMoELinear, x: Tensor) -> Tensor:
    """A linear layer as the published code computes it: one expert after the other."""
    weights = F.linear(x, part.router).softmax(-1)  # (B, N, E)
    mixed: Tensor | int = 0
    for expert in range(part.experts.shape[1]):
        down = part.down[expert if len(part.down) > 1 else 0]
        out = F.linear(F.linear(x, down), part.experts[:, expert])  # (B, N, out)
        mixed = mixed + weights[..., expert, None] * out
    if part.shared is not None:
        mixed = mixed + F.linear(F.linear(x, part.down[0]), part.shared)
    return F.linear(x, part.weight, part.bias) + part.scaling * mixed


class PlainViT(nn.Module):
    """timm's trunk without experts, on as many tokens as SPMTrack has."""

    others: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = build_trunk(config).eval().requires_grad_(False)
        rows, columns = config.template_grid_hw
        others = 1 + REFERENCES * rows * columns
        self.register_buffer("others", torch.randn(1, others, self.trunk.embed_dim))

    def forward(self, search: Tensor, *_: Tensor) -> Tensor:
        tokens = self.trunk.patch_embed(search) + self.trunk.pos_embed  # (B, Nx, C)
        tokens = torch.cat((self.others.expand(len(search), -1, -1), tokens), 1)  # (B, T, C)
        for block in self.trunk.blocks:
            tokens = block(tokens)
        return self.trunk.norm(tokens)


def example(config: ModelConfig, batch: int, device: torch.device) -> tuple[Tensor, ...]:
    """Search, references, masks and state token of ``batch`` targets."""
    with torch.device("meta"):
        width = build_trunk(config).embed_dim
    random = torch.Generator().manual_seed(0)
    shapes = ((3, *config.search_hw), (REFERENCES, 3, *config.template_hw))
    images = [torch.randn(batch, *shape, generator=random).to(device) for shape in shapes]
    masks = torch.ones(batch, REFERENCES, *config.template_grid_hw, device=device)
    return *images, masks, torch.zeros(batch, 1, width, device=device)


def flop(config: ModelConfig) -> int:
    """Floating-point operations of one pass of the plain layout; a multiply-add is two."""
    with torch.device("meta"):
        model = build_spmtrack(config).eval()
        inputs = example(config, 1, torch.device("meta"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return int(counter.get_total_flops())
