"""``spmtrack eval``: track sequences with known boxes and score the result."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spmtrack_core.data.scene import scene
from spmtrack_core.data.sequence import read_folder
from spmtrack_core.evaluation.runner import run, table
from spmtrack_core.tracking.tracker import find_weights, load_tracker


def evaluate(
    dataset: Annotated[
        str, typer.Argument(help="'folder' (sequences under --root) or 'synthetic'.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for boxes, scores and plot.")],
    root: Annotated[Path | None, typer.Option(help="Folder of sequences.")] = None,
    weights: Annotated[str, typer.Option(help="Bundled name or path of a checkpoint.")] = "nano",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """One pass over every sequence: named in the first frame, never helped after it."""
    if dataset == "synthetic":
        sequences = [scene()]
    elif dataset == "folder":
        if root is None:
            raise ValueError("dataset folder needs --root, the folder of its sequences")
        sequences = read_folder(root)
    else:
        raise ValueError(f"dataset must be folder or synthetic; got {dataset!r}")
    path = find_weights(weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    label = f"{path.stem} {digest}"  # the digest keeps runs of other weights apart
    report = run(load_tracker(path, device), sequences, output, label)
    Console().print(table(report))
    typer.echo(f"wrote {output / 'results.json'}")
