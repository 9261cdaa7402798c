"""``spmtrack compare``: weights of ours and the trackers of OpenCV, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spmtrack_core.cli.evaluate import label_of, open_dataset
from spmtrack_core.evaluation.ablation import ablations
from spmtrack_core.evaluation.opencv import opencv_trackers
from spmtrack_core.evaluation.runner import comparison, plot_comparison, run
from spmtrack_core.files import write_beside
from spmtrack_core.tracking.tracker import find_weights, load_tracker


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
) -> None:
    """One pass over every sequence for each tracker, all by the same protocol."""
    sequences = open_dataset(dataset, root)
    others, absent = opencv_trackers(nano or (), vit)
    for line in absent:
        typer.echo(line, err=True)
    reports = []
    for name in weights or ["nano"]:
        path = find_weights(name)
        reports.append(
            run(load_tracker(path, device), sequences, output / path.stem, label_of(path))
        )
        for part, tracker in ablations(path, device).items() if ablate else ():
            folder = output / f"{path.stem}, {part}"
            reports.append(run(tracker, sequences, folder, f"{label_of(path)}, {part}"))
    for name, other in others.items():
        reports.append(run(other, sequences, output / name, f"OpenCV {name}"))
    text = json.dumps(reports, indent=1) + "\n"
    write_beside(output / "comparison.json", lambda path: path.write_text(text))
    plot_comparison(output / "comparison.png", reports)
    Console().print(comparison(reports))
    typer.echo(f"wrote {output / 'comparison.json'} and {output / 'comparison.png'}")
