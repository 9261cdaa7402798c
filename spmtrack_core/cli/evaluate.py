"""``spmtrack eval``: track sequences with known boxes and score the result."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spmtrack_core.data.scene import scene
from spmtrack_core.data.sequence import FrameSequence, read_folder
from spmtrack_core.evaluation.runner import run, table
from spmtrack_core.tracking.loading import find_weights, load_tracker


def evaluate(
    dataset: Annotated[
        str, typer.Argument(help="'folder' (sequences under --root) or 'synthetic'.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for boxes, scores and plot.")],
    root: Annotated[Path | None, typer.Option(help="Folder of sequences.")] = None,
    weights: Annotated[str, typer.Option(help="Bundled name or path of a checkpoint.")] = "nano",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    trunk: Annotated[
        str | None, typer.Option(help="File of the trunk, for weights that hold none.")
    ] = None,
) -> None:
    """One pass over every sequence: named in the first frame, never helped after it."""
    sequences = open_dataset(dataset, root)
    path = find_weights(weights)
    frozen = find_weights(trunk) if trunk else None
    tracker = load_tracker(path, device, precision=precision, trunk=frozen)
    report = run(tracker, sequences, output, label_of(path, frozen, precision))
    Console().print(table(report))
    typer.echo(f"wrote {output / 'results.json'}")


def open_dataset(dataset: str, root: Path | None) -> list[FrameSequence]:
    """The sequences of a dataset by its name; ``ValueError`` for another."""
    if dataset == "synthetic":
        return [scene()]
    if dataset != "folder":
        raise ValueError(f"dataset must be folder or synthetic; got {dataset!r}")
    if root is None:
        raise ValueError("dataset folder needs --root, the folder of its sequences")
    return read_folder(root)


def label_of(path: Path, trunk: Path | None = None, precision: str = "float32") -> str:
    """Name and eight hexadecimal digits that tell one set of weights, as used, from another."""
    digest = hashlib.sha256(precision.encode())
    for each in filter(None, (path, trunk)):
        with each.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return f"{path.stem} {digest.hexdigest()[:8]}"
