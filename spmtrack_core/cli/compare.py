"""``spmtrack compare``: weights, the trackers of OpenCV and others, side by side."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spmtrack_core.cli.evaluate import check_output_folder, open_scored, report_left_out
from spmtrack_core.cli.options import (
    Dataset,
    Device,
    Exclude,
    OutputFolder,
    Root,
    Runtime,
    SeveralWeights,
    Split,
)
from spmtrack_core.evaluation.opencv import OpenCVTracker, opencv_trackers
from spmtrack_core.evaluation.plots import plot_comparison
from spmtrack_core.evaluation.runner import label_of, run_all
from spmtrack_core.evaluation.tables import comparison
from spmtrack_core.evaluation.trax import TraxTracker
from spmtrack_core.tracking.loading import choose_runtime, find_weights, load_tracker
from spmtrack_core.tracking.result import VideoTracker


def compare(
    dataset: Dataset,
    output: OutputFolder,
    root: Root = None,
    split: Split = "test",
    exclude: Exclude = None,
    weights: SeveralWeights = None,
    device: Device = "auto",
    runtime: Runtime = "torch",
    nano: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="BACKBONE HEAD", help="ONNX files of NanoTrack, version 2 or 3."),
    ] = None,
    vit: Annotated[Path | None, typer.Option(help="ONNX file of OpenCV's VitTrack.")] = None,
    trax: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COMMAND", help="A tracker that speaks TraX, by its command; repeatable."
        ),
    ] = None,
    disturb: Annotated[
        bool,
        typer.Option(
            "--disturb", help="Also track each sequence with careless boxes, darkened, shaken ..."
        ),
    ] = False,
) -> None:
    """Evaluate weights, OpenCV's trackers and others side by side.

    Every tracker passes once over every sequence, from the box of the first frame.
    """
    check_output_folder(output, root)
    sequences, left_out = open_scored(dataset, root, split, exclude)
    others, absent = opencv_trackers(nano or (), vit)
    for line in absent:
        typer.echo(line, err=True)
    trackers: dict[str, tuple[str, VideoTracker]] = {}  # by folder: label, tracker
    for name in weights or ["nano"]:
        path = find_weights(name)
        if path.stem in trackers:
            raise ValueError(
                f"several weights are named {path.stem}, as their folders of results would be; "
                "rename one file"
            )
        engine = choose_runtime(path, device, runtime)
        label = label_of(path) if engine == "torch" else f"{label_of(path)} {engine}"
        trackers[path.stem] = label, load_tracker(path, device, runtime=engine)
    files = {"NanoTrack": nano or (), "VitTrack": [vit] if vit else ()}
    for name, other in others.items():
        shown = f"OpenCV {name}" if isinstance(other, OpenCVTracker) else f"{name} v3"
        if used := files.get(name):  # results of other files must not be taken over
            shown += f" {label_of(*used).rpartition(' ')[2]}"
        trackers[name] = shown, other
    for each in trax or ():
        name, equals, command = each.partition("=")
        if not (name and equals and command) or name in trackers:
            raise ValueError(f"--trax must be NAME=COMMAND with a name of its own; got {each!r}")
        digest = hashlib.sha256(command.encode()).hexdigest()[:8]
        trackers[name] = f"{name} {digest}", TraxTracker(command)
    reports = run_all(trackers, sequences, output, disturb, left_out)
    plot_comparison(output / "comparison.png", reports)
    Console(markup=False).print(comparison(reports))
    typer.echo(f"wrote {output / 'comparison.json'} and {output / 'comparison.png'}")
    report_left_out(reports)
