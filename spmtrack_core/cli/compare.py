"""``spmtrack compare``: weights of ours and the trackers of OpenCV, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spmtrack_core.cli.evaluate import label_of, open_dataset
from spmtrack_core.data.disturb import DISTURBANCES
from spmtrack_core.evaluation.ablation import ablations
from spmtrack_core.evaluation.opencv import opencv_trackers
from spmtrack_core.evaluation.runner import VideoTracker, comparison, plot_comparison, run
from spmtrack_core.files import write_beside
from spmtrack_core.tracking.loading import find_weights, load_tracker


def compare(
    dataset: Annotated[
        str, typer.Argument(help="'folder' (sequences under --root) or 'synthetic'.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for each tracker's results, table, plot.")],
    root: Annotated[Path | None, typer.Option(help="Folder of sequences.")] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="Bundled name or checkpoint; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    nano: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="BACKBONE HEAD", help="ONNX files of OpenCV's NanoTrack."),
    ] = None,
    vit: Annotated[Path | None, typer.Option(help="ONNX file of OpenCV's VitTrack.")] = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="The weights less one part each as well.")
    ] = False,
    disturb: Annotated[
        bool,
        typer.Option("--disturb", help="Each sequence also made harder: careless boxes, dark ..."),
    ] = False,
) -> None:
    """One pass over every sequence for each tracker, all by the same protocol."""
    sequences = open_dataset(dataset, root)
    others, absent = opencv_trackers(nano or (), vit)
    for line in absent:
        typer.echo(line, err=True)
    trackers: dict[str, tuple[str, VideoTracker]] = {}  # by folder: what it is called, itself
    for name in weights or ["nano"]:
        path = find_weights(name)
        trackers[path.stem] = label_of(path), load_tracker(path, device)
        for part, tracker in ablations(path, device).items() if ablate else ():
            trackers[f"{path.stem}, {part}"] = f"{label_of(path)}, {part}", tracker
    for name, other in others.items():
        trackers[name] = f"OpenCV {name}", other
    reports = []
    for folder, (label, each) in trackers.items():
        reports.append(run(each, sequences, output / folder, label))
        for kind, change in DISTURBANCES.items() if disturb else ():
            harder = [change(sequence) for sequence in sequences]
            report = run(each, harder, output / folder / kind, f"{label}, {kind}")
            reports[-1].setdefault("disturbed", {})[kind] = report["mean"]["mean_iou"]
    text = json.dumps(reports, indent=1) + "\n"
    write_beside(output / "comparison.json", lambda path: path.write_text(text))
    plot_comparison(output / "comparison.png", reports)
    Console().print(comparison(reports))
    typer.echo(f"wrote {output / 'comparison.json'} and {output / 'comparison.png'}")
