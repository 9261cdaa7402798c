"""Charts of reports: curves of trackers, scores by attribute, accuracy over speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from spmtrack_core.evaluation.conventions import (
    DEFAULT,
    NORMALIZED_THRESHOLDS,
    PRECISION_THRESHOLDS,
    REPORTED,
    SUCCESS_THRESHOLDS,
    Curves,
)
from spmtrack_core.files import printable, write_beside

PLOTS = {
    "success": (SUCCESS_THRESHOLDS, "overlap threshold", "AUC"),
    "precision": (PRECISION_THRESHOLDS, "distance of the centers, px", "P at 20 px"),
    "normalized": (NORMALIZED_THRESHOLDS, "distance in sides of the true box", "P at 0.20"),
}

MARKERS = "osD^vPX"
"""One a tracker; matplotlib has 10 colors, so that both repeat together after 70."""


def plot_curves(
    output: Path,
    curves: Mapping[str, Sequence[Curves]],
    kinds: Sequence[str] = tuple(PLOTS),
    counts: Sequence[int] | None = None,
) -> None:
    """``success.png``, ``precision.png`` and ``normalized.png``: one curve a tracker.

    ``curves`` has those of all sequences by tracker, in the default convention, or their mean
    alone; ``counts`` are then the sequences behind each mean. The band is between the quartiles of
    the sequences, for up to three trackers.
    """
    counts = counts or [len(each) for each in curves.values()]
    sequences = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    sequences += " sequence" if max(counts) == 1 else " sequences"
    for name in kinds:
        thresholds, label, title = PLOTS[name]
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        for tracker, each in curves.items():
            table = np.stack([getattr(one, name) for one in each])  # (S, T)
            mean = table.mean(0)
            score = mean.mean() if name == "success" else mean[REPORTED]
            (line,) = axes.plot(thresholds, mean, lw=2, label=f"{tracker}  {100 * score:.1f}")
            if len(each) > 3 and len(curves) <= 3:
                low, high = np.percentile(table, (25, 75), axis=0)
                axes.fill_between(thresholds, low, high, color=line.get_color(), alpha=0.12, lw=0)
        axes.set(xlabel=label, ylabel="share of frames", xlim=(0, thresholds[-1]), ylim=(0, 1))
        shown = {"normalized": "normalized precision"}.get(name, name)
        axes.set_title(f"{shown}, {sequences}, {DEFAULT} rules", fontsize="medium")
        axes.legend(title=f"{title}, percent", fontsize="small")
        axes.grid(alpha=0.3)
        save(output / f"{name}.png", figure)


def plot_attributes(path: Path, trackers: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Success AUC by attribute as bars and as a radar; ``trackers`` has attributes by label."""
    names = sorted({name for each in trackers.values() for name in each})
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    bars = figure.add_subplot(1, 2, 1)
    radar: Any = figure.add_subplot(1, 2, 2, projection="polar")
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    width = 0.8 / len(trackers)
    for index, (label, each) in enumerate(trackers.items()):
        values = np.array([100 * each.get(name, {}).get("auc", np.nan) for name in names])
        bars.bar(np.arange(len(names)) + index * width, values, width, label=label)
        radar.plot(np.append(angles, angles[0]), np.append(values, values[0]), lw=2, label=label)
        radar.fill(angles, np.nan_to_num(values), alpha=0.08)
    counts = next(iter(trackers.values()))
    titles = [f"{name}\n({counts.get(name, {}).get('sequences', 0):.0f})" for name in names]
    bars.set_xticks(np.arange(len(names)) + 0.4 - width / 2, titles, fontsize="small")
    bars.set(ylabel="success AUC, percent", ylim=(0, 100))
    bars.grid(axis="y", alpha=0.3)
    radar.set_xticks(angles, names)
    radar.set_ylim(0, 100)
    radar.set_yticks([25, 50, 75])
    radar.set_rlabel_position(180 / len(names))  # between two names
    radar.tick_params("y", labelsize="x-small")
    figure.suptitle(
        f"success AUC by attribute and number of sequences, {DEFAULT} rules", fontsize="medium"
    )
    figure.legend(*bars.get_legend_handles_labels(), loc="outside lower center")
    save(path, figure)


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
        style: Any = {"color": f"C{number - 1}", "marker": MARKERS[(number - 1) % len(MARKERS)]}
        left.plot(SUCCESS_THRESHOLDS, report["success_curve"], label=label, markevery=4, **style)
        right.plot(1000 / max(mean["median_ms"], 1e-6), mean["mean_iou"], alpha=0.7, **style)
        for axes in more:
            kinds = {"as they are": mean["mean_iou"], **report["disturbed"]}
            axes.plot(list(kinds), list(kinds.values()), **style)
    for axes in more:
        axes.set(ylim=(0, 1), ylabel="mean IoU")
        axes.tick_params("x", rotation=60)
        axes.grid(alpha=0.3)
    left.set(xlabel="IoU threshold", ylabel="share of frames above", xlim=(0, 1), ylim=(0, 1))
    fastest = 1.05 * right.dataLim.x1  # not half cut off by the edge
    right.set(xlabel="frames per second", ylabel="mean IoU", xlim=(0, fastest), ylim=(0, 1))
    figure.legend(title="mean IoU, success AUC", loc="outside right upper")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save(path, figure)


def save(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG; its texts are names of files, or parts of them, and no formulas."""
    for text in figure.findobj(Text):
        text.set(text=printable(text.get_text()), parse_math=False)
    write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=120))
