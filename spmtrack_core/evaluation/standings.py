"""Several runs in one table: trackers and datasets, the paper's figures, and who is better."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table

from spmtrack_core.evaluation.conventions import CONVENTIONS, DEFAULT, Curves
from spmtrack_core.evaluation.plots import plot_attributes, plot_curves
from spmtrack_core.evaluation.tables import (
    counted,
    latex_text,
    main_scores,
    main_titles,
    percent,
    pipe,
)
from spmtrack_core.files import check_output, printable, write_beside

PAPER: dict[str, dict[str, tuple[float, ...]]] = {
    "lasot test": {
        "SPMTrack-B": (74.9, 81.7, 84.0),
        "SPMTrack-L": (76.8, 84.0, 85.9),
        "SPMTrack-G": (77.4, 85.0, 86.6),
    },
    "got10k test": {
        "SPMTrack-B": (76.5, 85.9, 76.3),
        "SPMTrack-L": (80.0, 89.4, 79.9),
        "SPMTrack-G": (81.0, 89.2, 82.3),
    },
    "trackingnet test": {
        "SPMTrack-B": (86.1, 85.6, 90.2),
        "SPMTrack-L": (86.9, 87.2, 91.0),
        "SPMTrack-G": (87.3, 88.1, 91.4),
    },
    "tnl2k test": {"SPMTrack-B": (62.0,)},
    "otb2015 test": {"SPMTrack-B": (72.7,)},
}
"""Figures of the paper in percent: AUC, P, Pnorm; for GOT-10k AO, SR50, SR75."""
RESAMPLES = 10_000
FEWEST = 5
"""Sequences below which no tracker is called the better one."""
OTHER_DATA = "the runs have other sequences or other true boxes"
Report = Mapping[str, Any]


def read_reports(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The reports of several runs; names of the folders tell a tracker's on one dataset apart.

    Raises ``FileNotFoundError`` for a folder without one, ``ValueError`` for a file of another
    kind or of a former version, and where two folders have the same report.
    """
    reports: list[dict[str, Any]] = []
    seen: dict[str, Path] = {}
    alike: dict[tuple[str, str], list[tuple[dict[str, Any], Path]]] = {}
    for folder in folders:
        path = folder / "results.json"
        if not path.is_file():
            raise FileNotFoundError(f"no {path}: expected the output folder of spmtrack eval")
        try:
            text = path.read_text(encoding="utf-8")
            report = json.loads(text)
            key = report["tracker"], dataset_of(report)
            report["dataset"]["fingerprint"], [row["auc"] for row in report["sequences"]]
            report["unscored"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is no report of this version of spmtrack eval") from None
        if text in seen:
            raise ValueError(
                f"{folder} and {seen[text]} hold the same run of {key[0]} on {key[1]}; "
                "leave one out"
            )
        seen[text] = folder
        alike.setdefault(key, []).append((report, Path(os.path.abspath(folder))))
        reports.append(report)
    for runs in alike.values():
        if len(runs) > 1:
            above = os.path.commonpath([folder.parent for _, folder in runs])
            for report, folder in runs:
                report["tracker"] = f"{report['tracker']} ({folder.relative_to(above)})"
    return reports


def dataset_of(report: Report) -> str:
    """Dataset and split of a report."""
    dataset = report["dataset"]
    return f"{dataset['name']} {dataset['split']}".strip()


def paired_interval(
    a: Mapping[str, float], b: Mapping[str, float], seed: int = 0
) -> tuple[float, float, float, int]:
    """How much better ``a`` is than ``b``, from scores by sequence.

    Mean difference over the common sequences, the 2.5th and 97.5th percentiles of that mean when
    sequences are drawn with replacement (both trackers the same ones), and their number. Raises
    ``ValueError`` without a common sequence.

    >>> difference, low, high, count = paired_interval({"x": 0.6, "y": 0.7}, {"x": 0.5, "y": 0.6})
    >>> round(low, 6), round(high, 6), count
    (0.1, 0.1, 2)
    """
    names = sorted(set(a) & set(b))
    if not names:
        raise ValueError("the runs have no sequence in common")
    differences = np.array([a[name] - b[name] for name in names])
    chosen = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    low, high = np.percentile(differences[chosen].mean(1), (2.5, 97.5))
    return float(differences.mean()), float(low), float(high), len(names)


def standings(reports: Sequence[Report], convention: str = DEFAULT) -> Group:
    """Tables for the terminal: one a dataset, and one of the differences between trackers."""
    tables = []
    for dataset, rows in _by_dataset(reports, convention).items():
        note = OTHER_DATA if _other_data(rows) else None
        table = Table(title=f"{dataset}, {_rule(dataset, convention)}", caption=note)
        for title in ("tracker", *main_titles(rows[0]), "sequences"):
            table.add_column(title, justify="left" if title == "tracker" else "right")
        for cells in _lines(dataset, rows, convention):
            table.add_row(*cells)
        tables.append(table)
    if lines := comparisons(reports, convention):
        table = Table(title="success AUC in percent, paired bootstrap over sequences")
        for title in ("dataset", "", "difference", "95 % interval", "sequences"):
            table.add_column(title)
        for line in lines:
            table.add_row(*line)
        tables.append(table)
    return Group(*tables)


def comparisons(reports: Sequence[Report], convention: str = DEFAULT) -> list[tuple[str, ...]]:
    """Dataset, who is compared, difference, interval and number of sequences, in percent."""
    lines: list[tuple[str, ...]] = []
    for dataset, rows in _by_dataset(reports, convention).items():
        for a, b in combinations(rows, 2):
            first, second = _aucs(a, convention), _aucs(b, convention)
            if not set(first) & set(second):
                continue
            mean, low, high, count = paired_interval(first, second)
            verdict = "better than" if low > 0 else "worse than" if high < 0 else "not told from"
            verdict = verdict if count >= FEWEST else "and"  # an interval of few says nothing
            who = f"{a['tracker']} {verdict} {b['tracker']}"
            interval = f"{100 * low:+.2f} to {100 * high:+.2f}"
            lines.append((dataset, who, f"{100 * mean:+.2f}", interval, str(count)))
    return lines


def markdown(reports: Sequence[Report], convention: str = DEFAULT) -> str:
    """The same tables as Markdown, and what each run did differently from the paper."""
    lines: list[str] = []
    for dataset, rows in _by_dataset(reports, convention).items():
        titles = ["tracker", *main_titles(rows[0]), "sequences"]
        title = f"## {dataset}, {_rule(dataset, convention)}"
        lines += [title, "", *pipe(titles, _lines(dataset, rows, convention)), ""]
        lines += [f"{OTHER_DATA.capitalize()}.", ""] if _other_data(rows) else []
        for report in rows:
            text = "; ".join(report["run"].get("from_paper", ())) or "nothing"
            if report["run"].get("settings"):
                lines += [f"{report['tracker']}, different from the paper's recipe: {text}.", ""]
    if found := comparisons(reports, convention):
        titles = ["dataset", "", "difference", "95 % interval", "sequences"]
        lines += ["## Differences of success AUC", "", *pipe(titles, found), ""]
    return printable("\n".join(lines))


def write_standings(output: Path, reports: Sequence[Report], convention: str = DEFAULT) -> None:
    """Write ``table.md``, ``table.tex`` and, by dataset, the plots of curves and attributes.

    Raises as ``check_standings`` does.
    """
    check_standings(output, reports)
    for name, make in (("table.md", markdown), ("table.tex", latex_text)):
        text = make(reports, convention)
        write_beside(output / name, partial(Path.write_text, data=text, encoding="utf-8"))
    for dataset, rows in _by_dataset(reports, convention).items():
        folder = _folder(output, dataset)
        drawn = [report for report in rows if report["success_curve"]]
        curves = {
            report["tracker"]: [
                Curves(
                    np.array(report["success_curve"]),
                    np.array(report["precision_curve"]),
                    np.array(report["normalized_curve"]),
                )
            ]
            for report in drawn
        }
        if drawn:
            counts = [report["dataset"]["sequences"] for report in drawn]
            plot_curves(folder, curves, counts=counts)
        attributes = {r["tracker"]: r["attributes"] for r in rows if r["attributes"]}
        if attributes:
            plot_attributes(folder / "attributes.png", attributes)


def check_standings(output: Path, reports: Sequence[Report]) -> None:
    """Raise ``ValueError`` where a file of a run would be replaced, and ``OSError`` where
    ``output`` cannot be written.
    """
    for folder in (output, *(_folder(output, dataset_of(report)) for report in reports)):
        if (folder / "results.json").exists():
            raise ValueError(f"{folder} holds a run of spmtrack eval; choose another output")
        check_output(folder / "table.md")


def _folder(output: Path, dataset: str) -> Path:
    """Where the plots of a dataset are."""
    return output / dataset.replace(" ", "-")


def _lines(dataset: str, rows: Sequence[Report], convention: str) -> list[list[str]]:
    """Name, scores in percent and number of sequences of every run, then the paper's figures."""
    lines = []
    for report in rows:
        scores = [percent(value) for value in main_scores(report, convention)]
        count = counted(report)
        if not report["sequences"]:
            count += ", scored by the server"
        lines.append([report["tracker"], *scores, count])
    for name, figures in PAPER.get(dataset, {}).items():
        cells = [f"{figure:.1f}" for figure in figures] + ["-"] * (3 - len(figures))
        lines.append([f"{name} (paper)", *cells, ""])
    return lines


def _by_dataset(reports: Sequence[Report], convention: str) -> dict[str, list[Report]]:
    """Reports by dataset, the best first by the first score that the table shows."""
    groups: dict[str, list[Report]] = {}
    for report in reports:
        groups.setdefault(dataset_of(report), []).append(report)
    for rows in groups.values():
        rows.sort(key=lambda report: -(main_scores(report, convention)[0] or 0))
    return groups


def _other_data(rows: Sequence[Report]) -> bool:
    """Whether runs on one dataset were not scored on the same data."""
    return len({report["dataset"]["fingerprint"] for report in rows}) > 1


def _aucs(report: Report, convention: str) -> dict[str, float]:
    """Success AUC by sequence, where the convention has one."""
    rows = (row for row in report["sequences"] if convention in row["auc"])
    return {row["sequence"]: row["auc"][convention] for row in rows}


def _rule(dataset: str, convention: str) -> str:
    if dataset.startswith("got10k"):
        return "GOT-10k's rules"
    return "TrackingNet's rules" if dataset.startswith("trackingnet") else f"{convention} rules"


def check_convention(name: str) -> str:
    """``name``, or ``ValueError`` if it is no convention."""
    if name not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}; got {name!r}")
    return name
