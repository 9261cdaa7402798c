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

import spmtrack_core
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
    left_out: Sequence[str] = (),
) -> dict[str, Any]:
    """Track every sequence from its first box, without resets, and score the boxes.

    ``output`` gets ``<sequence>.txt`` (x,y,w,h a line), ``<sequence>_time.txt`` (seconds a line),
    ``<sequence>_confidence.txt`` (NaN where the tracker has none), ``results.json`` and
    ``success.png``. The report's ``confidence_auc`` is over the frames of all sequences after
    their first; None where it is not defined.

    A sequence that breaks is left out, and the run goes on: the report's ``left_out`` has
    ``name: reason`` of each, after those that the caller ``left_out`` before. An interrupted run
    goes on with the sequences that are missing, and so does one that left some out; results of
    another ``label``, version or content of a sequence are not taken over. Raises ``ValueError``
    where no sequence is left.
    """
    output = Path(output)
    unfinished = _Unfinished(output / "unfinished.json", label)
    faults = list(left_out)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    rows, curves = [], {}
    confidences, goods = [], []
    with Progress(*columns, console=Console(stderr=True, soft_wrap=True)) as bar:
        task = bar.add_task("", total=sum(sequence.length or 0 for sequence in sequences))
        for sequence in sequences:
            bar.update(task, description=f"{label}: {sequence.name}")
            try:
                truth, mark = _truth(sequence), _mark(sequence)
                done = None
                if unfinished.has(sequence.name, mark):
                    done = _read_run(output, sequence.name, len(truth))
                is_new = done is None
                done = done or _track(tracker, sequence, truth, partial(bar.advance, task))
            except (OSError, ValueError) as error:
                faults.append(f"{sequence.name}: {error}")
                bar.console.print(f"left out {faults[-1]}", highlight=False)
                for path in _files_of_run(output, sequence.name):
                    path.unlink(missing_ok=True)
                continue
            except KeyboardInterrupt:
                bar.console.print("stopped; the same command goes on from here")
                raise
            if is_new:
                _write_run(output, sequence.name, done)
                unfinished.add(sequence.name, mark)
            else:
                bar.advance(task, len(truth))
            confidences.append(done.confidence[1:])  # the first box was given
            goods.append(good_boxes(done.boxes_xywh, truth)[1:])
            rows.append(_row(sequence.name, done, truth))
            curves[sequence.name] = success_curve(overlaps(done.boxes_xywh, truth))
    if not rows:
        raise ValueError(
            f"none of the {len(faults)} sequences can be evaluated, first {faults[0]}"
            if faults
            else "no sequences to evaluate"
        )
    keys = ("mean_iou", "success_auc", "median_ms")
    auc = confidence_auc(np.concatenate(confidences), np.concatenate(goods))
    report = {
        "tracker": label,
        "protocol": "one pass, first frame given, valid frames: truth with w, h > 0",
        "mean": {key: float(np.mean([row[key] for row in rows])) for key in keys},
        "confidence_auc": None if np.isnan(auc) else auc,
        "success_curve": np.mean(list(curves.values()), 0).round(6).tolist(),
        "sequences": rows,
        "left_out": faults,
    }
    text = json.dumps(report, indent=1) + "\n"
    write_beside(output / "results.json", lambda beside: beside.write_text(text))
    plot_success(output / "success.png", label, curves)
    if not faults:
        unfinished.path.unlink(missing_ok=True)
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
            harder = [change(sequence) for sequence in sequences if sequence.name in usable]
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


class _Unfinished:
    """Which sequences a run has finished, in a file, for the run that goes on with the others."""

    def __init__(self, path: Path, label: str) -> None:
        self.path = path
        self._label = f"{label}, spmtrack {spmtrack_core.__version__}"
        self._marks: dict[str, str] = {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["label"] == self._label:
                self._marks = dict(content["finished"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there was no such run, or what is left of it is of no use
        self._write()

    def has(self, name: str, mark: str) -> bool:
        return self._marks.get(name) == mark

    def add(self, name: str, mark: str) -> None:
        self._marks[name] = mark
        self._write()

    def _write(self) -> None:
        text = json.dumps({"label": self._label, "finished": self._marks}, indent=1)
        write_beside(self.path, lambda beside: beside.write_text(text, encoding="utf-8"))


def _truth(sequence: FrameSequence) -> Boxes:
    """The boxes of all frames."""
    truth = sequence.boxes_xywh
    if truth is None or (len(truth) == 1 and sequence.length != 1):
        raise ValueError("has no boxes to compare with")
    return truth


def _mark(sequence: FrameSequence) -> str:
    """Digest of the boxes and the first frame: another sequence of the same name has another."""
    first = next(iter(sequence), None)
    if first is None:
        raise ValueError("has no frame")
    digest = hashlib.sha256(repr((sequence.length, first.shape)).encode())
    digest.update(np.asarray(sequence.boxes_xywh).tobytes())
    digest.update(first.tobytes())
    return digest.hexdigest()


def _track(
    tracker: VideoTracker, sequence: FrameSequence, truth: Boxes, tick: Callable[[], object]
) -> SequenceRun:
    """One pass; ``ValueError`` for a frame that is broken and for another number of frames."""
    boxes, seconds, confidence = [], [], []
    try:
        for tracked in track_frames(tracker, sequence, truth[0]):
            boxes.append(tracked.result.box_xywh)
            seconds.append(tracked.seconds)
            confidence.append(tracked.result.confidence)
            tick()
    except (OSError, ValueError) as error:
        raise ValueError(f"frame {len(boxes) + 1}: {error}") from None
    if len(boxes) != len(truth):
        raise ValueError(f"has {len(boxes)} frames for {len(truth)} boxes")
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


def _files_of_run(output: Path, name: str) -> list[Path]:
    """Boxes, seconds and confidence of one sequence."""
    return [output / f"{name}{kind}.txt" for kind in ("", "_time", "_confidence")]


def _write_run(output: Path, name: str, done: SequenceRun) -> None:
    paths = _files_of_run(output, name)
    write_boxes(paths[0], done.boxes_xywh)
    for path, column in zip(paths[1:], done[1:], strict=True):
        write_beside(path, partial(np.savetxt, X=column, fmt="%.6f"))


def _read_run(output: Path, name: str, frames: int) -> SequenceRun | None:
    """What an earlier run left of a sequence; None if it is not complete."""
    boxes, *columns = _files_of_run(output, name)
    try:
        done = SequenceRun(read_boxes(boxes), *(np.loadtxt(path, ndmin=1) for path in columns))
    except (OSError, ValueError):
        return None
    return done if all(len(column) == frames for column in done) else None
