"""``spmtrack export``: write the network for another runtime."""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.console import Console

from spmtrack_core.cli.options import OutputFile, Trunk, Weights
from spmtrack_core.export import FORMATS, check_installed
from spmtrack_core.files import check_output
from spmtrack_core.model.weights import choose_precision, load_checkpoint
from spmtrack_core.tracking.loading import find_weights


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

    As two networks, one of them for reference frames: docs/export.md has their inputs and outputs.
    The tracker makes crops and keeps reference frames.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {format!r}")
    write, precisions, (suffix, *others) = FORMATS[format]
    if precision not in precisions:
        raise ValueError(
            f"precision of an export to {format} must be {' or '.join(precisions)}; "
            f"got {precision!r}"
        )
    if output.suffix != suffix or output.name.endswith(tuple(others)):
        raise ValueError(
            f"with --format {format}, {output} must end in "
            f"{' but not in '.join((suffix, *others))}; what reads it recognizes it by that"
        )
    int8 = precision == "int8"  # rounded while writing
    check_installed(format, int8)
    path, frozen = find_weights(weights), find_weights(trunk) if trunk else None
    for each in (output, *(output.with_suffix(other) for other in others)):
        check_output(each, [file for file in (path, frozen) if file])
    dtype = torch.float32 if int8 else choose_precision(precision)
    checkpoint = load_checkpoint(path, frozen, dtype)
    with Console(stderr=True).status("tracing and writing both networks: minutes"):
        files = write(checkpoint, output, torch.int8 if int8 else dtype)
    for file in files:
        typer.echo(f"wrote {file} ({file.stat().st_size / 2**20:.1f} MiB)")
