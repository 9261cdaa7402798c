"""Runs trackers over sequences and scores them. Keeps what is done: an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spmtrack_core.data.recording import write_boxes
from spmtrack_core.data.sequence import FrameSequence, read_boxes
from spmtrack_core.evaluation.disturb import DISTURBANCES
from spmtrack_core.evaluation.metrics import (
    confidence_auc,
    good_boxes,
    mean_iou,
    overlaps,
    success_auc,
    success_curve,
)
from spmtrack_core.evaluation.report import plot_success
from spmtrack_core.files import write_beside
from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.tracking.loop import track_frames
from spmtrack_core.tracking.result import VideoTracker


class SequenceRun(NamedTuple):
    """What a tracker did on one sequence of N frames."""

    boxes_xywh: Boxes
    """(N, 4) px; the first is the given one."""
    seconds: NDArray[np.float64]
    """(N,) time of the tracker, the first with its start."""
    confidence: NDArray[np.float64]
    """(N,) NaN where the tracker has none: in the first frame always."""


def run(
    tracker: VideoTracker,
    sequences: Sequence[FrameSequence],
    output: str | Path,
    label: str = "tracker",
) -> dict[str, Any]:
    """Track every sequence from its first box, without resets, and score the boxes.

    ``output`` gets ``<sequence>.txt`` (x,y,w,h a line), ``<sequence>_time.txt`` (seconds a line),
    ``<sequence>_confidence.txt`` (NaN where the tracker has none), ``results.json`` and
    ``success.png``. The report's ``confidence_auc`` is over the frames of all sequences after
    their first; None where it is not defined. An interrupted run of the same ``label`` goes on
    with the sequences that are missing. Raises ``ValueError`` for a sequence without boxes.
    """
    output = Path(output)
    unfinished = output / "unfinished.txt"
    goes_on = unfinished.is_file() and unfinished.read_text(encoding="utf-8") == label
    if not goes_on:  # what another run left must not pass for this one's
        for sequence in sequences:
            (output / f"{sequence.name}_time.txt").unlink(missing_ok=True)
    write_beside(unfinished, lambda beside: beside.write_text(label, encoding="utf-8"))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    rows, curves = [], {}
    confidences, goods = [], []
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=sum(sequence.length or 0 for sequence in sequences))
        for sequence in sequences:
            truth = sequence.boxes_xywh
            if truth is None:
                raise ValueError(f"sequence {sequence.name} has no boxes to compare with")
            bar.update(task, description=f"{label}: {sequence.name}")
            done = _read_run(output, sequence.name, len(truth))
            if done is None:
                done = _track(tracker, sequence, truth, partial(bar.advance, task))
                _write_run(output, sequence.name, done)
            else:
                bar.advance(task, len(truth))
            confidences.append(done.confidence[1:])  # the first box was given
            goods.append(good_boxes(done.boxes_xywh, truth)[1:])
            rows.append(_row(sequence.name, done, truth))
            curves[sequence.name] = success_curve(overlaps(done.boxes_xywh, truth))
    keys = ("mean_iou", "success_auc", "median_ms")
    auc = confidence_auc(np.concatenate(confidences), np.concatenate(goods))
    report = {
        "tracker": label,
        "protocol": "one pass, first frame given, valid frames: truth with w, h > 0",
        "mean": {key: float(np.mean([row[key] for row in rows])) for key in keys},
        "confidence_auc": None if np.isnan(auc) else auc,
        "success_curve": np.mean(list(curves.values()), 0).round(6).tolist(),
        "sequences": rows,
    }
    text = json.dumps(report, indent=1) + "\n"
    write_beside(output / "results.json", lambda beside: beside.write_text(text))
    plot_success(output / "success.png", label, curves)
    unfinished.unlink()
    return report


def run_all(
    trackers: Mapping[str, tuple[str, VideoTracker]],
    sequences: Sequence[FrameSequence],
    output: Path,
    disturb: bool = False,
) -> list[dict[str, Any]]:
    """Run several trackers over the same sequences; ``trackers`` has label and tracker by folder.

    With ``disturb`` also over the sequences of each of ``DISTURBANCES``; a report then has the
    mean IoU by disturbance as ``disturbed``. ``output`` gets ``comparison.json``.
    """
    reports = []
    for folder, (label, tracker) in trackers.items():
        reports.append(run(tracker, sequences, output / folder, label))
        for kind, change in DISTURBANCES.items() if disturb else ():
            harder = [change(sequence) for sequence in sequences]
            report = run(tracker, harder, output / folder / kind, f"{label}, {kind}")
            reports[-1].setdefault("disturbed", {})[kind] = report["mean"]["mean_iou"]
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


def _track(
    tracker: VideoTracker, sequence: FrameSequence, truth: Boxes, tick: Callable[[], object]
) -> SequenceRun:
    boxes, seconds, confidence = [], [], []
    for tracked in track_frames(tracker, sequence, truth[0]):
        boxes.append(tracked.result.box_xywh)
        seconds.append(tracked.seconds)
        confidence.append(tracked.result.confidence)
        tick()
    return SequenceRun(np.array(boxes, float), np.array(seconds), np.array(confidence))


def _row(name: str, done: SequenceRun, truth: Boxes) -> dict[str, Any]:
    """The scores of one sequence."""
    later = done.seconds[1:]
    return {
        "sequence": name,
        "frames": len(truth),
        "mean_iou": mean_iou(done.boxes_xywh, truth),
        "success_auc": success_auc(done.boxes_xywh, truth),
        "median_ms": float(np.median(later) * 1000) if len(later) else 0.0,
    }


def _write_run(output: Path, name: str, done: SequenceRun) -> None:
    """Keep what was tracked; the file of times is the last, and stands for the whole sequence."""
    write_boxes(output / f"{name}.txt", done.boxes_xywh)
    for kind, column in (("confidence", done.confidence), ("time", done.seconds)):
        path = output / f"{name}_{kind}.txt"
        write_beside(path, partial(np.savetxt, X=column, fmt="%.6f"))


def _read_run(output: Path, name: str, frames: int) -> SequenceRun | None:
    """What an earlier run left of a sequence; None if it is not complete."""
    paths = [output / f"{name}{kind}.txt" for kind in ("", "_time", "_confidence")]
    if not all(path.is_file() for path in paths):
        return None
    done = SequenceRun(read_boxes(paths[0]), *(np.loadtxt(path, ndmin=1) for path in paths[1:]))
    return done if all(len(column) == frames for column in done) else None
