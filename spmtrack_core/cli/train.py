"""``spmtrack train``: train a network as a YAML file says."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from spmtrack_core.config import TrainConfig, load_yaml
from spmtrack_core.data.recording import write_image
from spmtrack_core.training.stills import read_stills
from spmtrack_core.training.synthetic import SyntheticTracks, contact_sheet
from spmtrack_core.training.trainer import TrainingDiverged
from spmtrack_core.training.trainer import train as run


def train(
    config: Annotated[str, typer.Argument(help="YAML file with the settings of the run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Other values, e.g. batch_size=8 model.depth=4.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the run's folder.")
    ] = False,
    time_limit: Annotated[
        float | None, typer.Option(help="End the run cleanly after so many minutes.")
    ] = None,
    show: Annotated[
        Path | None, typer.Option(help="Only draw what the network would see, into this PNG.")
    ] = None,
) -> None:
    """Train a network; its folder gets weights, checkpoint, log and curves."""
    settings = load_yaml(config, TrainConfig, overrides or ())
    if time_limit is not None:
        settings = replace(settings, time_limit_min=time_limit)
    if show is not None:
        save_contact_sheet(settings, show)
        typer.echo(f"wrote {show}")
        return
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    try:
        weights = run(settings, resume=resume, command=command)
    except TrainingDiverged as error:
        raise ValueError(str(error)) from None
    typer.echo(f"wrote {weights}")


def save_contact_sheet(settings: TrainConfig, path: Path) -> None:
    """Draw the first tracks of a run into a PNG: references, then searches with the true box."""
    stills = read_stills(settings.data, torch.device("cpu"))
    tracks = SyntheticTracks(
        settings.data, settings.model, settings.tracker, stills, 12, settings.seed
    )
    write_image(path, contact_sheet(tracks.batch(0), tracks.mean, tracks.std))
