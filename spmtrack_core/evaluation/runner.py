"""Runs trackers over sequences. Keeps what is done: an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import spmtrack_core
from spmtrack_core.data.clips import Track
from spmtrack_core.data.recording import write_boxes
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.disturb import DISTURBANCES
from spmtrack_core.evaluation.report import Facts, write_report
from spmtrack_core.evaluation.results import ResultFolder, SequenceRun, run_name
from spmtrack_core.evaluation.scoring import SequenceScore, fingerprint, score_sequence
from spmtrack_core.evaluation.sheets import write_sheets
from spmtrack_core.files import write_beside
from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.tracking.loop import track_frames
from spmtrack_core.tracking.result import TrackState, VideoTracker
from spmtrack_core.tracking.tracker import Tracker


@dataclass(frozen=True)
class Passes:
    """How sequences are tracked."""

    identity: str = ""
    """Stands for the tracker and its settings: results of another one are not taken over."""
    repetitions: int = 1
    integer_boxes: bool = False
    exact_references: bool = False
    fresh: bool = False
    """Track again what the same run has tracked before."""


Notify = Callable[[str, int, str | None], object]
"""Called with the name of a sequence, frames that are done, and why it cannot be tracked."""


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
    the sequences that are missing, and so does one that left some out; results of another
    ``label``, version, setting or content of a sequence are not taken over. Raises ``ValueError``
    where no sequence is left.
    """
    folder = ResultFolder(Path(output))
    passes = replace(passes or Passes(), identity=f"{label} {passes.identity if passes else ''}")
    total = passes.repetitions * sum(sequence.length or 0 for sequence in sequences)
    since = time.time()
    with progress() as bar:
        task = bar.add_task("", total=total)

        def notify(name: str, frames: int, error: str | None) -> None:
            bar.update(task, advance=frames, description=f"{label}: {name}")
            if error:
                bar.console.print(f"left out {name}: {error}", highlight=False)

        try:
            track_all(tracker, sequences, folder, passes, notify)
        except KeyboardInterrupt:
            bar.console.print("stopped; the same command goes on from here")
            raise
    return collect(sequences, folder, label, passes, since, left_out, facts)


def progress(shown: bool = True) -> Progress:
    """A bar on stderr with the time that remains."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, soft_wrap=True)
    return Progress(*columns, console=console, disable=not shown)


def track_all(
    tracker: VideoTracker,
    sequences: Sequence[FrameSequence],
    folder: ResultFolder,
    passes: Passes,
    notify: Notify,
    since: float | None = None,
) -> None:
    """Track what is not in ``folder`` yet and what no other process works on.

    A sequence that could not be tracked at or after the time ``since`` is not tried again.
    """
    since = time.time() if since is None else since
    for sequence in sequences:
        try:
            truth, key = truth_of(sequence), key_of(sequence, passes)
        except (OSError, ValueError) as error:
            folder.fail(sequence.name, str(error))
            notify(sequence.name, 0, str(error))
            continue
        frames = sequence.length or len(truth)
        for repetition in range(1, passes.repetitions + 1):
            name = run_name(sequence.name, repetition)
            with folder.claim(name) as mine:
                if not mine or folder.failure(name, since) is not None:
                    continue
                oldest = since if passes.fresh else 0.0
                if folder.read(name, key, frames, oldest) is not None:
                    notify(sequence.name, frames, None)
                    continue
                try:
                    tick = partial(notify, sequence.name, 1, None)
                    folder.write(name, _track(tracker, sequence, truth, passes, tick), key)
                except (OSError, ValueError) as error:
                    folder.fail(name, str(error))
                    notify(sequence.name, 0, str(error))


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

    Where the files of the dataset count pixels from 1, ``toolkit/`` gets the boxes as its own
    toolkit expects them.
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
        runs = [folder.read(name, key, frames) for name in names]
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
    are or were ``left_out`` are treated as by ``run``.
    """
    reports = []
    for folder, (label, tracker) in trackers.items():
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
    text = json.dumps(reports, indent=1) + "\n"
    write_beside(output / "comparison.json", lambda path: path.write_text(text))
    return reports


def label_of(path: Path, trunk: Path | None = None, precision: str = "float32") -> str:
    """Name and eight hexadecimal digits that tell one set of weights, as used, from another."""
    digest = hashlib.sha256(precision.encode())
    for each in filter(None, (path, trunk)):
        with each.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return f"{path.stem} {digest.hexdigest()[:8]}"


def truth_of(sequence: FrameSequence) -> Boxes:
    """The boxes of all frames, or the first alone where a server has the others."""
    truth, annotation = sequence.boxes_xywh, sequence.annotation
    first_only = annotation is not None and annotation.first_only
    if truth is None or (len(truth) == 1 and sequence.length != 1 and not first_only):
        raise ValueError("has no boxes to compare with")
    return truth


def key_of(sequence: FrameSequence, passes: Passes) -> str:
    """Digest of what makes a result: tracker, settings, version, boxes, first frame."""
    first = next(iter(sequence), None)
    if first is None:
        raise ValueError("has no frame")
    made = passes.identity, passes.integer_boxes, passes.exact_references
    about = spmtrack_core.__version__, *made, sequence.length, first.shape
    digest = hashlib.sha256(repr(about).encode())
    digest.update(np.asarray(sequence.boxes_xywh).tobytes())
    digest.update(first.tobytes())
    return digest.hexdigest()


def whole_boxes(boxes_xywh: Boxes) -> Boxes:
    """(N, 4) boxes of whole numbers, as the authors send them to servers: corners rounded down,
    the lower edge up.

    >>> whole_boxes(np.array([[1.6, 2.6, 10.1, 10.1]])).tolist()
    [[1.0, 2.0, 10.0, 11.0]]
    """
    low = np.floor(boxes_xywh[:, :2])
    high = np.floor(boxes_xywh[:, :2] + boxes_xywh[:, 2:] + [0, 0.9999])
    return np.concatenate([low, high - low], 1)


def _track(
    tracker: VideoTracker,
    sequence: FrameSequence,
    truth: Boxes,
    passes: Passes,
    tick: Callable[[], object],
) -> SequenceRun:
    """One pass; ``ValueError`` for a frame that is broken and for another number of frames."""
    expected = sequence.length if len(truth) == 1 and sequence.length else len(truth)
    if isinstance(tracker, Tracker):
        frames = expected if passes.exact_references else 0
        tracker.config = replace(tracker.config, exact_frames=frames)
    boxes, seconds, confidence, lost = [], [], [], []
    try:
        for tracked in track_frames(tracker, sequence, truth[0]):
            boxes.append(tracked.result.box_xywh)
            seconds.append(tracked.seconds)
            confidence.append(tracked.result.confidence)
            lost.append(tracked.result.state is TrackState.LOST)
            tick()
    except (OSError, ValueError) as error:
        raise ValueError(f"frame {len(boxes) + 1}: {error}") from None
    if len(boxes) != expected:
        raise ValueError(f"has {len(boxes)} frames for {expected} boxes")
    found = np.array(boxes, float)
    if passes.integer_boxes:
        found[1:] = whole_boxes(found[1:])
    return SequenceRun(found, np.array(seconds), np.array(confidence), np.array(lost, bool))
