"""``spmtrack eval``: track sequences with known boxes and score the result."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from spmtrack_core.cli.options import (
    Dataset,
    Device,
    Exclude,
    Root,
    Split,
    Trunk,
    Weights,
)
from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import READERS, open_sequences
from spmtrack_core.data.scene import scene
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.conventions import DEFAULT
from spmtrack_core.evaluation.facts import run_facts
from spmtrack_core.evaluation.passes import Passes, check_folder, track_all
from spmtrack_core.evaluation.protocol import EvalConfig, Protocol, make_protocol
from spmtrack_core.evaluation.report import Facts
from spmtrack_core.evaluation.rescore import check_dataset, rescore, with_attributes
from spmtrack_core.evaluation.results import ResultFolder
from spmtrack_core.evaluation.runner import collect, label_of, progress
from spmtrack_core.evaluation.submission import SERVERS
from spmtrack_core.evaluation.tables import table
from spmtrack_core.evaluation.upload import check_submission, submission
from spmtrack_core.evaluation.workers import (
    Job,
    Rank,
    batch_for,
    device_for,
    longest_first,
    spread,
    wait_for_others,
)
from spmtrack_core.files import check_output
from spmtrack_core.tracking.loading import choose_runtime, find_weights, load_tracker
from spmtrack_core.tracking.tracker import Tracker


def evaluate(
    dataset: Dataset,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings of the run, such as repetitions=3 or tracker.window_weight=0.4.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the results.")
    ] = None,
    root: Root = None,
    split: Split = "test",
    exclude: Exclude = None,
    weights: Weights = "nano",
    device: Device = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precision of the network: float32, bfloat16 or float16.", show_default="float32"
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="What computes the network: torch, openvino (CPU) or auto.", show_default="torch"
        ),
    ] = None,
    trunk: Trunk = None,
    recipe: Annotated[
        str | None,
        typer.Option("--as", help="Protocol: paper, or a YAML file of your own."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--rescore", help="Score the result files of any tracker (folder or zip) instead."
        ),
    ] = None,
    attributes: Annotated[
        Path | None,
        typer.Option(help="Folder with the attributes of each sequence, from the toolkit."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Verify layout, counts and lengths; track nothing.")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, max=256, help="Processes that share the sequences.")
    ] = 1,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Sequences that each process tracks at once, in one pass of the network.",
            show_default="1 on the CPU, 8 on CUDA",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Track again, and replace what the folder holds.")
    ] = False,
) -> None:
    """Track sequences with known boxes and score the result.

    One pass over every sequence: the tracker gets the box of the first frame, and no help later.
    Sequences that are broken are left out and named at the end; the exit code is then 3.
    """
    if check:
        if root is None:
            raise ValueError("--check needs --root, the folder of the dataset")
        lines, faults = check_dataset(DatasetConfig(dataset, str(root), split, exclude))
        typer.echo("\n".join(lines))
        if faults:
            raise typer.Exit(3)
        return
    options = {"precision": precision, "runtime": runtime, "batch": batch}
    overrides = [*(settings or ()), *(f"{k}={v}" for k, v in options.items() if v is not None)]
    if results is not None:
        if overrides or recipe:
            raise ValueError("--rescore tracks nothing: leave out --as and settings")
        if root is None:
            raise ValueError("--rescore needs --root, the folder with the annotations")
        _rescore(DatasetConfig(dataset, str(root), split, exclude), results, output, attributes)
        return
    output = _usable(output, root)
    rank = Rank.of_environment(processes)
    if rank.count > 1 and processes > 1:
        raise ValueError("--processes is for one machine without torchrun and srun; leave it out")
    opening = partial(open_dataset, dataset, root, split, exclude, attributes)
    sequences, left_out = opening()
    path, frozen = find_weights(weights), find_weights(trunk) if trunk else None
    tracker, protocol = _load(
        *(path, frozen, device_for(device, rank.local) if rank.count > 1 else device),
        *(partial(make_protocol, recipe, overrides, dataset, split), overrides),
    )
    config = protocol.config
    share = len(sequences) * config.repetitions, max(processes, rank.count)
    config = replace(config, batch=batch_for(config.batch, tracker.device, *share))
    protocol = replace(protocol, config=config)
    label = label_of(path, frozen, config.precision)
    passes = passes_of(config, label, fresh)
    since = time.time()
    job = Job(opening, path, frozen, device, config, output, passes, since)
    _track(tracker, sequences, job, processes, rank, label)
    if rank.index:
        return  # the first process reports
    about = run_facts(path, frozen, tracker, protocol, sys.argv)
    facts = Facts(dataset, "" if dataset in ("synthetic", "folder") else split, about)
    folder = ResultFolder(output)
    report = collect(sequences, folder, label, passes, since, left_out, facts)
    _show(report, output)
    if dataset in SERVERS and report["unscored"]:
        lines = submission(dataset, sequences, report["left_out"], folder, passes)
        typer.echo("\n".join(lines))
    _tell_faults(report)


def _rescore(
    data: DatasetConfig, results: Path, output: Path | None, attributes: Path | None
) -> None:
    """Score result files, or check those for a server, which writes nothing."""
    if data.name in SERVERS and data.split == "test":
        typer.echo("\n".join(check_submission(data, results)))
        return
    output = _usable(output, Path(data.root))
    if results.resolve() in (output.resolve(), (output / "boxes").resolve()):
        raise ValueError(f"{output} holds the results to score; choose another output")
    report = rescore(data, results, output, attributes)
    _show(report, output)
    _tell_faults(report)


def _usable(output: Path | None, root: Path | None) -> Path:
    """The folder of the results; ``ValueError`` or ``OSError`` where nothing can be kept."""
    if output is None:
        raise ValueError("--output is missing: the folder of the results")
    check_output_folder(output, root)
    return output


def _load(
    weights: Path,
    trunk: Path | None,
    device: str,
    make: Callable[..., Protocol],
    overrides: list[str],
) -> tuple[Tracker, Protocol]:
    """The tracker, and the settings of the run that it has from then on.

    ``make`` makes them of ``overrides``, which get the runtime that was chosen.
    """
    runtime = choose_runtime(weights, device, make().config.runtime)
    overrides.append(f"runtime={runtime}")
    asked = make().config
    tracker = load_tracker(
        weights, device, precision=asked.precision, trunk=trunk, runtime=runtime
    )
    protocol = make(tracker.config, tracker.model_config)
    config = protocol.config
    if (config.precision, config.runtime) != (asked.precision, asked.runtime):
        raise ValueError("precision and runtime of a recipe may depend on dataset and split only")
    tracker.config = config.tracker
    return tracker, protocol


def _track(
    tracker: Tracker,
    sequences: Sequence[FrameSequence],
    job: Job,
    processes: int,
    rank: Rank,
    label: str,
) -> None:
    """Track what is missing, alone or as one of several processes, with a bar on stderr."""
    folder, passes = ResultFolder(job.output), job.passes
    check_folder(sequences, folder, passes)
    with progress(label, sequences, passes, shown=rank.index == 0) as notify:
        if processes > 1:
            spread(job, processes, notify)
        else:
            several = rank.count > 1 or passes.batch > 1
            order = longest_first(sequences) if several else sequences
            track_all(tracker, order, folder, passes, notify, job.since)
        if rank.index == 0 and rank.count > 1:
            wait_for_others(tracker, sequences, job, notify)


def passes_of(config: EvalConfig, label: str, fresh: bool) -> Passes:
    """How the sequences are tracked with these settings."""
    identity = f"{label} {config.precision} {config.runtime} {config.tracker}"
    return Passes(
        identity,
        config.repetitions,
        config.integer_boxes,
        config.exact_references,
        fresh,
        config.batch,
    )


def _show(report: dict[str, Any], output: Path) -> None:
    """Print a report and what was written."""
    if report["sequences"]:
        Console(markup=False).print(table(report))
    typer.echo(f"wrote {output / 'results.json'}")


def _tell_faults(report: dict[str, Any]) -> None:
    """End with exit code 3 where a sequence, or the score by the default, is missing."""
    report_left_out([report])
    if error := report["conventions"].get(DEFAULT, {}).get("error"):
        typer.echo(f"spmtrack: no score by the convention {DEFAULT}: {error}", err=True)
        raise typer.Exit(3)


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
        counts = [len(report["sequences"]) + len(report["unscored"]) for report in reports]
        totals = (
            count + len(report["left_out"]) for count, report in zip(counts, reports, strict=True)
        )
        done, total = min(counts), max(totals)
        typer.echo(f"spmtrack: {done} of {total} sequences evaluated; left out:", err=True)
        for fault in faults:
            typer.echo(f"  {fault}", err=True)
        raise typer.Exit(3)


def open_dataset(
    name: str,
    root: Path | None,
    split: str,
    exclude: str | None,
    attributes: Path | None = None,
) -> tuple[list[FrameSequence], list[str]]:
    """The sequences of a dataset of the catalog, or the built-in scene (``synthetic``), and
    ``name: reason`` of those that cannot be used.

    Raises as ``open_sequences`` does, and ``ValueError`` without a root.
    """
    if name == "synthetic":
        return [scene()], []
    if name in READERS and root is None:
        raise ValueError(f"dataset {name} needs --root, the folder of its sequences")
    sequences, faults = open_sequences(DatasetConfig(name, str(root), split, exclude))
    return with_attributes(name, sequences, attributes), faults


def open_scored(
    name: str, root: Path | None, split: str, exclude: str | None
) -> tuple[list[FrameSequence], list[str]]:
    """As ``open_dataset``; ``ValueError`` also for a split whose truth a server has."""
    sequences, faults = open_dataset(name, root, split, exclude)
    if all(each.annotation and each.annotation.first_only for each in sequences):
        raise ValueError(
            f"split {split} of {name} has one box a sequence, and only its server can score: "
            "compare on another --split, or make the file for the server with spmtrack eval"
        )
    return sequences, faults
