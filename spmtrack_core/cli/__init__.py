"""The command ``spmtrack``: one module a sub-command, one line an error.

A sub-command is imported when it is called: ``spmtrack --help`` needs no torch.
"""

from __future__ import annotations

import ast
import functools
import importlib
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
import typer.core
import typer.main

import spmtrack_core
from spmtrack_core.cli.ending import open_outlets, take_signals
from spmtrack_core.files import one_line, user_path

COMMANDS = {
    "live": "live",
    "track": "track",
    "bag": "bag",
    "eval": "evaluate",
    "eval table": "standings",
    "eval vot": "vot",
    "compare": "compare",
    "benchmark": "benchmark",
    "train": "train",
    "plot": "plot",
    "convert": "convert",
    "export": "export",
}
"""Sub-commands, each with its function, which is in the module of the same name; two words are
a sub-command of a sub-command."""
EXTRAS = {
    "aiohttp": "live",
    "matplotlib": "eval",
    "mcap": "bag",
    "rosbags": "bag",
    "zstandard": "bag",
    "skimage": "demo",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "lightning": "train",
    "lightning_fabric": "train",
    "tensorboardX": "train",
}
"""Modules of extras, each with the extra of this package that installs it."""
_UsageError: Any = typer.BadParameter.__base__
"""What is wrong with a command line: the class of click, or of the copy of it in typer."""


class _LazyGroup(typer.core.TyperGroup):
    """Imports a sub-command when it is called, not when it is listed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if (two := " ".join(args[:2])) in COMMANDS:
            return two, load_command(two), args[2:]
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(str(name)), rest


app = typer.Typer(
    name="spmtrack",
    cls=_LazyGroup,
    help="Follow a target through a video, train the network, evaluate it.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def load_command(name: str) -> Any:
    """The sub-command ``name``, with its options and help."""
    function = COMMANDS[name]
    module = importlib.import_module(f"spmtrack_core.cli.{function}")
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    settings = getattr(module, "CONTEXT_SETTINGS", None)
    single.command(name, context_settings=settings)(_with_user_paths(getattr(module, function)))
    return typer.main.get_command(single)


def _with_user_paths(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` with every path among its arguments as ``user_path`` reads it."""

    def read(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(map(read, value))
        return user_path(value) if isinstance(value, Path) else value

    @functools.wraps(function)  # its signature is what typer reads
    def call(**arguments: Any) -> None:
        function(**{name: read(value) for name, value in arguments.items()})

    return call


def _first_line(function: str) -> str:
    """The first line of a sub-command's help, read from its source instead of imported."""
    source = Path(__file__).with_name(f"{function}.py").read_text(encoding="utf-8")
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    docstring = next(ast.get_docstring(node) for node in functions if node.name == function)
    return (docstring or "").partition("\n")[0]


for _name, _function in COMMANDS.items():
    # for the list of sub-commands; ``_LazyGroup`` loads the command itself
    app.command(_name, help=_first_line(_function))(lambda: None)


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
    """Run ``spmtrack``."""
    open_outlets()
    arguments = sys.argv[1:] or ["--help"]
    run_command(lambda: sys.exit(app(arguments, prog_name="spmtrack", standalone_mode=False)))


def run_command(command: Callable[[], object]) -> None:
    """Call ``command``; for errors that the user can correct, one line on stderr and exit code 2.

    Signals end it as ``take_signals`` says.
    """
    take_signals()
    _show_own_warnings()
    try:
        command()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = EXTRAS[package]
        _fail(f"{package} is not installed: pip install 'spmtrack_ros[{extra}]'")
    except _UsageError as error:
        words = ["spmtrack", *(each for each in sys.argv[1:2] if each in COMMANDS)]
        place = error.ctx.command_path if error.ctx else " ".join(words)
        _fail(f"{' '.join(error.format_message().split()).rstrip('.')} (see {place} --help)")
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        _fail(one_line(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _show_own_warnings() -> None:
    """Show warnings of this package in one line each, and none of libraries.

    ``python -W`` shows those of libraries again.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="spmtrack_core")
    warnings.formatwarning = lambda message, *_, **__: f"spmtrack: warning: {message}\n"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # warns of a read-only home
    if logging.lastResort:
        logging.lastResort.setFormatter(logging.Formatter("spmtrack: warning: %(message)s"))


def _fail(text: str) -> None:
    print(f"spmtrack: error: {text}", file=sys.stderr)
    sys.exit(2)
