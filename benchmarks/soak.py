"""Tracks the built-in scene over and over, and checks that memory does not grow.

python benchmarks/soak.py --frames 100000
"""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from spmtrack_core.cli import run_command
from spmtrack_core.cli.options import Device, Weights
from spmtrack_core.data.scene import scene
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.loop import track_frames


def soak(
    frames: Annotated[int, typer.Option(help="Frames to track.")] = 100_000,
    weights: Weights = "nano",
    device: Device = "auto",
    allowed_mib: Annotated[
        float, typer.Option(help="Allowed growth after the first tenth, MiB.")
    ] = 16.0,
) -> None:
    """Track the built-in scene over and over; exit code 2 if memory grows."""
    if frames < 20:
        raise ValueError(f"frames must be at least 20; got {frames}")
    tracker = load_tracker(weights, device)
    sequence = scene()
    assert sequence.boxes_xywh is not None
    images = list(itertools.islice(sequence, 60))
    tracked = track_frames(tracker, there_and_back(images), sequence.boxes_xywh[0])
    settled, tenth = 0, max(1, frames // 10)
    for index, _ in enumerate(itertools.islice(tracked, frames + 1)):
        if index and index % tenth == 0:
            memory = resident_bytes()
            if tracker.device.startswith("cuda"):
                memory += torch.cuda.memory_reserved(tracker.device)
            settled = settled or memory
            typer.echo(f"{index:,} frames: {memory / 2**20:.1f} MiB")
    growth = (memory - settled) / 2**20
    if growth > allowed_mib:
        raise ValueError(f"memory grew by {growth:.1f} MiB after the first {tenth:,} frames")
    typer.echo(f"flat: {growth:+.1f} MiB after the first {tenth:,} frames")


def there_and_back(images: Sequence[Image]) -> Iterator[Image]:
    """The images forwards and backwards without end, so that the target moves smoothly."""
    return itertools.cycle([*images, *images[-2:0:-1]])


def resident_bytes(process: int | str = "self") -> int:
    """Memory of a process, by default of this one."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    run_command(lambda: typer.run(soak))
