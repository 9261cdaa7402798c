"""The inference layout as networks of OpenVINO."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from spmtrack_core.model.networks import networks
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
    converted = {}
    for part, (module, example) in networks(checkpoint, torch.float32, references).items():
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module, example, check_trace=False)
            decoder = TorchScriptPythonDecoder(traced)  # must live until the end
            made = frontend.convert(frontend.load(decoder))
        shapes = [[-1, *each.shape[1:]] for each in example]
        made.reshape(dict(zip(made.inputs, shapes, strict=True)))
        made.set_rt_info(describe(OPENVINO_FORMAT, checkpoint)[ENTRY], ENTRY)
        converted[part] = made
    return converted
