"""``spmtrack eval``: track sequences with known boxes and score the result."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from spmtrack_core.cli.options import (
    Dataset,
    Device,
    Exclude,
    OutputFolder,
    Precision,
    Root,
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
) -> None:
    """Track sequences with known boxes and score the result.

    One pass over every sequence: the tracker gets the box of the first frame, and no help later.
    """
    sequences = open_dataset(dataset, root, split, exclude)
    path = find_weights(weights)
    frozen = find_weights(trunk) if trunk else None
    tracker = load_tracker(path, device, precision=precision, trunk=frozen)
    report = run(tracker, sequences, output, label_of(path, frozen, precision))
    Console().print(table(report))
    typer.echo(f"wrote {output / 'results.json'}")


def open_dataset(
    name: str, root: Path | None, split: str, exclude: str | None
) -> list[FrameSequence]:
    """The sequences of a dataset of the catalogue, or the built-in scene (``synthetic``).

    Raises as ``open_sequences`` does, and ``ValueError`` without a root.
    """
    if name == "synthetic":
        return [scene()]
    if name in READERS and root is None:
        raise ValueError(f"dataset {name} needs --root, the folder of its sequences")
    return open_sequences(DatasetConfig(name, str(root), split, exclude))
