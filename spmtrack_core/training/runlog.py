"""Reports of a run: means over steps, log.csv, TensorBoard events, progress bar, curves."""

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
from tensorboardX import SummaryWriter

from spmtrack_core.files import write_beside

COLUMNS = (
    "step",
    "samples",
    "minutes",
    "lr",
    "loss",
    "score_loss",
    "box_loss",
    "positive_iou",
    "gradient_norm",
    "samples_per_s",
    "data_wait",
    "memory_gb",
    "validation_iou",
    "validation_auc",
    "validation_ao",
)

VALIDATIONS = {
    "validation_iou": "mean IoU, validation",
    "validation_ao": "AO, validation",
    "validation_auc": "AUC of the confidence, validation",
}


class Meter:
    """Means over the steps between two rows of the log."""

    def __init__(self) -> None:
        self.since, self.samples = time.monotonic(), 0
        self.values: list[dict[str, float]] = []

    def add(self, values: dict[str, float], samples: int) -> None:
        """Add the values of one step."""
        self.values.append(values)
        self.samples += samples

    def read(self) -> dict[str, float]:
        """Means over the steps, tracks per second, and the share of time spent waiting for data.

        The values of every step must have ``waited_s``.
        """
        seconds = time.monotonic() - self.since
        sums = {name: sum(step[name] for step in self.values) for name in self.values[0]}
        data_wait = sums.pop("waited_s") / seconds
        means = {name: value / len(self.values) for name, value in sums.items()}
        return means | {"samples_per_s": self.samples / seconds, "data_wait": data_wait}


class Log:
    """``log.csv`` and TensorBoard events; without a folder, rows in memory only.

    A resumed run first drops the rows after step ``keep_until``: it repeats these steps.
    """

    def __init__(self, folder: Path | None, keep_until: int) -> None:
        self.path = folder and folder / "log.csv"
        self.rows: list[dict[str, float]] = []
        if self.path is None:
            return
        if keep_until and self.path.is_file():
            self.rows = [row for row in read_log(self.path) if row["step"] <= keep_until]
        write_beside(self.path, self.write)
        self.events = SummaryWriter(str(folder), purge_step=keep_until + 1 if keep_until else None)

    def write(self, path: Path) -> None:
        """Write the header and all rows into ``path``."""
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.line(row) for row in self.rows)

    def add(self, row: dict[str, float]) -> None:
        """Append one row; columns without a value stay empty."""
        self.rows.append(row)
        if self.path is None:
            return
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerow(self.line(row))
            for name, value in row.items():
                self.events.add_scalar(name, value, int(row["step"]))
            self.events.flush()
        except OSError as error:
            raise type(error)(f"log in {self.path.parent}: {error.strerror or error}") from None

    @staticmethod
    def line(row: dict[str, float]) -> dict[str, str]:
        """The numbers as text."""
        return {name: f"{value:.6g}" for name, value in row.items()} | {
            name: f"{row[name]:.0f}" for name in ("step", "samples")
        }


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a ``log.csv``, without empty columns.

    A last line without its end is left out: after a power cut it can lack columns or digits.
    Raises ``FileNotFoundError`` for a missing file, ``ValueError`` for a file that is not a log.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no run at {path.parent}: it has no {path.name}")
    try:
        complete = path.read_bytes().rpartition(b"\n")[0].decode().splitlines()
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(complete)]
    except (TypeError, ValueError, csv.Error):
        raise ValueError(f"{path} is not the log of a run") from None
    if any(not {"step", "samples", "loss"} <= set(row) for row in rows):
        raise ValueError(f"{path} is not the log of a run")
    return rows


def summary(row: dict[str, float]) -> str:
    """A row of the log as one line of text."""
    text = (
        f"step {row['step']:.0f}  {row['minutes']:.1f} min  loss {row['loss']:.3f}  "
        f"IoU of positives {row['positive_iou']:.3f}  {row['samples_per_s']:.1f} samples/s  "
        f"waiting for data {row['data_wait']:.0%}  memory {row['memory_gb']:.1f} GB"
    )
    for name, label in VALIDATIONS.items():
        if name in row:
            text += f"  {label} {row[name]:.3f}"
    return text


def progress_bar(console: Console) -> Progress:
    """A bar with the share of the run done, the time left and the latest row of the log."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


def plot(rows: list[dict[str, float]], path: Path) -> None:
    """Draw loss, IoU and validations over the number of tracks, as a PNG."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    samples = [row["samples"] for row in rows]
    for name in ("loss", "score_loss", "box_loss"):
        left.plot(samples, [row[name] for row in rows], label=name.replace("_", " "))
    right.plot(samples, [row["positive_iou"] for row in rows], label="positive cells, training")
    for name, label in VALIDATIONS.items():
        judged = [row for row in rows if name in row]
        if judged:
            at = [row["samples"] for row in judged]
            right.plot(at, [row[name] for row in judged], "o-", ms=3, label=label)
    for axes, label, top in ((left, "loss", None), (right, "IoU, AUC", 1)):
        axes.set(xlabel="tracks", ylabel=label, ylim=(0, top))
        axes.grid(alpha=0.3)
        axes.legend()
    write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=120))
