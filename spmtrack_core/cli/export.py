"""``spmtrack export``: the network for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from spmtrack_core.export import check_installed, export_onnx, export_tensorrt, export_torch
from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.tracking.loading import choose_precision, find_weights

WRITERS = {"onnx": export_onnx, "torch": export_torch, "tensorrt": export_tensorrt}


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    weights: Annotated[str, typer.Option(help="Bundled name or path of a checkpoint.")] = "nano",
    format: Annotated[
        str,
        typer.Option(help="onnx, torch (torch.export, .pt2) or tensorrt (for this GPU)."),
    ] = "onnx",
    trunk: Annotated[
        str | None, typer.Option(help="File of the trunk, for weights that hold none.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of the products: float32, float16, or int8 for onnx.")
    ] = "float32",
) -> None:
    """Write one step of the network, without the tracker around it, for other runtimes."""
    if format not in WRITERS:
        raise ValueError(f"format must be one of {', '.join(WRITERS)}; got {format!r}")
    choices = ("float32", "float16", "int8") if format == "onnx" else ("float32", "float16")
    if precision not in choices:
        raise ValueError(
            f"precision of an export to {format} is {' or '.join(choices)}; got {precision!r}"
        )
    if format == "onnx" and output.suffix != ".onnx":
        raise ValueError(f"{output} must end in .onnx, by which the tracker knows it")
    check_installed(format)
    dtype = torch.int8 if precision == "int8" else choose_precision(precision)
    path = find_weights(weights)
    if output.exists() and output.samefile(path):
        raise ValueError(f"{output} is the source itself: name another output")
    maps = torch.float32 if precision == "int8" else dtype
    checkpoint = load_checkpoint(path, trunk and find_weights(trunk), maps)
    WRITERS[format](checkpoint, output, dtype)
    for file in (output, output.with_name(f"{output.name}.data")):
        if file.is_file():
            typer.echo(f"wrote {file} ({file.stat().st_size / 2**20:.1f} MiB)")
