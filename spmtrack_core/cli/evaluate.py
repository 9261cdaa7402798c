"""``spmtrack eval``: track sequences with known boxes and score the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from spmtrack_core.cli.options import (
    Dataset,
    Device,
    Exclude,
    OutputFolder,
    Precision,
    Root,
    Runtime,
    Split,
    Trunk,
    Weights,
)
from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import READERS, open_sequences
from spmtrack_core.data.scene import scene
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.report import table
from spmtrack_core.evaluation.runner import label_of, run
from spmtrack_core.files import check_output
from spmtrack_core.tracking.loading import find_weights, load_tracker


def evaluate(
    dataset: Dataset,
    output: OutputFolder,
    root: Root = None,
    split: Split = "test",
    exclude: Exclude = None,
    weights: Weights = "nano",
    device: Device = "auto",
    precision: Precision = "float32",
    trunk: Trunk = None,
    runtime: Runtime = "torch",
) -> None:
    """Track sequences with known boxes and score the result.

    One pass over every sequence: the tracker gets the box of the first frame, and no help later.
    Sequences that are broken are left out and named at the end; the exit code is then 3.
    """
    check_output_folder(output, root)
    sequences, left_out = open_dataset(dataset, root, split, exclude)
    path = find_weights(weights)
    frozen = find_weights(trunk) if trunk else None
    tracker = load_tracker(path, device, precision=precision, trunk=frozen, runtime=runtime)
    report = run(tracker, sequences, output, label_of(path, frozen, precision), left_out)
    Console().print(table(report))
    typer.echo(f"wrote {output / 'results.json'}")
    report_left_out([report])


def check_output_folder(output: Path, root: Path | None) -> None:
    """Raise ``ValueError`` or ``OSError`` unless results can be kept in ``output``."""
    if root and output.resolve() == root.resolve():
        raise ValueError(f"{output} is the folder of the dataset; choose another output")
    check_output(output / "results.json")


def report_left_out(reports: Sequence[dict[str, Any]]) -> None:
    """Name what was left out of these reports at the end, with exit code 3; else do nothing."""
    keys = ("left_out", "disturbed_left_out")
    found = (fault for report in reports for key in keys for fault in report.get(key, ()))
    faults = list(dict.fromkeys(found))
    if faults:
        done = min(len(report["sequences"]) for report in reports)
        total = max(len(report["sequences"]) + len(report["left_out"]) for report in reports)
        typer.echo(f"spmtrack: {done} of {total} sequences evaluated; left out:", err=True)
        for fault in faults:
            typer.echo(f"  {fault}", err=True)
        raise typer.Exit(3)


def open_dataset(
    name: str, root: Path | None, split: str, exclude: str | None
) -> tuple[list[FrameSequence], list[str]]:
    """The sequences of a dataset of the catalogue, or the built-in scene (``synthetic``), and
    ``name: reason`` of those that cannot be used.

    Raises as ``open_sequences`` does, and ``ValueError`` without a root.
    """
    if name == "synthetic":
        return [scene()], []
    if name in READERS and root is None:
        raise ValueError(f"dataset {name} needs --root, the folder of its sequences")
    return open_sequences(DatasetConfig(name, str(root), split, exclude))
