"""``spmtrack benchmark``: frames per second on this computer."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import multiprocessing
import multiprocessing.synchronize
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from spmtrack_core.cli.options import Device, SeveralWeights
from spmtrack_core.evaluation.speed import frame_times, machine, tables
from spmtrack_core.files import check_output, write_text
from spmtrack_core.tracking.host_engine import cores
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
            help="What computes the network, as for track; may be repeated.", show_default="auto"
        ),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            help="Threads of the network; 0: as many as are worth it; may be repeated.",
            show_default="0",
        ),
    ] = None,
    size: Annotated[
        tuple[int, int], typer.Option(help="Width and height of the frames, pixels.")
    ] = (640, 480),
    targets: Annotated[int, typer.Option(help="Targets that are followed at once.")] = 1,
    rate: Annotated[
        float, typer.Option(help="Frames a second of the camera; 0: frame after frame.")
    ] = 0.0,
    busy: Annotated[
        bool,
        typer.Option("--busy", help="Measure again while other processes load every core."),
    ] = False,
    seconds: Annotated[float, typer.Option(help="Time spent on each line of the table.")] = 5.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON to write.")] = None,
) -> None:
    """Measure frames per second on this computer.

    A frame goes from image to boxes. Prints the median and the 95th percentile, and, on the CPU,
    what the time is spent on: the network, new reference frames, crops and the rest.
    """
    if output:
        check_output(output)
    if min(size) < 16 or targets < 1 or not 0 <= rate < math.inf or not 0 < seconds < math.inf:
        raise ValueError(
            "size must be at least 16 16, targets at least 1, rate at least 0 and seconds above "
            f"0; got {size}, {targets}, {rate:g} and {seconds:g}"
        )
    console, rows = Console(markup=False), []
    settings = itertools.product(
        weights or ["nano"], precision or ["float32"], runtime or ["auto"], threads or [0]
    )
    for name, each, engine, count in settings:
        with console.status(f"measuring {name} in {each}, runtime {engine}, threads {count}"):
            tracker = load_tracker(name, device, precision=each, runtime=engine, threads=count)
            tracker.warm_up()
            for load in ("quiet", "busy") if busy else ("quiet",):
                about = {
                    "model": name,
                    "precision": each,
                    "layout": "tracker",
                    "runtime": tracker.runtime,
                    "load": load,
                    "threads": tracker.threads,
                    "batch": targets,
                    "size": size,
                    "rate": rate,
                }
                with other_load() if load == "busy" else contextlib.nullcontext():
                    hw = size[1], size[0]
                    rows.append(about | frame_times(tracker, seconds, hw, targets, rate))
    report = machine(tracker.device) | {"rows": rows}
    versions = f"PyTorch {report['torch']}, OpenVINO {report['openvino'] or 'not installed'}"
    console.print(f"{report['device']}, {report['cores']} cores, {versions}")
    console.print(*tables(rows))
    if output:
        write_text(output, json.dumps(report, indent=1) + "\n")
        typer.echo(f"wrote {output}")


@contextlib.contextmanager
def other_load() -> Iterator[None]:
    """Processes that multiply matrices, one for each core, as the other nodes of a robot would."""
    spawn, count = multiprocessing.get_context("spawn"), cores()
    ready = spawn.Barrier(count + 1)
    loads = [spawn.Process(target=multiply, args=(ready,), daemon=True) for _ in range(count)]
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported
    try:
        for process in loads:
            process.start()
        ready.wait(timeout=120)
        yield
    finally:
        os.environ.pop("OPENBLAS_NUM_THREADS")
        if before is not None:
            os.environ["OPENBLAS_NUM_THREADS"] = before
        for process in loads:
            process.kill()
            process.join()


def multiply(ready: multiprocessing.synchronize.Barrier) -> None:
    """Multiply matrices on one core until the process is killed."""
    matrix = np.random.default_rng(0).random((256, 256), np.float32)
    ready.wait()
    while True:
        np.matmul(matrix, matrix)
