"""What a run tells while it goes on: means, the CSV log, the progress bar, the curves."""

from __future__ import annotations

import csv
import time
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from spmtrack_core.files import write_beside

COLUMNS = ("step", "samples", "minutes", "lr", "loss", "score_loss", "box_loss", "positive_iou",
           "gradient_norm", "samples_per_s", "data_wait", "validation_iou",
           "validation_auc")  # fmt: skip


class Meter:
    """Means of what is measured between two lines of the log."""

    def __init__(self) -> None:
        self.since, self.samples = time.monotonic(), 0
        self.values: list[dict[str, float]] = []

    def add(self, values: dict[str, float], samples: int) -> None:
        """Note one step."""
        self.values.append(values)
        self.samples += samples

    def read(self) -> dict[str, float]:
        """Means over the steps, tracks per second and the share of time spent on making them."""
        seconds = time.monotonic() - self.since
        sums = {name: sum(step[name] for step in self.values) for name in self.values[0]}
        data_wait = sums.pop("made_s") / seconds
        means = {name: value / len(self.values) for name, value in sums.items()}
        return means | {"samples_per_s": self.samples / seconds, "data_wait": data_wait}


class Log:
    """``log.csv``: written line by line; a resumed run first drops the lines it will repeat."""

    def __init__(self, path: Path, keep_until: int) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        if keep_until and path.is_file():
            with path.open(newline="") as file:
                rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
            self.rows = [row for row in rows if row["step"] <= keep_until]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.line(row) for row in self.rows)

    def add(self, row: dict[str, float]) -> None:
        """Append one line; columns that were not measured stay empty."""
        self.rows.append(row)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(self.line(row))

    @staticmethod
    def line(row: dict[str, float]) -> dict[str, str]:
        """The numbers as they are written."""
        return {name: f"{value:.6g}" for name, value in row.items()} | {
            name: f"{row[name]:.0f}" for name in ("step", "samples")
        }


def summary(row: dict[str, float]) -> str:
    """One line on the state of a run."""
    text = (
        f"step {row['step']:.0f}  {row['minutes']:.1f} min  loss {row['loss']:.3f}  "
        f"IoU of positives {row['positive_iou']:.3f}  {row['samples_per_s']:.1f} samples/s  "
        f"waiting for data {row['data_wait']:.0%}"
    )
    if "validation_iou" in row:
        text += f"  validation {row['validation_iou']:.3f}"
    if "validation_auc" in row:
        text += f"  AUC of the confidence {row['validation_auc']:.3f}"
    return text


def progress_bar(console: Console) -> Progress:
    """Share of the run done, time left, and the latest line of the log."""
    return Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
                    TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
                    console=console, disable=not console.is_terminal)  # fmt: skip


def plot(rows: list[dict[str, float]], path: Path) -> None:
    """Loss terms and IoU over the samples seen, as a PNG."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    samples = [row["samples"] for row in rows]
    for name in ("loss", "score_loss", "box_loss"):
        left.plot(samples, [row[name] for row in rows], label=name.replace("_", " "))
    right.plot(samples, [row["positive_iou"] for row in rows], label="positive cells, training")
    checked = [row for row in rows if "validation_iou" in row]
    right.plot([row["samples"] for row in checked], [row["validation_iou"] for row in checked],
               "o-", label="best cell, held-out tracks")  # fmt: skip
    judged = [row for row in rows if "validation_auc" in row]
    right.plot([row["samples"] for row in judged], [row["validation_auc"] for row in judged],
               "s-", label="ROC AUC of its score")  # fmt: skip
    for axes, label in ((left, "loss"), (right, "mean IoU, AUC")):
        axes.set(xlabel="tracks seen", ylabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=120))
