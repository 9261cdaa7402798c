"""``spmtrack live``: name targets with the mouse, in the browser, and watch them followed."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from spmtrack_core.cli.options import (
    Device,
    Policy,
    Precision,
    Runtime,
    Source,
    Threads,
    Trunk,
    Weights,
)
from spmtrack_core.cli.tracker import ready_tracker
from spmtrack_core.data.recording import check_video_path
from spmtrack_core.data.video import files_of, open_frames, without_password
from spmtrack_core.files import check_output
from spmtrack_core.live.tracking import LiveTracking
from spmtrack_core.tracking.loading import weight_files


def live(
    source: Source,
    weights: Weights = "nano",
    device: Device = "auto",
    precision: Precision = "float32",
    trunk: Trunk = None,
    runtime: Runtime = "torch",
    threads: Threads = 0,
    policy: Policy = "weights",
    record: Annotated[
        Path | None,
        typer.Option(help="Video (mp4) to write of all that is shown, boxes in .txt beside it."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve the page on; 0.0.0.0 for other computers.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0: any that is free.")] = 8642,
) -> None:
    """Name targets with the mouse in a browser and watch them followed, until Ctrl-C.

    A video waits at its first frame for you to draw a box; a camera plays at once. On another
    address than 127.0.0.1, the page needs the token in the printed URL.
    """
    inputs = [*files_of(source), *weight_files(weights, trunk)]
    if record:
        check_video_path(record)
        check_output(record, inputs)
    sequence = open_frames(source, with_boxes=False)
    if not sequence.live and next(iter(sequence), None) is None:
        raise ValueError(f"{without_password(source)} gave no frame")
    tracker = ready_tracker(weights, device, precision, trunk, runtime, threads, policy)
    page = LiveTracking(sequence, tracker, host, port, record)
    written: list[Path] = []
    try:
        typer.echo(f"{sequence.name} on {tracker.device}: open {page.server.url} (end: Ctrl-C)")
        page.start()
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    finally:
        written = page.close()
    for path in written:
        typer.echo(f"wrote {path}")
    if page.fault:
        raise OSError(page.fault)
