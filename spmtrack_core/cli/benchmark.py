"""``spmtrack benchmark``: frames per second on this computer."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import multiprocessing.synchronize
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
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
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="What computes the network: torch or openvino; may be repeated.",
            show_default="torch",
        ),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            help="Threads of the network; may be repeated.", show_default="one for each core"
        ),
    ] = None,
    size: Annotated[
        tuple[int, int], typer.Option(help="Width and height of the frames, pixels.")
    ] = (640, 480),
    targets: Annotated[int, typer.Option(help="Targets that are followed at once.")] = 1,
    busy: Annotated[
        bool,
        typer.Option("--busy", help="Measure again while other processes load every core."),
    ] = False,
    seconds: Annotated[float, typer.Option(help="Time spent on each line of the table.")] = 5.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON to write.")] = None,
) -> None:
    """Measure frames per second on this computer.

    A frame goes from image to boxes. Prints the median and the 95th percentile.
    """
    if output:
        check_output(output)
    if min(size) < 16 or targets < 1 or min(threads or [1]) < 1:
        raise ValueError(
            "size must be at least 16 16, targets and threads at least 1; got "
            f"{size}, {targets}, {threads}"
        )
    console, rows, usual = Console(), [], torch.get_num_threads()
    settings = itertools.product(
        weights or ["nano"], precision or ["float32"], runtime or ["torch"], threads or [usual]
    )
    try:
        for name, each, engine, count in settings:
            with console.status(f"measuring {name} in {each}, {engine}, {count} threads"):
                torch.set_num_threads(count)
                tracker = load_tracker(name, device, precision=each, runtime=engine)
                for load in ("quiet", "busy") if busy else ("quiet",):
                    about = {"model": name, "precision": each, "layout": "tracker"}
                    about |= {"runtime": engine, "load": load}
                    with other_load() if load == "busy" else contextlib.nullcontext():
                        times = frame_times(tracker, seconds, (size[1], size[0]), targets)
                    rows.append(about | {"threads": count, "batch": targets, "size": size} | times)
    finally:
        torch.set_num_threads(usual)
    report = machine(tracker.device) | {"rows": rows}
    console.print(f"{report['device']}, {report['threads']} cores, PyTorch {report['torch']}")
    console.print(table(rows))
    if output:
        text = json.dumps(report, indent=1) + "\n"
        write_beside(output, lambda beside: beside.write_text(text))
        typer.echo(f"wrote {output}")


@contextlib.contextmanager
def other_load() -> Iterator[None]:
    """Processes that multiply matrices, one for each core, as the other nodes of a robot would."""
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(multiprocessing.cpu_count() + 1)
    loads = [
        spawn.Process(target=multiply, args=(ready,), daemon=True)
        for _ in range(multiprocessing.cpu_count())
    ]
    try:
        for process in loads:
            process.start()
        ready.wait(timeout=120)
        yield
    finally:
        for process in loads:
            process.kill()
            process.join()


def multiply(ready: multiprocessing.synchronize.Barrier) -> None:
    """Multiply matrices on one core until the process is killed."""
    torch.set_num_threads(1)
    matrix = torch.rand(256, 256)
    ready.wait()
    while True:
        torch.mm(matrix, matrix)
