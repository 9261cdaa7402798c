"""The inference layout, run by OpenVINO in place of PyTorch: on CPUs about twice as fast."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spmtrack_core.config import ModelConfig
from spmtrack_core.files import cache_folder
from spmtrack_core.model.fused import FusedSPMTrack
from spmtrack_core.model.spmtrack import Prediction

LOG = logging.getLogger(__name__)
VERSION = 1
"""Of the converted networks in the cache; a change of the network's code raises it."""
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""OpenVINO's names of the precisions. Without one it chooses bfloat16 where the CPU has it."""


class OpenVinoSPMTrack:
    """A network of ``fuse`` in float32, with inputs and outputs on the CPU.

    The converted network lies in ``cache_folder()`` for the next start. Networks are compiled for
    each number of targets when it first occurs, in about half a second: fixed shapes are faster.
    ``references`` is the number of reference frames, ``precision`` that of the matrix
    multiplications: ``float32``, ``bfloat16`` or ``float16``. Raises ``RuntimeError`` where
    OpenVINO is not installed.
    """

    def __init__(
        self, model: FusedSPMTrack, config: ModelConfig, references: int, precision: str
    ) -> None:
        try:
            import openvino  # an extra
        except ImportError:
            raise RuntimeError(
                "runtime openvino needs OpenVINO, the extra openvino of this package: "
                "pip install 'spmtrack_ros[openvino]', or only pip install openvino"
            ) from None
        self.no_state = model.no_state
        self.reference_shapes = model.reference_shapes
        self._core = openvino.Core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
            "PERFORMANCE_HINT": "LATENCY",
        }
        targets = 2  # in the examples
        template = torch.zeros(targets, 3, *config.template_hw)
        masks = torch.zeros(targets, *config.template_grid_hw)
        search = torch.zeros(targets, 3, *config.search_hw)
        kept = [torch.zeros(targets, references, *shape) for shape in self.reference_shapes]
        state = self.no_state.repeat(targets, 1, 1)
        examples = {
            "encode": (Encoder(model), (template, masks)),
            "locate": (model, (search, *kept, state)),
        }
        digest = hashlib.sha256(f"{VERSION} {openvino.__version__} {config} {references}".encode())
        for tensor in model.state_dict().values():
            digest.update(tensor.numpy().tobytes())

        def convert(name: str) -> Any:
            network, example = examples[name]
            # sizes that do not depend on the number of targets may be constants
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return openvino.convert_model(network, example_input=example)

        def cached(name: str) -> Any:
            path = cache_folder() / f"openvino-{digest.hexdigest()[:16]}-{name}.xml"
            try:
                if path.is_file():
                    return self._core.read_model(path)
            except RuntimeError as error:
                LOG.warning("%s is not kept, since it cannot be read: %s", path, error)
            network = convert(name)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with TemporaryDirectory(dir=path.parent) as folder:
                    openvino.save_model(network, Path(folder, path.name), compress_to_fp16=False)
                    for each in sorted(Path(folder).iterdir()):  # .bin before .xml, its reader
                        os.replace(each, path.parent / each.name)
            except (OSError, RuntimeError) as error:
                LOG.warning("the converted network is not kept at %s: %s", path, error)
            return network

        self._networks = {name: cached(name) for name in examples}
        self._compiled: dict[tuple[str, int], Any] = {}

    def encode_reference(self, references: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """As that of ``FusedSPMTrack``."""
        return self._run("encode", references, masks)

    def __call__(self, search: Tensor, *references_and_state: Tensor) -> Prediction:
        """As ``FusedSPMTrack.forward``, always with a state token."""
        return Prediction(*self._run("locate", search, *references_and_state))

    def _run(self, name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        key = name, len(inputs[0])
        if key not in self._compiled:
            network = self._networks[name].clone()
            shapes = [list(tensor.shape) for tensor in inputs]
            network.reshape(dict(zip(network.inputs, shapes, strict=True)))
            compiled = self._core.compile_model(network, "CPU", self._settings)
            self._compiled[key] = compiled.create_infer_request()
        request = self._compiled[key]
        found = request.infer([tensor.contiguous().numpy() for tensor in inputs])
        # the request keeps its outputs and will overwrite them
        return tuple(torch.from_numpy(np.array(each)) for each in found.values())


class Encoder(nn.Module):
    """``FusedSPMTrack.encode_reference`` as a network."""

    def __init__(self, model: FusedSPMTrack) -> None:
        super().__init__()
        self.model = model

    def forward(self, references: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode_reference(references, masks)
