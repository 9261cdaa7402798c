"""The network for other runtimes: ONNX, torch.export and TensorRT.

Two networks of the inference layout (``model/fused.py``), for any number B of targets. The caller
keeps the state of each target between frames and makes the crops, as ``Tracker`` does. ``encode``
takes a reference frame, once, when it is chosen:

    reference (B, 3, h, w)        normalized reference frame
    mask (B, Hz, Wz)              1 on the cells of it that its target covers
    ->
    encoded (B, ...)              its tokens, or its keys and values of every block

``locate`` takes every frame:

    search (B, 3, H, W)           normalized search regions
    references (B, R, ...)        encoded reference frames, R = 3
    state_token (B, 1, C)         of the previous frame; zeros on the first
    ->
    score_map (B, Hx, Wx)         logit of every search cell
    boxes (B, Hx, Wx, 4)          normalized xyxy of every search cell
    next_state_token (B, 1, C)    to be handed in with the next frame

Inputs and outputs are float32, whatever the compute dtype. ``FORMATS`` lists what can be written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from spmtrack_core.files import write_beside
from spmtrack_core.model.networks import networks
from spmtrack_core.model.weights import Checkpoint
from spmtrack_core.runtimes.description import ENTRY, describe
from spmtrack_core.runtimes.exported import ONNX_FORMAT, SECOND_SUFFIX, pair
from spmtrack_core.runtimes.inference import INPUTS, OUTPUTS
from spmtrack_core.runtimes.tensorrt_model import (
    ENGINE_FORMAT,
    LARGEST_BATCH,
    of_tensorrt,
    write_engines,
)
from spmtrack_core.tracking.references import REFERENCES

try:
    import onnx
    import onnxscript
except ImportError:  # the extra "onnx" of this package
    onnx = onnxscript = None
try:
    from onnxruntime.quantization import QuantType, quantize_dynamic
except ImportError:  # of the same extra, for int8 alone
    quantize_dynamic = None
try:
    import tensorrt
except ImportError:  # NVIDIA's, not an extra: it must fit the driver
    tensorrt = None

OPSET = 18
"""The lowest that torch's exporter writes without conversion."""
LARGEST_FILE = 2**31 - 2**20
"""Bytes of tensors in one .onnx file; protobuf limits a file to 2 GiB."""
TORCH_SETTINGS = "settings.json"
"""Name of the settings inside a .pt2 file."""


def export_torch(checkpoint: Checkpoint, path: str | Path, dtype: torch.dtype) -> list[Path]:
    """Write both networks for ``torch.export.load``; the files hold settings and provenance.

    ``dtype``, float32 or float16, is the compute dtype. Returns the files: ``path``, and the one
    of reference frames beside it. Raises ``OSError`` where they cannot be written.
    """
    path, about = Path(path), _descriptions(checkpoint)
    files = pair(path)
    with _complete(path) as folder:
        for part, program in _programs(checkpoint, dtype):
            settings = {TORCH_SETTINGS: about[part][ENTRY]}
            with (folder / files[part].name).open("wb") as file:
                torch.export.save(program, file, extra_files=settings)
    return [files["locate"], files["encode"]]


def export_onnx(checkpoint: Checkpoint, path: str | Path, dtype: torch.dtype) -> list[Path]:
    """Write both networks for ONNX Runtime and others; settings and provenance are metadata.

    ``dtype``, float32 or float16, is the compute dtype; int8 rounds the weights of linear layers,
    row by row, and their inputs at run time. Tensors of more than 2 GB go into a file of their
    own, ``<name>.data``. Returns the files: ``path``, and those that must stay beside it. Raises
    ``OSError`` where they cannot be written and ``RuntimeError`` without the extra ``onnx``.
    """
    int8 = dtype is torch.int8
    check_installed("onnx", int8)
    path, about = Path(path), _descriptions(checkpoint)
    files = pair(path)
    with _complete(path) as folder, TemporaryDirectory(dir=folder) as unrounded:
        for part, program in _programs(checkpoint, torch.float32 if int8 else dtype):
            made = torch.onnx.export(
                program,
                input_names=INPUTS[part],
                output_names=OUTPUTS[part],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
            network = cast(torch.onnx.ONNXProgram, made)  # None is what the old exporter gives
            network.model.metadata_props.update(about[part])
            large = sum(each.nbytes for each in program.state_dict.values()) > LARGEST_FILE
            file = Path(unrounded if int8 else folder, files[part].name)
            network.save(file, external_data=large)
            if int8:
                round_to_int8(file, folder / file.name, large)
        written = sorted((file.name for file in folder.iterdir() if file.is_file()), key=len)
    return [path.with_name(name) for name in written]  # the shortest is that of path


def round_to_int8(source: Path, target: Path, large: bool = False) -> None:
    """Round the linear layers of an .onnx file; ``large``: the tensors go into ``<name>.data``."""
    graph = onnx.load(source, load_external_data=False).graph
    flat = {each.name for each in graph.initializer if len(each.dims) == 2}
    quantize_dynamic(
        source,
        target,
        # of several matrices at once, ONNX Runtime takes no scale for each row
        nodes_to_exclude=[node.name for node in graph.node if not flat.intersection(node.input)],
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=large,
    )


def export_tensorrt(checkpoint: Checkpoint, path: str | Path, dtype: torch.dtype) -> list[Path]:
    """Build TensorRT engines for the GPU of this machine, with the types of the ONNX networks.

    ``dtype`` as in ``export_onnx``. Returns ``path``, one file for both networks. Raises
    ``OSError`` where it cannot be written and ``RuntimeError`` without TensorRT 10 or a GPU,
    without the extra ``onnx``, or when the build fails.
    """
    check_installed("tensorrt")
    builder = of_tensorrt(tensorrt.Builder, tensorrt.Logger(tensorrt.Logger.WARNING))
    with TemporaryDirectory(prefix="spmtrack-") as folder:
        step = Path(folder) / "step.onnx"
        export_onnx(checkpoint, step, dtype)
        engines = {part: _engine(builder, file) for part, file in pair(step).items()}
    settings = describe(ENGINE_FORMAT, checkpoint)[ENTRY]
    write_beside(Path(path), lambda beside: write_engines(beside, settings, engines))
    return [Path(path)]


def _engine(builder: Any, file: Path) -> bytes:
    """The network of an .onnx file as a TensorRT engine for 1 to ``LARGEST_BATCH`` targets."""
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = tensorrt.OnnxParser(network, tensorrt.Logger(tensorrt.Logger.WARNING))
    if not parser.parse_from_file(str(file)):
        reason = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise RuntimeError(f"TensorRT cannot read the network: {reason}")
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        one, most = ((batch, *tensor.shape[1:]) for batch in (1, LARGEST_BATCH))
        profile.set_shape(tensor.name, one, one, most)  # smallest, tuned for, largest
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # float32 is float32
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("TensorRT could not build the engine; the reason is in its log")
    return bytes(engine)


class Format(NamedTuple):
    """How one export format is written."""

    write: Callable[[Checkpoint, Path, torch.dtype], list[Path]]
    """Returns the files."""
    precisions: tuple[str, ...]
    """Names of the dtypes that ``write`` takes."""
    suffixes: tuple[str, ...]
    """Of the files; what reads them recognizes the first by its suffix."""


FORMATS = {
    "onnx": Format(export_onnx, ("float32", "float16", "int8"), (".onnx", SECOND_SUFFIX)),
    "torch": Format(export_torch, ("float32", "float16"), (".pt2", ".references.pt2")),
    "tensorrt": Format(export_tensorrt, ("float32", "float16"), (".engine",)),
}
"""Export formats by name."""


def check_installed(format: str, int8: bool = False) -> None:
    """Raise ``RuntimeError``, with what to install, where ``format`` cannot be written."""
    version = 0 if tensorrt is None else int(tensorrt.__version__.partition(".")[0])
    if format == "tensorrt" and version < 10:
        raise RuntimeError(
            "an engine needs NVIDIA's tensorrt, 10 or later, on the machine it is for: pip "
            "install tensorrt, on Jetson the package of JetPack"
        )
    if format in ("onnx", "tensorrt") and onnxscript is None:
        raise RuntimeError(
            "ONNX needs the packages onnx and onnxscript, the extra onnx of this package: "
            "pip install 'spmtrack_ros[onnx]'"
        )
    if int8 and quantize_dynamic is None:
        raise RuntimeError(
            "int8 needs the package onnxruntime, the extra onnx of this package: "
            "pip install 'spmtrack_ros[onnx]'"
        )


@contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """A folder for files that belong together; they come beside ``path`` once all are complete.

    Some name others, so they have their final names from the start. The file of ``path`` comes
    last.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        yield Path(folder)
        for file in sorted(Path(folder).iterdir(), key=lambda each: each.name == path.name):
            os.replace(file, path.with_name(file.name))


def _descriptions(checkpoint: Checkpoint) -> dict[str, dict[str, str]]:
    """Metadata of both networks, by which they know each other."""
    digest = hashlib.sha256()
    for tensor in checkpoint.model.state_dict().values():
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    weights = digest.hexdigest()
    return {part: describe(ONNX_FORMAT, checkpoint, part=part, weights=weights) for part in INPUTS}


def _programs(checkpoint: Checkpoint, dtype: torch.dtype) -> Iterator[tuple[str, ExportedProgram]]:
    """Both networks of ``checkpoint`` as graphs for any number of targets."""
    targets = Dim("batch")
    for part, (module, example) in networks(checkpoint, dtype, REFERENCES).items():
        hooks = [  # autocast leaves it to the device whether layer norms sum in float32
            each.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
            for each in module.modules()
            if isinstance(each, nn.LayerNorm)
        ]
        try:
            shapes = tuple({0: targets} for _ in example)
            yield part, torch.export.export(module, example, dynamic_shapes=shapes)
        finally:
            for hook in hooks:
                hook.remove()
