"""``spmtrack track``: follow a target through a video, without ROS."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spmtrack_core.cli.options import Device, Precision, Trunk, Weights
from spmtrack_core.data.recording import VideoRecorder, write_boxes
from spmtrack_core.data.video import open_frames
from spmtrack_core.geometry.drawing import GREEN, ORANGE, draw_box
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.loop import track_frames
from spmtrack_core.tracking.result import TrackState

CONTEXT_SETTINGS = {"ignore_unknown_options": True}  # a box may have negative numbers


def track(
    source: Annotated[
        str, typer.Argument(help="Video file, folder of images, camera index or 'synthetic'.")
    ],
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            metavar="X Y W H",
            help="Box of the target in the first frame, pixels; a source may have its own.",
        ),
    ] = None,
    weights: Weights = "nano",
    device: Device = "auto",
    precision: Precision = "float32",
    trunk: Trunk = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Annotated video (mp4) to write.")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="Text file to write: x,y,w,h of every frame, the given box first."),
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(help="Stop after so many frames; a camera runs until Ctrl-C.")
    ] = None,
) -> None:
    """Follow a target through a video, a folder of images or a camera."""
    sequence = open_frames(source, max_frames)
    if box is None:
        if sequence.boxes_xywh is None:
            raise ValueError(f"{source} has no box of a target; give one with --box X Y W H")
        box = tuple(sequence.boxes_xywh[0].tolist())
    tracker = load_tracker(weights, device, precision=precision, trunk=trunk)
    tracked = track_frames(tracker, sequence, box)
    first = next(tracked, None)  # before anything is shown or written: this is where users err
    if first is None:
        raise ValueError(f"{source} gave no frame")
    found = [first.result.box_xywh]
    seconds: list[float] = []
    lost = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[rate]}"), TimeRemainingColumn())  # fmt: skip
    with ExitStack() as stack:
        recorder = output and stack.enter_context(VideoRecorder(output, sequence.fps or 30.0))
        if recorder:
            recorder.write(draw_box(first.frame, box, "target"))
        bar = stack.enter_context(Progress(*columns, console=Console(stderr=True)))
        task = bar.add_task(f"tracking {sequence.name}", total=sequence.length, rate="")
        bar.advance(task)
        try:
            for frame, result, duration in tracked:
                seconds.append(duration)
                found.append(result.box_xywh)
                label, color = f"{result.confidence:.2f}", GREEN
                if result.state is TrackState.LOST:
                    lost, label, color = lost + 1, f"lost {label}", ORANGE
                if recorder:
                    recorder.write(draw_box(frame, result.box_xywh, label, color))
                bar.update(task, advance=1, rate=f"{1 / np.median(seconds[-50:]):.0f} fps")
        except KeyboardInterrupt:
            bar.console.print("stopped; what was tracked so far is written")
    if boxes:
        write_boxes(boxes, found)
    text = f"{len(found)} frames, lost in {lost}"
    if seconds:
        middle, slow = np.percentile(seconds, (50, 95)) * 1000
        text += f", {middle:.1f} ms a frame (95 %: {slow:.1f} ms) on {tracker.device}"
    typer.echo(text)
    for path in (output, boxes):
        if path:
            typer.echo(f"wrote {path}")
