"""The inference layout as two networks with plain tensors in and out, for other runtimes."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spmtrack_core.model.fused import FusedSPMTrack, fuse
from spmtrack_core.model.weights import Checkpoint
from spmtrack_core.runtimes.inference import INPUTS

TARGETS = 2
"""In the examples: what does not depend on their number may become a constant, as may a one."""


class Network(NamedTuple):
    """One of the functions of ``InferenceModel``, and inputs of ``TARGETS`` targets."""

    module: nn.Module
    example: tuple[Tensor, ...]


def networks(checkpoint: Checkpoint, dtype: torch.dtype, references: int) -> dict[str, Network]:
    """The networks named in ``INPUTS``, with ``dtype`` as compute dtype; they share tensors.

    ``references`` is the number of reference frames.
    """
    fused, config = fuse(checkpoint.model, dtype), checkpoint.model_config
    (kept,) = fused.reference_shapes
    shapes = {
        "reference": (3, *config.template_hw),
        "mask": config.template_grid_hw,
        "search": (3, *config.search_hw),
        "references": (references, *kept),
        "state_token": fused.no_state.shape[1:],
    }
    modules = {"encode": Encoder(encoding_part(fused)), "locate": Locator(fused)}
    return {
        part: Network(modules[part], tuple(torch.zeros(TARGETS, *shapes[name]) for name in names))
        for part, names in INPUTS.items()
    }


def encoding_part(model: FusedSPMTrack) -> FusedSPMTrack:
    """What ``encode_reference`` needs of a network; its tensors are shared."""
    part = copy.copy(model)
    part._modules, part._parameters = dict(model._modules), dict(model._parameters)
    del part.head, part.norm, part.search_table, part.query
    if not part.separate_references:
        del part.blocks
    return part


class Encoder(nn.Module):
    """``FusedSPMTrack.encode_reference`` as a network."""

    def __init__(self, model: FusedSPMTrack) -> None:
        super().__init__()
        self.model = model

    def forward(self, reference: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode_reference(reference, mask)


class Locator(nn.Module):
    """``FusedSPMTrack.forward`` as a network."""

    def __init__(self, model: FusedSPMTrack) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, search: Tensor, references: Tensor, state_token: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(self.model(search, references, state_token))
