"""``spmtrack track``: follow a target through a video, without ROS."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spmtrack_core.cli.ending import Ending, begin_to_end
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
from spmtrack_core.data.recording import VideoRecorder, check_video_path, write_boxes
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.data.video import files_of, open_frames, without_password
from spmtrack_core.evaluation.track_report import TrackReport
from spmtrack_core.files import check_outputs, one_line
from spmtrack_core.geometry.drawing import DASHED, DOTTED, GREEN, ORANGE, Color, Dash, draw_box
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.loading import weight_files
from spmtrack_core.tracking.loop import TrackedFrame, track_frames
from spmtrack_core.tracking.propose import propose_box
from spmtrack_core.tracking.result import TrackState
from spmtrack_core.tracking.tracker import Tracker

CONTEXT_SETTINGS = {"ignore_unknown_options": True}  # a box may have negative numbers


def track(
    source: Source,
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            metavar="X Y W H",
            help="Box of the target in the first frame, pixels; a source may have its own.",
        ),
    ] = None,
    point: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="X Y",
            help="Point on the target in the first frame, best near its middle; the box is "
            "proposed from the image.",
        ),
    ] = None,
    weights: Weights = "nano",
    device: Device = "auto",
    precision: Precision = "float32",
    trunk: Trunk = None,
    runtime: Runtime = "torch",
    threads: Threads = 0,
    policy: Policy = "weights",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Annotated video (mp4) to write.")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Text file to write: x,y,w,h of every frame, the given box first; where the "
            "target is lost, the best guess."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Page (html) to write, in one file: the annotated clip, the confidence over "
            "time, the moments of loss and return."
        ),
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(help="Stop after so many frames; a camera runs until Ctrl-C.")
    ] = None,
) -> None:
    """Follow a target through a video, a folder of images or a camera.

    What was tracked is written whatever ends the run: Ctrl-C, a broken frame (exit code 2) or a
    full disk.
    """
    inputs = [*files_of(source), *weight_files(weights, trunk)]
    if output:
        check_video_path(output)
    check_outputs((output, boxes, report), inputs)
    if report and report.suffix.lower() not in ("", ".html", ".htm"):  # /dev/stdout has none
        raise ValueError(f"a report is written as .html; got {report}")
    if box is not None and point is not None:
        raise ValueError("give --box or --point, not both")
    sequence = open_frames(source, max_frames, with_boxes=box is None and point is None)
    start: Any = box
    shown = without_password(source)
    if box is None and point is None:
        if sequence.boxes_xywh is None:
            raise ValueError(
                f"{shown} has no box of a target; give one with --box X Y W H, or a point on the "
                "target with --point X Y"
            )
        start = sequence.boxes_xywh[0].tolist()
    tracker = ready_tracker(weights, device, precision, trunk, runtime, threads, policy)
    if point is not None:
        start = partial(_propose, tracker, point)
    tracked = track_frames(tracker, sequence, start)
    first = next(tracked, None)  # before anything is shown or written: this is where users err
    if first is None:
        raise ValueError(f"{shown} gave no frame")
    with ExitStack() as stack:
        page = None
        if report:
            page = stack.enter_context(TrackReport(report, sequence.fps, sequence.length))
        run = _follow(sequence, itertools.chain((first,), tracked), output, page)
        facts = {}
        if len(run.seconds) > 1:
            middle, slow = np.percentile(run.seconds[1:], (50, 95)) * 1000
            facts = {"a frame, median": f"{middle:.1f} ms", "a frame, 95 %": f"{slow:.1f} ms"}
        if boxes:
            run.write(boxes, partial(write_boxes, boxes, run.boxes_xywh))
        if page and report and page.add in run.recorders:
            title = f"{sequence.name} tracked", f"{shown}; weights {weights} on {tracker.device}"
            run.write(report, partial(page.close, *title, facts, tracker.config.lost_threshold))
    text = f"{len(run.boxes_xywh)} frames, lost in {run.lost}"
    if facts:
        text += f", {middle:.1f} ms a frame (95 %: {slow:.1f} ms) on {tracker.device}"
    typer.echo(text)
    for path in run.written:
        typer.echo(f"wrote {path}")
    if run.errors:
        raise ValueError("; ".join(map(str, run.errors)))


def _propose(tracker: Tracker, point: tuple[float, float], frame: Image) -> Sequence[float]:
    box = propose_box(tracker, frame, point)
    typer.echo("box proposed: --box {:.1f} {:.1f} {:.1f} {:.1f}".format(*box))
    return box


@dataclass
class _Run(Ending):
    """What came of the frames up to the end, or to whatever ended it."""

    boxes_xywh: list[tuple[float, ...]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    recorders: list[Callable[[TrackedFrame, Image], None]] = field(default_factory=list)
    """What gets each frame and its drawing; those that failed are removed."""


def _follow(
    sequence: FrameSequence,
    tracked: Iterable[TrackedFrame],
    output: Path | None,
    page: TrackReport | None,
) -> _Run:
    """Track to the end, to Ctrl-C or to a frame that is broken; record the video and the report.

    A recording that cannot be written any further is given up, and the tracking goes on.
    """
    run, video = _Run(recorders=[page.add] if page else []), None
    last_seen = None

    def record_video(tracked: TrackedFrame, drawn: Image) -> None:
        if video:
            video.write(drawn, tracked.time)

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with ExitStack() as stack:
        bar = stack.enter_context(
            Progress(*columns, console=Console(stderr=True, soft_wrap=True, markup=False))
        )
        task = bar.add_task(f"tracking {sequence.name}", total=sequence.length, rate="")
        if output:
            video = VideoRecorder(output, sequence.fps or 30.0)
            stack.callback(video.discard)  # leaves a file that is complete
            run.recorders.append(record_video)
        try:
            for each in tracked:
                run.boxes_xywh.append(each.result.box_xywh)
                run.seconds.append(each.seconds)
                run.lost += each.result.state is TrackState.LOST
                if each.result.state is not TrackState.LOST:
                    last_seen = each.result.box_xywh
                drawn = _drawn(each, last_seen) if run.recorders else each.frame
                for record in list(run.recorders):
                    try:
                        record(each, drawn)
                    except (OSError, ValueError) as error:
                        bar.console.print(str(error))
                        run.errors.append(error)
                        run.recorders.remove(record)
                rate = 1 / np.median(run.seconds[1:][-50:] or run.seconds)
                bar.update(task, advance=1, rate=f"{rate:.0f} fps")
        except KeyboardInterrupt:
            bar.console.print("stopped; what was tracked so far is written")
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            run.errors.append(ValueError(f"frame {len(run.boxes_xywh) + 1}: {one_line(error)}"))
        begin_to_end()
        if video and output and record_video in run.recorders:
            run.write(output, video.close)
    return run


_OUTLINES: dict[TrackState, tuple[str, Color, Dash | None]] = {
    TrackState.TRACKING: ("", GREEN, None),
    TrackState.UNCERTAIN: ("uncertain ", ORANGE, DASHED),
    TrackState.LOST: ("lost ", ORANGE, DOTTED),
}
"""Word, color and dashes of a state: as the live page draws it."""


def _drawn(tracked: TrackedFrame, last_seen: Sequence[float] | None) -> Image:
    """A frame with the target's box, or with the one that was seen last."""
    result = tracked.result
    word, color, dash = _OUTLINES[result.state]
    label = "target" if math.isnan(result.confidence) else f"{word}{result.confidence:.2f}"
    return draw_box(tracked.frame, last_seen, label, color, dash)
