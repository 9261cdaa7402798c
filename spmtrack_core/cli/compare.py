"""``spmtrack compare``: weights and the trackers of OpenCV, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spmtrack_core.cli.evaluate import check_output_folder, open_dataset, report_left_out
from spmtrack_core.cli.options import (
    Dataset,
    Device,
    Exclude,
    OutputFolder,
    Root,
    SeveralWeights,
    Split,
)
from spmtrack_core.evaluation.opencv import opencv_trackers
from spmtrack_core.evaluation.plots import plot_comparison
from spmtrack_core.evaluation.runner import label_of, run_all
from spmtrack_core.evaluation.tables import comparison
from spmtrack_core.tracking.loading import find_weights, load_tracker
from spmtrack_core.tracking.result import VideoTracker


def compare(
    dataset: Dataset,
    output: OutputFolder,
    root: Root = None,
    split: Split = "test",
    exclude: Exclude = None,
    weights: SeveralWeights = None,
    device: Device = "auto",
    nano: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="BACKBONE HEAD", help="ONNX files of OpenCV's NanoTrack."),
    ] = None,
    vit: Annotated[Path | None, typer.Option(help="ONNX file of OpenCV's VitTrack.")] = None,
    disturb: Annotated[
        bool,
        typer.Option(
            "--disturb", help="Also track each sequence with careless boxes, darkened, shaken ..."
        ),
    ] = False,
) -> None:
    """Evaluate weights and OpenCV's trackers side by side.

    Every tracker passes once over every sequence, from the box of the first frame.
    """
    check_output_folder(output, root)
    sequences, left_out = open_dataset(dataset, root, split, exclude)
    others, absent = opencv_trackers(nano or (), vit)
    for line in absent:
        typer.echo(line, err=True)
    trackers: dict[str, tuple[str, VideoTracker]] = {}  # by folder: label, tracker
    for name in weights or ["nano"]:
        path = find_weights(name)
        trackers[path.stem] = label_of(path), load_tracker(path, device)
    for name, other in others.items():
        trackers[name] = f"OpenCV {name}", other
    reports = run_all(trackers, sequences, output, disturb, left_out)
    plot_comparison(output / "comparison.png", reports)
    Console().print(comparison(reports))
    typer.echo(f"wrote {output / 'comparison.json'} and {output / 'comparison.png'}")
    report_left_out(reports)
