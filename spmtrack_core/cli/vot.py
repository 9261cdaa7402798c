"""``spmtrack eval vot``: prepare a workspace of the VOT toolkit, or serve the toolkit."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from spmtrack_core.cli.options import Device, Trunk, Weights
from spmtrack_core.evaluation.protocol import make_protocol
from spmtrack_core.evaluation.trax import serve as serve_trax
from spmtrack_core.evaluation.vot import add_tracker
from spmtrack_core.files import user_path
from spmtrack_core.tracking.loading import find_weights, load_tracker
from spmtrack_core.tracking.tracker import Tracker


def vot(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the run.", show_default=False),
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option(help="Workspace of the VOT toolkit, with its config.yaml.")
    ] = None,
    weights: Weights = "nano",
    device: Device = "auto",
    trunk: Trunk = None,
    recipe: Annotated[
        str | None, typer.Option("--as", help="Protocol: paper, or a YAML file of your own.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Speak TraX on standard input and output.")
    ] = False,
) -> None:
    """Prepare a workspace of the official VOT toolkit.

    The toolkit then runs this tracker through TraX, in an environment of its own.
    """
    path = find_weights(weights).resolve()
    # the toolkit does not tell the length of a video
    overrides = [*(settings or ()), "exact_references=false"]
    make = partial(make_protocol, recipe, overrides, "vot", "")
    protocol = make()
    if serve:
        output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no message

        def load() -> Tracker:
            frozen = find_weights(trunk) if trunk else None
            precision, runtime = protocol.config.precision, protocol.config.runtime
            tracker = load_tracker(
                path, device, precision=precision, trunk=frozen, runtime=runtime
            )
            tracker.config = make(tracker.config, tracker.model_config).config.tracker
            tracker.warm_up()
            return tracker

        serve_trax(load, sys.stdin, output, f"SPMTrack {path.stem}")
        return
    if workspace is None:
        raise ValueError("--workspace is missing: the folder that vot initialize made")
    arguments = [*overrides, "--weights", str(path), "--device", device]
    arguments += ["--trunk", str(find_weights(trunk).resolve())] if trunk else []
    arguments += ["--as", _absolute(recipe)] if recipe else []
    registry, name = add_tracker(workspace, path.stem, arguments)
    typer.echo(f"wrote {registry}; in the toolkit's environment:")
    for command in (f"test {name}", f"evaluate {name}", f"analysis {name}"):
        verb, _, rest = command.partition(" ")
        place = "" if verb == "test" else f"--workspace {workspace} "
        typer.echo(f"  vot --registry {registry} {verb} {place}{rest}")


def _absolute(recipe: str) -> str:
    """A recipe as the toolkit's working folder needs it: an absolute path, or a name."""
    path = user_path(recipe)
    return str(path.resolve()) if path.is_file() else recipe
