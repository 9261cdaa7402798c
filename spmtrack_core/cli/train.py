"""``spmtrack train``: train a network."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from spmtrack_core.data.recording import write_image
from spmtrack_core.files import check_output
from spmtrack_core.training.batch import contact_sheet
from spmtrack_core.training.run import read_settings
from spmtrack_core.training.sources import first_batch
from spmtrack_core.training.trainer import TrainingDiverged
from spmtrack_core.training.trainer import train as run


def train(
    config: Annotated[str, typer.Argument(help="YAML file with the settings of the run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that replace the file's, such as batch_size=8."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint in the run's folder.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(help="End after so many minutes from now; --resume continues."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Make two steps, report memory and speed, write nothing."),
    ] = False,
    show: Annotated[
        Path | None, typer.Option(help="Only draw the first training samples into this PNG.")
    ] = None,
) -> None:
    """Train a network.

    The folder of the run gets weights, checkpoint, log and curves.
    """
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"--time-limit must be above 0; got {time_limit}")
    settings = read_settings(config, overrides or (), resume)
    if show is not None:
        check_output(show, [config])
        write_image(show, contact_sheet(first_batch(settings)))
        typer.echo(f"wrote {show}")
        return
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    try:
        run(settings, resume, command, dry_run=dry_run, time_limit_min=time_limit or math.inf)
    except TrainingDiverged as error:
        raise ValueError(str(error)) from None
