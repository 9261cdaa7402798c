"""``spmtrack plot``: draw the curves of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spmtrack_core.files import check_output
from spmtrack_core.training.runlog import plot as draw
from spmtrack_core.training.runlog import read_log


def plot(
    run: Annotated[Path, typer.Argument(help="Folder of the run, finished or not.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="PNG to write.", show_default="RUN/curves.png"),
    ] = None,
) -> None:
    """Draw loss, IoU and validations of a training run over the number of tracks."""
    rows = read_log(run / "log.csv")
    if not rows:
        raise ValueError(f"{run / 'log.csv'} has no row yet")
    path = output or run / "curves.png"
    check_output(path, [each for each in run.iterdir() if each.suffix != ".png"])
    draw(rows, path)
    typer.echo(f"wrote {path}")
