"""``spmtrack export``: write the network for another runtime."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from spmtrack_core.cli.options import OutputFile, Trunk, Weights
from spmtrack_core.export import check_installed, export_onnx, export_tensorrt, export_torch
from spmtrack_core.files import check_output
from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.tracking.loading import choose_precision, find_weights

WRITERS = {"onnx": export_onnx, "torch": export_torch, "tensorrt": export_tensorrt}


def export(
    output: OutputFile,
    weights: Weights = "nano",
    format: Annotated[
        str,
        typer.Option(help="Format: onnx, torch (torch.export, .pt2) or tensorrt (for this GPU)."),
    ] = "onnx",
    trunk: Trunk = None,
    precision: Annotated[
        str, typer.Option(help="Precision of the network: float32, float16, or int8 for onnx.")
    ] = "float32",
) -> None:
    """Write the network for another runtime.

    The file has one pass of the network; crops and reference frames stay with the tracker.
    """
    if format not in WRITERS:
        raise ValueError(f"format must be one of {', '.join(WRITERS)}; got {format!r}")
    choices = ("float32", "float16", "int8") if format == "onnx" else ("float32", "float16")
    if precision not in choices:
        raise ValueError(
            f"precision of an export to {format} is {' or '.join(choices)}; got {precision!r}"
        )
    if format == "onnx" and output.suffix != ".onnx":
        raise ValueError(f"{output} must end in .onnx: the tracker recognizes it by that")
    check_installed(format)
    dtype = torch.int8 if precision == "int8" else choose_precision(precision)
    path, frozen = find_weights(weights), find_weights(trunk) if trunk else None
    check_output(output, filter(None, (path, frozen)))
    stored = torch.float32 if precision == "int8" else dtype
    checkpoint = load_checkpoint(path, frozen, stored)
    WRITERS[format](checkpoint, output, dtype)
    for file in (output, output.with_name(f"{output.name}.data")):
        if file.is_file():
            typer.echo(f"wrote {file} ({file.stat().st_size / 2**20:.1f} MiB)")
