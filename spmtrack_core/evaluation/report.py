"""Reports of runs as tables for the terminal and as charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table

from spmtrack_core.evaluation.metrics import SUCCESS_THRESHOLDS
from spmtrack_core.files import write_beside


def table(report: dict[str, Any]) -> Table:
    """A report of ``runner.run`` as a table."""
    auc = report["confidence_auc"]
    caption = f"ROC AUC of the confidence for IoU > 0.5: {_score(auc)}"
    shown = Table(title=f"{report['tracker']}: {report['protocol']}", caption=caption)
    for title in ("sequence", "frames", "mean IoU", "success AUC", "ms (median)"):
        shown.add_column(title, justify="left" if title == "sequence" else "right")
    total = {"sequence": "mean", "frames": sum(row["frames"] for row in report["sequences"])}
    for row in [*report["sequences"], {**total, **report["mean"]}]:
        scores = f"{row['mean_iou']:.3f}", f"{row['success_auc']:.3f}", f"{row['median_ms']:.1f}"
        last = row is report["sequences"][-1]
        shown.add_row(row["sequence"], str(row["frames"]), *scores, end_section=last)
    return shown


def comparison(reports: Sequence[dict[str, Any]]) -> Group:
    """Reports on the same sequences, side by side.

    One line a tracker, then the mean IoU by sequence, and by disturbance if the reports have it.
    """
    means = Table(title=reports[0]["protocol"])
    for title in ("", "tracker", "mean IoU", "success AUC", "AUC of confidence", "frames/s"):
        means.add_column(title, justify="left" if title == "tracker" else "right")
    for number, report in enumerate(reports, 1):
        mean, auc = report["mean"], report["confidence_auc"]
        scores = [f"{mean['mean_iou']:.3f}", f"{mean['success_auc']:.3f}", _score(auc)]
        speed = f"{_frames_per_s(mean):.0f}"
        means.add_row(str(number), report["tracker"], *scores, speed)
    tables = [means]
    by_sequence = [{r["sequence"]: r["mean_iou"] for r in one["sequences"]} for one in reports]
    by_disturbance = [report.get("disturbed", {}) for report in reports]
    for kind, values in (("sequence", by_sequence), ("disturbance", by_disturbance)):
        if values[0]:
            each = Table(title=f"mean IoU by {kind}")
            each.add_column(kind)
            for number in range(1, len(reports) + 1):
                each.add_column(str(number), justify="right")
            for name in dict.fromkeys(name for value in values for name in value):
                each.add_row(name, *(_score(value.get(name)) for value in values))
            tables.append(each)
    return Group(*tables)


def plot_comparison(path: Path, reports: Sequence[dict[str, Any]]) -> None:
    """Success curves of several trackers, and their mean IoU over their speed, as a PNG.

    Also their mean IoU by disturbance if the reports have it.
    """
    disturbed = "disturbed" in reports[0]
    figure = Figure(figsize=(19 if disturbed else 13, 4.5), layout="constrained")
    left, right, *more = figure.subplots(1, 3 if disturbed else 2)
    numbered = sorted(enumerate(reports, 1), key=lambda pair: -pair[1]["mean"]["mean_iou"])
    for number, report in numbered:  # the numbers of the table
        mean = report["mean"]
        label = f"{number}  {report['tracker']}: {mean['mean_iou']:.3f}, {mean['success_auc']:.3f}"
        (curve,) = left.plot(SUCCESS_THRESHOLDS, report["success_curve"], label=label)
        point = _frames_per_s(mean), mean["mean_iou"]
        right.plot(*point, "o", color=curve.get_color())
        right.annotate(str(number), point, xytext=(5, 5), textcoords="offset points")
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


def plot_success(path: Path, label: str, curves: Mapping[str, NDArray[np.float64]]) -> None:
    """Success curves (21,) of one tracker by sequence, and their mean, as a PNG."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(SUCCESS_THRESHOLDS, curve, lw=1, label=f"{name} {curve.mean():.3f}")
    if len(curves) > 1:
        mean = np.mean(list(curves.values()), 0)
        axes.plot(SUCCESS_THRESHOLDS, mean, "k", lw=2.5, label=f"mean {mean.mean():.3f}")
    axes.set(xlabel="overlap threshold", ylabel="share of frames", title=f"Success of {label}")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=120))


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _frames_per_s(mean: Mapping[str, float]) -> float:
    return 1000 / max(mean["median_ms"], 1e-6)
