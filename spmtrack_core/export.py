"""The network step for other runtimes: ONNX, torch.export and TensorRT.

The exported network is a pure function of any number B of targets. The caller keeps the state of
each target between frames and makes the crops, as ``Tracker`` does.

    search (B, 3, H, W)           normalized search regions
    references (B, R, 3, h, w)    normalized reference frames, R = 3
    masks (B, R, Hz, Wz)          1 on the cells of a reference frame that its target covers
    state_token (B, 1, C)         of the previous frame; zeros on the first
    ->
    score_map (B, Hx, Wx)         logit of every search cell
    boxes (B, Hx, Wx, 4)          normalized xyxy of every search cell
    next_state_token (B, 1, C)    to be handed in with the next frame

Inputs and outputs are float32, whatever the compute dtype. ``FORMATS`` lists what can be written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from spmtrack_core.files import write_beside
from spmtrack_core.model.weights import Checkpoint
from spmtrack_core.runtimes.description import ENTRY, describe
from spmtrack_core.runtimes.onnx_model import INPUTS, LARGEST_BATCH, ONNX_FORMAT, OUTPUTS
from spmtrack_core.tracking.references import REFERENCES

try:
    import onnx
    import onnxscript
    from onnxruntime.quantization import QuantType, quantize_dynamic
except ImportError:  # the extra "onnx" of this package
    onnx = onnxscript = None
try:
    import tensorrt
except ImportError:  # NVIDIA's, not an extra: it must fit the driver
    tensorrt = None

OPSET = 18
"""The lowest that torch's exporter writes without conversion."""
LARGEST_FILE = 2**31 - 2**20
"""Bytes of tensors in one .onnx file; protobuf limits a file to 2 GiB."""
NARROW = 64
"""Linear layers with a smaller side stay float32 in an int8 file: experts and routers. They are
small, and their rounding errors reach every token."""
TORCH_SETTINGS = "settings.json"
"""Name of the settings inside a .pt2 file."""


class NetworkStep(nn.Module):
    """``SPMTrack`` with plain tensors in and out, and ``dtype`` as compute dtype."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = checkpoint.model.eval().requires_grad_(False)
        self.dtype = dtype

    def forward(
        self, search: Tensor, references: Tensor, masks: Tensor, state_token: Tensor
    ) -> tuple[Tensor, ...]:
        half = self.dtype is not torch.float32
        with torch.autocast("cpu", self.dtype) if half else nullcontext():
            prediction = self.model(search, references, masks, state_token)
        return tuple(tensor.float() for tensor in prediction)


def export_torch(checkpoint: Checkpoint, path: str | Path, dtype: torch.dtype) -> None:
    """Write the network step for ``torch.export.load``; the file holds settings and provenance.

    ``dtype``, float32 or float16, is the compute dtype and that of the linear layers. Raises
    ``OSError`` where ``path`` cannot be written.
    """
    program = _trace(checkpoint, dtype)
    settings = {TORCH_SETTINGS: describe(ONNX_FORMAT, checkpoint)[ENTRY]}

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            torch.export.save(program, file, extra_files=settings)

    write_beside(path, write)


def export_onnx(checkpoint: Checkpoint, path: str | Path, dtype: torch.dtype) -> None:
    """Write the network step for ONNX Runtime and others; settings and provenance are metadata.

    ``dtype``, float32 or float16, is the compute dtype and that of the linear layers; int8 rounds
    the wide linear layers of a float32 checkpoint, and their inputs at run time. Tensors of more
    than 2 GB go into a second file, ``<path>.data``, that must stay beside the first. Raises
    ``OSError`` where ``path`` cannot be written and ``RuntimeError`` without the extra ``onnx``.
    """
    check_installed("onnx")
    path = Path(path)
    int8 = dtype is torch.int8
    made = torch.onnx.export(
        _trace(checkpoint, torch.float32 if int8 else dtype),
        input_names=INPUTS,
        output_names=OUTPUTS,
        dynamic_shapes={name: {0: "batch"} if name == "search" else None for name in INPUTS},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    program = cast(torch.onnx.ONNXProgram, made)  # None is what the old exporter gives
    program.model.metadata_props.update(describe(ONNX_FORMAT, checkpoint))
    size = sum(tensor.nbytes for tensor in checkpoint.model.state_dict().values())
    path.parent.mkdir(parents=True, exist_ok=True)
    # the first of two files names the second: both are made under their final names, elsewhere
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made_in = Path(folder) / path.name
        program.save(made_in, external_data=size > LARGEST_FILE)
        if int8:
            graph = onnx.load(made_in, load_external_data=False).graph
            weights = graph.initializer
            narrow = {each.name for each in weights if min(each.dims, default=0) < NARROW}
            kept = [node.name for node in graph.node if narrow.intersection(node.input)]
            quantize_dynamic(
                made_in,
                made_in,
                op_types_to_quantize=["MatMul", "Gemm"],
                nodes_to_exclude=kept,
                weight_type=QuantType.QInt8,
                use_external_data_format=size > LARGEST_FILE,
            )
        for file in sorted(Path(folder).iterdir(), reverse=True):  # the file of tensors first
            os.replace(file, path.with_name(file.name))


def export_tensorrt(checkpoint: Checkpoint, path: str | Path, dtype: torch.dtype) -> None:
    """Build a TensorRT engine for the GPU of this machine, with the types of the ONNX network.

    ``dtype`` as in ``export_onnx``. Raises ``OSError`` where ``path`` cannot be written and
    ``RuntimeError`` without TensorRT 10, without the extra ``onnx``, or when the build fails.
    """
    check_installed("tensorrt")
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = tensorrt.OnnxParser(network, logger)
    with TemporaryDirectory(prefix="spmtrack-") as folder:
        step = Path(folder) / "step.onnx"
        export_onnx(checkpoint, step, dtype)
        if not parser.parse_from_file(str(step)):
            reason = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise RuntimeError(f"TensorRT cannot read the network: {reason}")
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            one, most = ((batch, *tensor.shape[1:]) for batch in (1, LARGEST_BATCH))
            profile.set_shape(tensor.name, one, one, most)  # smallest, tuned for, largest
        config = builder.create_builder_config()
        config.add_optimization_profile(profile)
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("TensorRT could not build the engine; the reason is in its log")
    write_beside(path, lambda beside: beside.write_bytes(engine))


class Format(NamedTuple):
    """How one export format is written."""

    write: Callable[[Checkpoint, Path, torch.dtype], None]
    precisions: tuple[str, ...]
    """Names of the dtypes that ``write`` takes."""


FORMATS = {
    "onnx": Format(export_onnx, ("float32", "float16", "int8")),
    "torch": Format(export_torch, ("float32", "float16")),
    "tensorrt": Format(export_tensorrt, ("float32", "float16")),
}
"""Export formats by name."""


def check_installed(format: str) -> None:
    """Raise ``RuntimeError``, with what to install, where ``format`` cannot be written."""
    if format == "tensorrt" and tensorrt is None:
        raise RuntimeError(
            "an engine needs NVIDIA's tensorrt, 10 or later, on the machine it is for: pip "
            "install tensorrt, on Jetson the package of JetPack; or export to onnx and build it "
            "there: trtexec --onnx=FILE --stronglyTyped --saveEngine=ENGINE"
        )
    if format in ("onnx", "tensorrt") and onnxscript is None:
        raise RuntimeError(
            "ONNX needs the packages onnx and onnxscript, the extra onnx of this package: "
            "pip install 'spmtrack_ros[onnx]'"
        )


def _trace(checkpoint: Checkpoint, dtype: torch.dtype) -> ExportedProgram:
    """The network step of ``checkpoint`` as a graph for any number of targets."""
    config, batch = checkpoint.model_config, Dim("batch")
    step = NetworkStep(checkpoint, dtype)
    hooks = [  # autocast leaves it to the device whether layer norms sum in float32
        module.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        for module in step.modules()
        if isinstance(module, nn.LayerNorm)
    ]
    examples = (  # of two targets: torch takes a size of one for a constant
        torch.zeros(2, 3, *config.search_hw),
        torch.zeros(2, REFERENCES, 3, *config.template_hw),
        torch.zeros(2, REFERENCES, *config.template_grid_hw),
        torch.zeros(2, 1, checkpoint.model.target_token.shape[-1]),
    )
    try:
        program = torch.export.export(
            step, examples, dynamic_shapes={name: {0: batch} for name in INPUTS}
        )
    finally:
        for hook in hooks:
            hook.remove()
    return program
