"""``spmtrack benchmark``: frames per second on this computer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spmtrack_core.cli.options import Device, SeveralWeights
from spmtrack_core.evaluation.speed import frame_times, machine, table
from spmtrack_core.files import check_output, write_beside
from spmtrack_core.tracking.loading import load_tracker


def benchmark(
    weights: SeveralWeights = None,
    device: Device = "auto",
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Precision: float32, bfloat16 or float16; may be repeated.",
            show_default="float32",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time spent on each line of the table.")] = 5.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON to write.")] = None,
) -> None:
    """Measure frames per second on this computer.

    A frame is one of 640x480 pixels, from image to box. Prints the median and the 95th percentile.
    """
    if output:
        check_output(output)
    console = Console()
    rows = []
    for name in weights or ["nano"]:
        for each in precision or ["float32"]:
            with console.status(f"measuring {name} in {each}"):
                tracker = load_tracker(name, device, precision=each)
                times = frame_times(tracker, seconds)
            about = {"model": name, "precision": each, "layout": "tracker", "batch": 1}
            rows.append(about | times)
    report = machine(tracker.device) | {"rows": rows}
    console.print(f"{report['device']}, {report['threads']} threads, PyTorch {report['torch']}")
    console.print(table(rows))
    if output:
        text = json.dumps(report, indent=1) + "\n"
        write_beside(output, lambda beside: beside.write_text(text))
        typer.echo(f"wrote {output}")
