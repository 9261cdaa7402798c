"""Runs trackers over sequences. Keeps what is done: an interrupted run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spmtrack_core.data.clips import Track
from spmtrack_core.data.recording import write_boxes
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.disturb import DISTURBANCES
from spmtrack_core.evaluation.passes import (
    Notify,
    Passes,
    check_folder,
    key_of,
    track_all,
    truth_of,
)
from spmtrack_core.evaluation.report import Facts, write_report
from spmtrack_core.evaluation.results import ResultFolder, run_name
from spmtrack_core.evaluation.scoring import SequenceScore, fingerprint, score_sequence
from spmtrack_core.evaluation.sheets import write_sheets
from spmtrack_core.files import sha256_of, write_text
from spmtrack_core.tracking.result import VideoTracker


def run(
    tracker: VideoTracker,
    sequences: Sequence[FrameSequence],
    output: str | Path,
    label: str = "tracker",
    left_out: Sequence[str] = (),
    passes: Passes | None = None,
    facts: Facts | None = None,
) -> dict[str, Any]:
    """Track every sequence from its first box, without resets, and score the boxes.

    ``output`` gets ``boxes/<sequence>.txt`` (x,y,w,h a line), ``time/`` (seconds a line),
    ``confidence/`` (NaN where the tracker has none), ``state/``, and the files of
    ``report.write_report``.

    A sequence that breaks is left out, and the run goes on: the report's ``left_out`` has
    ``name: reason`` of each, after those that the caller ``left_out`` before. A run goes on with
    the sequences that are missing, and so does one that left some out. Raises ``ValueError``
    where ``output`` holds results of another ``label``, version, setting or content of a sequence,
    unless the passes are fresh, and where no sequence is left.
    """
    folder = ResultFolder(Path(output))
    passes = _labeled(passes or Passes(), label)
    check_folder(sequences, folder, passes)
    since = time.time()
    with progress(label, sequences, passes) as notify:
        track_all(tracker, sequences, folder, passes, notify)
    return collect(sequences, folder, label, passes, since, left_out, facts)


def _labeled(passes: Passes, label: str) -> Passes:
    return replace(passes, identity=f"{label} {passes.identity}")


@contextmanager
def progress(
    label: str, sequences: Sequence[FrameSequence], passes: Passes, shown: bool = True
) -> Iterator[Notify]:
    """A bar on stderr with the time that remains, and what moves it.

    Says what is left out, and how to go on with a run that the user interrupts.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, soft_wrap=True, markup=False)
    with Progress(*columns, console=console, disable=not shown) as bar:
        total = passes.repetitions * sum(each.length or 0 for each in sequences)
        task = bar.add_task("", total=total)

        def notify(name: str, frames: int, error: str | None) -> None:
            bar.update(task, advance=frames, description=f"{label}: {name}")
            if error:
                bar.console.print(f"left out {name}: {error}", highlight=False)

        try:
            yield notify
        except KeyboardInterrupt:
            again = f"the same command{' without --fresh' * passes.fresh}"
            bar.console.print(f"stopped; {again} goes on from here")
            raise


def collect(
    sequences: Sequence[FrameSequence],
    folder: ResultFolder,
    label: str,
    passes: Passes,
    since: float,
    left_out: Sequence[str] = (),
    facts: Facts | None = None,
) -> dict[str, Any]:
    """Score what is in ``folder`` and write the report; see ``run``.

    A fresh run scores nothing older than ``since``, its beginning. Where the files of the dataset
    count pixels from 1, ``toolkit/`` gets the boxes as its own toolkit expects them.
    """
    scores: list[SequenceScore] = []
    unscored: list[str] = []
    faults = list(left_out)
    tracks: list[Track] = []
    dataset = facts.dataset if facts else "folder"
    for sequence in sequences:
        try:
            truth, key = truth_of(sequence), key_of(sequence, passes)
        except (OSError, ValueError) as error:
            faults.append(f"{sequence.name}: {error}")
            continue
        frames = sequence.length or len(truth)
        names = [run_name(sequence.name, each + 1) for each in range(passes.repetitions)]
        oldest = since if passes.fresh else 0.0
        runs = [folder.read(name, key, frames, oldest) for name in names]
        broken = [name for name, done in zip(names, runs, strict=True) if done is None]
        if broken:
            faults.append(f"{sequence.name}: {folder.failure(broken[0], 0) or 'was not tracked'}")
            continue
        annotation = sequence.annotation or Track(sequence.name, truth)
        tracks.append(annotation)
        if annotation.first_only or (len(truth) == 1 and frames != 1):
            unscored.append(sequence.name)
        else:
            done = [each for each in runs if each is not None]
            scores.append(score_sequence(dataset, annotation, done))
            if annotation.origin:
                shift = np.array([annotation.origin, annotation.origin, 0, 0])
                for name, each in zip(names, done, strict=True):
                    path = folder.root / "toolkit" / f"{name}.txt"
                    write_boxes(path, each.boxes_xywh + shift)
    if not scores and not unscored:
        raise ValueError(
            f"none of the {len(faults)} sequences can be evaluated, first {faults[0]}"
            if faults
            else "no sequences to evaluate"
        )
    data = fingerprint(tracks)
    report = write_report(folder.root, label, scores, unscored, faults, data, facts)
    if facts and scores:
        write_sheets(folder.root / "worst", {each.name: each for each in sequences}, scores)
    return report


def run_all(
    trackers: Mapping[str, tuple[str, VideoTracker]],
    sequences: Sequence[FrameSequence],
    output: Path,
    disturb: bool = False,
    left_out: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Run several trackers over the same sequences; ``trackers`` has label and tracker by folder.

    With ``disturb`` also over the sequences of each of ``DISTURBANCES``; a report then has the
    mean IoU by disturbance as ``disturbed``. ``output`` gets ``comparison.json``. Sequences that
    are or were ``left_out`` are treated as by ``run``. A tracker that has ``close`` is closed
    however its run ends.
    """
    for folder, (label, _) in trackers.items():  # before the first one takes hours
        check_folder(sequences, ResultFolder(output / folder), _labeled(Passes(), label))
    reports = []
    for folder, (label, tracker) in trackers.items():
        with ExitStack() as stack:
            # what another process holds would slow down those that come later
            if close := getattr(tracker, "close", None):
                stack.callback(close)
            reports.append(run(tracker, sequences, output / folder, label, left_out))
            usable = {row["sequence"] for row in reports[-1]["sequences"]}
            for kind, change in DISTURBANCES.items() if disturb else ():
                changed = (change(each) for each in sequences if each.name in usable)
                # the annotation and the files are those of the sequence as it was
                harder = [replace(each, annotation=None, read_frame=None) for each in changed]
                report = run(tracker, harder, output / folder / kind, f"{label}, {kind}")
                reports[-1].setdefault("disturbed", {})[kind] = report["mean"]["mean_iou"]
                faults = [f"{kind}, {fault}" for fault in report["left_out"]]
                reports[-1].setdefault("disturbed_left_out", []).extend(faults)
    write_text(output / "comparison.json", json.dumps(reports, indent=1) + "\n")
    return reports


def label_of(path: Path, trunk: Path | None = None, precision: str = "float32") -> str:
    """Name and eight hexadecimal digits that tell one set of weights, as used, from another."""
    digest = sha256_of(*filter(None, (path, trunk)), start=precision)
    return f"{path.stem} {digest[:8]}"
