"""The inference layout as networks of OpenVINO."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from spmtrack_core.model.fused import FusedSPMTrack, fuse
from spmtrack_core.model.weights import Checkpoint
from spmtrack_core.runtimes.description import ENTRY, describe
from spmtrack_core.runtimes.openvino_model import OPENVINO_FORMAT


def to_openvino(checkpoint: Checkpoint, references: int) -> dict[str, Any]:
    """The networks of ``checkpoint``, in float32, for ``OpenVinoSPMTrack``.

    ``references`` is the number of reference frames.
    """
    # An extra. Its convert_model takes seven times as long: it traces the network three times and
    # reports each of its operations to the maker of OpenVINO.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    config, fused = checkpoint.model_config, fuse(checkpoint.model, torch.float32)
    targets = 2  # in the examples: sizes that do not depend on it may be constants
    template = torch.zeros(targets, 3, *config.template_hw)
    masks = torch.zeros(targets, *config.template_grid_hw)
    search = torch.zeros(targets, 3, *config.search_hw)
    kept = [torch.zeros(targets, references, *shape) for shape in fused.reference_shapes]
    state = fused.no_state.repeat(targets, 1, 1)
    examples: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "encode": (Encoder(fused), (template, masks)),
        "locate": (fused, (search, *kept, state)),
    }
    networks = {}
    for part, (network, example) in examples.items():
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(network, example, check_trace=False)
            decoder = TorchScriptPythonDecoder(traced)  # must live until the end
            made = frontend.convert(frontend.load(decoder))
        shapes = [[-1, *each.shape[1:]] for each in example]
        made.reshape(dict(zip(made.inputs, shapes, strict=True)))
        made.set_rt_info(describe(OPENVINO_FORMAT, checkpoint)[ENTRY], ENTRY)
        networks[part] = made
    return networks


class Encoder(nn.Module):
    """``FusedSPMTrack.encode_reference`` as a network."""

    def __init__(self, model: FusedSPMTrack) -> None:
        super().__init__()
        self.model = model

    def forward(self, references: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode_reference(references, masks)
