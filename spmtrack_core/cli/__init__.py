"""The command ``spmtrack``: one file per sub-command, one line per error."""

from __future__ import annotations

import sys

import typer

import spmtrack_core
from spmtrack_core.cli.benchmark import benchmark, soak
from spmtrack_core.cli.compare import compare
from spmtrack_core.cli.convert import convert
from spmtrack_core.cli.evaluate import evaluate
from spmtrack_core.cli.export import export
from spmtrack_core.cli.plot import plot
from spmtrack_core.cli.track import track
from spmtrack_core.cli.train import train

app = typer.Typer(
    name="spmtrack",
    help="Follow one named target through a video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# a box may have negative numbers, which look like options
app.command(context_settings={"ignore_unknown_options": True})(track)
app.command("eval")(evaluate)
app.command()(compare)
app.command()(train)
app.command()(plot)
app.command()(convert)
app.command()(benchmark)
app.command()(soak)
app.command()(export)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spmtrack {spmtrack_core.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command; exit code 2 and one line on stderr for what the user can mend."""
    try:
        app(standalone_mode=True)
    except (OSError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"spmtrack: error: {text}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
