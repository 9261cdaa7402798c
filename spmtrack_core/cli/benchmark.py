"""``spmtrack benchmark``: frames per second on this machine, and memory that stays flat."""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from spmtrack_core.data.scene import scene
from spmtrack_core.evaluation.benchmark import best_rate, machine, measure, plot, table
from spmtrack_core.files import write_beside
from spmtrack_core.tracking.loading import choose_device, choose_precision, emulated, load_tracker


def benchmark(
    model: Annotated[
        list[str] | None,
        typer.Option(help="nano, spmtrack_b, _l, _g or a checkpoint; may be repeated."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        list[str] | None,
        typer.Option(help="float32, bfloat16, float16; may be repeated. Else: what is fast here."),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Targets in one pass, 1 to 16; may be repeated.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Time spent on each line of the table; CPU 5, CUDA 1.5.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON to write; a PNG comes beside it.")
    ] = None,
) -> None:
    """Measure every layout of the network, and whole frames, against a plain product."""
    place = choose_device(device)
    cuda = place.type == "cuda"
    usual = ["bfloat16", "float16"] if cuda else ["float32"]
    if not (cuda or emulated("bfloat16", place)):
        usual.append("bfloat16")
    precisions = tuple(precision or usual)
    for each in precisions:
        choose_precision(each)
    batches = tuple(batch or ([1, 2, 4, 8, 16] if cuda else [1]))
    if not all(1 <= each <= 16 for each in batches):
        raise ValueError(f"batch must be 1 to 16; got {min(batches)} to {max(batches)}")
    console = Console()
    names = model or ["nano", "spmtrack_b", *(["spmtrack_l", "spmtrack_g"] if cuda else [])]
    seconds = seconds or (1.5 if cuda else 5.0)
    rows: list[dict[str, Any]] = []
    about = machine(place)
    with torch.cuda.device(place) if cuda else contextlib.nullcontext():
        rates = {each: best_rate(place, each, 1.0) for each in precisions}
        for name in names:
            with console.status(f"measuring {name}"):
                for row in measure(name, place, precisions, batches, seconds):
                    rows.append(row)
                    if output:  # what was measured stays, whatever comes
                        peak = max(r["memory_bytes"] for r in rows) if cuda else _resident()
                        report = about | {"best_flop_per_s": rates, "peak_memory_bytes": peak,
                                          "rows": rows}  # fmt: skip
                        text = json.dumps(report, indent=1) + "\n"
                        write_beside(output, partial(Path.write_text, data=text))
    if not rows:
        raise ValueError("nothing could be measured: the warnings say why")
    for each, rate in rates.items():
        console.print(f"a product of matrices in {each}: {rate / 1e12:.2f} TFLOP/s")
    console.print(table(rows, rates))
    if output:
        plot(rows, about["device"], output.with_suffix(".png"))
        typer.echo(f"wrote {output} and {output.with_suffix('.png')}")


def soak(
    frames: Annotated[int, typer.Option(help="Frames to track.")] = 100_000,
    weights: Annotated[str, typer.Option(help="Bundled name or path of a checkpoint.")] = "nano",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    allowed_mib: Annotated[float, typer.Option(help="Growth after the first tenth, MiB.")] = 16.0,
) -> None:
    """Track the built-in scene over and over: memory must not grow."""
    if frames < 20:
        raise ValueError(f"a soak needs at least 20 frames; got {frames}")
    tracker = load_tracker(weights, device)
    sequence = scene()
    images = list(itertools.islice(sequence, 60))
    tracker.init(images[0], sequence.boxes_xywh[0])  # type: ignore[index]
    settled, step = 0, max(1, frames // 10)
    for index in range(1, frames + 1):
        # there and back, so that the target goes on smoothly
        turn = index % (2 * len(images) - 2)
        tracker.update(images[min(turn, 2 * len(images) - 2 - turn)])
        if index % step == 0:
            memory = _resident(now=True)
            if tracker.device.type == "cuda":
                memory += torch.cuda.memory_reserved(tracker.device)
            settled = settled or memory
            typer.echo(f"{index:,} frames: {memory / 2**20:.1f} MiB")
    growth = (memory - settled) / 2**20
    if growth > allowed_mib:
        raise ValueError(f"memory grew by {growth:.1f} MiB after the first {step:,} frames")
    typer.echo(f"flat: {growth:+.1f} MiB after the first {step:,} frames")


def _resident(now: bool = False) -> int:
    """Bytes of this process in memory: at their peak, or now."""
    if now:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
