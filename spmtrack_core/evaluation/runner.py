"""Runs a tracker over sequences and keeps what it did, so that an interrupted run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from spmtrack_core.data.recording import write_boxes
from spmtrack_core.data.sequence import FrameSequence, read_boxes
from spmtrack_core.evaluation.metrics import (
    SUCCESS_THRESHOLDS,
    confidence_auc,
    good_boxes,
    mean_iou,
    overlaps,
    success_auc,
    success_curve,
)
from spmtrack_core.files import write_beside
from spmtrack_core.geometry.image import Image


class VideoTracker(Protocol):
    """What the loop needs of a tracker."""

    def init(self, frame: Image, box_xywh: Any) -> Any: ...

    def update(self, frame: Image) -> Any: ...


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
                done = _track(tracker, sequence, lambda: bar.advance(task))
                write_boxes(output / f"{sequence.name}.txt", done[0])
                for kind, column in (("confidence", done[2]), ("time", done[1])):
                    path = output / f"{sequence.name}_{kind}.txt"
                    write_beside(path, partial(np.savetxt, X=column, fmt="%.6f"))
            else:
                bar.advance(task, len(truth))
            boxes, seconds, confidence = done
            confidences.append(confidence[1:])  # the first box was given
            goods.append(good_boxes(boxes, truth)[1:])
            rows.append(
                {
                    "sequence": sequence.name,
                    "frames": len(truth),
                    "mean_iou": mean_iou(boxes, truth),
                    "success_auc": success_auc(boxes, truth),
                    "median_ms": float(np.median(seconds[1:]) * 1000) if len(seconds) > 1 else 0.0,
                }
            )
            curves[sequence.name] = success_curve(overlaps(boxes, truth))
    keys = ("mean_iou", "success_auc", "median_ms")
    sure = np.concatenate(confidences)
    judged = np.isfinite(sure)
    auc = confidence_auc(sure[judged], np.concatenate(goods)[judged])
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
    _plot(output / "success.png", label, curves)
    unfinished.unlink()
    return report


def table(report: dict[str, Any]) -> Table:
    """A report as a table for the terminal."""
    auc = report["confidence_auc"]
    caption = f"ROC AUC of the confidence for IoU > 0.5: {'-' if auc is None else f'{auc:.3f}'}"
    shown = Table(title=f"{report['tracker']}: {report['protocol']}", caption=caption)
    for title in ("sequence", "frames", "mean IoU", "success AUC", "ms (median)"):
        shown.add_column(title, justify="left" if title == "sequence" else "right")
    total = {"sequence": "mean", "frames": sum(row["frames"] for row in report["sequences"])}
    for row in [*report["sequences"], {**total, **report["mean"]}]:
        shown.add_row(
            row["sequence"], str(row["frames"]), f"{row['mean_iou']:.3f}",
            f"{row['success_auc']:.3f}", f"{row['median_ms']:.1f}",
            end_section=row is report["sequences"][-1],
        )  # fmt: skip
    return shown


def comparison(reports: Sequence[dict[str, Any]]) -> Group:
    """Sequence reports on the same sequences: a line for each, then mean IoU by sequence, and by
    disturbance where they have such."""
    means = Table(title=reports[0]["protocol"])
    for title in ("", "tracker", "mean IoU", "success AUC", "AUC of confidence", "frames/s"):
        means.add_column(title, justify="left" if title == "tracker" else "right")
    for number, report in enumerate(reports, 1):
        mean, auc = report["mean"], report["confidence_auc"]
        means.add_row(
            str(number), report["tracker"], f"{mean['mean_iou']:.3f}",
            f"{mean['success_auc']:.3f}", "-" if auc is None else f"{auc:.3f}",
            f"{1000 / max(mean['median_ms'], 1e-6):.0f}",
        )  # fmt: skip
    tables = [means]
    by_sequence = [{r["sequence"]: r["mean_iou"] for r in one["sequences"]} for one in reports]
    by_disturbance = [report.get("disturbed", {}) for report in reports]
    for kind, values in (("sequence", by_sequence), ("disturbance", by_disturbance)):
        if values[0]:
            each = Table(title=f"mean IoU by {kind}")
            each.add_column(kind)
            for number in range(1, len(reports) + 1):
                each.add_column(str(number), justify="right")
            for name in values[0]:
                each.add_row(name, *(f"{value[name]:.3f}" for value in values))
            tables.append(each)
    return Group(*tables)


def plot_comparison(path: Path, reports: Sequence[dict[str, Any]]) -> None:
    """Success curves of several trackers, and their mean IoU over their speed, as a PNG; and
    their mean IoU by disturbance, where the reports have that."""
    disturbed = "disturbed" in reports[0]
    figure = Figure(figsize=(19 if disturbed else 13, 4.5), layout="constrained")
    left, right, *more = figure.subplots(1, 3 if disturbed else 2)
    numbered = sorted(enumerate(reports, 1), key=lambda pair: -pair[1]["mean"]["mean_iou"])
    for number, report in numbered:  # by which the table names them as well
        mean = report["mean"]
        label = f"{number}  {report['tracker']}: {mean['mean_iou']:.3f}, {mean['success_auc']:.3f}"
        (curve,) = left.plot(SUCCESS_THRESHOLDS, report["success_curve"], label=label)
        speed = 1000 / max(mean["median_ms"], 1e-6)
        right.plot(speed, mean["mean_iou"], "o", color=curve.get_color())
        right.annotate(str(number), (speed, mean["mean_iou"]),
                       xytext=(5, 5), textcoords="offset points")  # fmt: skip
        for axes in more:
            kinds = {"as they are": mean["mean_iou"], **report["disturbed"]}
            axes.plot(list(kinds), list(kinds.values()), "o-", color=curve.get_color())
    for axes in more:
        axes.set(ylim=(0, 1), ylabel="mean IoU")
        axes.tick_params("x", rotation=60)
        axes.grid(alpha=0.3)
    left.set(xlabel="IoU threshold", ylabel="share of frames above", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="frames per second", ylabel="mean IoU", xlim=(0, None), ylim=(0, 1))
    figure.legend(title="mean IoU, success AUC", loc="outside right upper")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=120))


def _track(tracker: VideoTracker, sequence: FrameSequence, tick: Any) -> tuple[np.ndarray, ...]:
    """Boxes (N, 4), seconds and confidence (N,) of one sequence; the first box is given."""
    boxes: list[ArrayLike] = []
    seconds: list[float] = []
    confidences: list[float] = []
    for frame in sequence:
        started = time.perf_counter()
        confidence = float("nan")
        if boxes:
            result = tracker.update(frame)
            box, confidence = result.box_xywh, getattr(result, "confidence", confidence)
        else:
            box = sequence.boxes_xywh[0]  # type: ignore[index]
            tracker.init(frame, box)
        seconds.append(time.perf_counter() - started)
        boxes.append(box)
        confidences.append(confidence)
        tick()
    return np.array(boxes, float), np.array(seconds), np.array(confidences)


def _read_run(output: Path, name: str, frames: int) -> tuple[np.ndarray, ...] | None:
    """What an earlier run left of a sequence, if it is complete."""
    paths = [output / f"{name}{kind}.txt" for kind in ("", "_time", "_confidence")]
    if not all(path.is_file() for path in paths):
        return None
    columns = [read_boxes(paths[0]), *(np.loadtxt(path, ndmin=1) for path in paths[1:])]
    return tuple(columns) if all(len(column) == frames for column in columns) else None


def _plot(path: Path, label: str, curves: dict[str, np.ndarray]) -> None:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(SUCCESS_THRESHOLDS, curve, lw=1, label=f"{name} {curve.mean():.3f}")
    if len(curves) > 1:
        mean = np.mean(list(curves.values()), 0)
        axes.plot(SUCCESS_THRESHOLDS, mean, "k", lw=2.5, label=f"mean {mean.mean():.3f}")
    axes.set(xlabel="overlap threshold", ylabel="share of frames", title=f"Success of {label}",
             xlim=(0, 1), ylim=(0, 1))  # fmt: skip
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=120))
