"""``spmtrack eval table``: several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spmtrack_core.evaluation.standings import (
    check_convention,
    check_standings,
    read_reports,
    write_standings,
)
from spmtrack_core.evaluation.standings import standings as shown


def standings(
    runs: Annotated[
        list[Path], typer.Argument(metavar="OUTPUT...", help="Output folders of spmtrack eval.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for table.md, table.tex and the plots."),
    ] = None,
    convention: Annotated[
        str,
        typer.Option(help="Who scores: spmtrack (the paper's), ostrack, pytracking or official."),
    ] = "spmtrack",
) -> None:
    """Put runs of spmtrack eval side by side, with the paper's figures.

    Trackers on the same dataset are compared by a paired bootstrap over the sequences.
    """
    rules = check_convention(convention)
    reports = read_reports(runs)
    if output:
        check_standings(output, reports)
    Console(markup=False).print(shown(reports, rules))
    if output:
        write_standings(output, reports, rules)
        typer.echo(f"wrote {output / 'table.md'}")
