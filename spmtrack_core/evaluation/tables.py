"""Reports as tables: for the terminal, Markdown, CSV and LaTeX. Scores there are in percent."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from spmtrack_core.evaluation.conventions import COUNTS
from spmtrack_core.files import printable

LONG = 40
"""Sequences from which the terminal gets their means alone."""
NOTEWORTHY = 0.0005
"""Difference between conventions, 0..1, from which a report speaks of it."""
TITLES = {"auc": "AUC", "precision": "P", "normalized_precision": "Pnorm"}


def table(report: dict[str, Any]) -> Table:
    """A report of ``runner.run`` as a table."""
    shown = Table(
        title=f"{report['tracker']}: {report['protocol']}",
        caption=caption(report),
        caption_justify="left",
    )
    for title in ("sequence", "frames", "mean IoU", "success AUC", "P", "Pnorm", "ms (median)"):
        shown.add_column(title, justify="left" if title == "sequence" else "right")
    rows = report["sequences"] if len(report["sequences"]) < LONG else []
    total = {"sequence": "mean", "frames": sum(row["frames"] for row in report["sequences"])}
    for row in [*rows, {**total, **report["mean"]}]:
        keys = ("mean_iou", "success_auc", "precision", "normalized_precision")
        scores = [_score(row[key]) for key in keys]
        speed = "-" if not row["median_ms"] else f"{row['median_ms']:.1f}"
        last = bool(rows) and row is rows[-1]
        shown.add_row(row["sequence"], str(row["frames"]), *scores, speed, end_section=last)
    return shown


def caption(report: Mapping[str, Any]) -> str:
    """The lines below the table: confidence, conventions, long-term scores, settings."""
    lines = []
    if part := part_of_split(report):
        lines.append(f"{part} sequences of {report['dataset']['name']}: a part of the split")
    lines.append(f"ROC AUC of the confidence for IoU > 0.5: {_score(report['confidence_auc'])}")
    if lost := report.get("lost"):
        lines.append(
            f"LOST where the target is absent ({lost['absent_frames']} frames): precision "
            f"{_score(lost['precision'])}, recall {_score(lost['recall'])}"
        )
    if (long_term := report.get("long_term")) and lost:
        lines.append(
            f"long-term F-score {_score(long_term['f_score'])} at confidence "
            f"{_score(long_term['threshold'])} (precision {_score(long_term['precision'])}, "
            f"recall {_score(long_term['recall'])})"
        )
    failed = any("error" in found for found in report["conventions"].values())
    if failed or max(report.get("spread", {}).values(), default=0) > NOTEWORTHY:
        lines += ["who scores (AUC, P, Pnorm in percent):", *convention_lines(report)]
    if "ao" in report.get("got10k", {}) and report["dataset"]["name"] == "got10k":
        scores = ", ".join(percent(report["got10k"][key]) for key in ("ao", "sr50", "sr75"))
        lines.append(f"GOT-10k AO, SR50, SR75: {scores}")
    if report["dataset"]["name"] == "trackingnet":
        lines.append(f"TrackingNet: {', '.join(_of(report['trackingnet']))}")
    if report["speed"]["batch"] not in ([], [1]):
        lines.append(speed_line(report))
    if unscored := report.get("unscored"):
        lines.append(f"{len(unscored)} sequences tracked whose truth a server has")
    run = report.get("run", {})
    said = "changed" if run.get("recipe") == "weights" else "not as the recipe says"
    lines += [f"{said}: {each}" for each in run.get("differences", ())]
    lines += list(report.get("notes", ()))[:10]
    return "\n".join(lines)


def speed_line(report: Mapping[str, Any]) -> str:
    """How long a frame took, on what, and how many sequences shared a pass of the network."""
    speed, batches = report["speed"], [str(each) for each in report["speed"]["batch"]]
    if speed["median_ms"] is None:
        return "Speed: unknown."
    shared = "" if batches == ["1"] else f", a frame's share of batches of {' and '.join(batches)}"
    return (
        f"Speed: median {speed['median_ms']:.1f} ms a frame, 95 %: {speed['p95_ms']:.1f} ms"
        f"{shared}; without reading the images; on {report['run'].get('device', 'this computer')}."
    )


def convention_lines(report: Mapping[str, Any]) -> list[str]:
    """One line a convention: its name and scores, or why it has none."""
    lines = []
    for name, found in report["conventions"].items():
        scores = found["error"] if "error" in found else ", ".join(_of(found))
        lines.append(f"{name}: {scores}")
    return lines


def comparison(reports: Sequence[dict[str, Any]]) -> Group:
    """Reports on the same sequences, side by side.

    One line a tracker, then the mean IoU by sequence, and by disturbance if the reports have it.
    """
    means = Table(title=reports[0]["protocol"])
    for title in ("", "tracker", "mean IoU", "success AUC", "AUC of confidence", "frames/s"):
        means.add_column(title, justify="left" if title == "tracker" else "right")
    for number, report in enumerate(reports, 1):
        mean, auc = report["mean"], report["confidence_auc"]
        scores = [_score(mean["mean_iou"]), _score(mean["success_auc"]), _score(auc)]
        speed = f"{1000 / max(mean['median_ms'], 1e-6):.0f}"
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


def markdown_text(report: Mapping[str, Any]) -> str:
    """A report as Markdown: scores with their rules, settings, attributes, sequences."""
    dataset = report["dataset"]
    lines = [
        f"# {report['tracker']} on {dataset['name']} {dataset['split']}".rstrip(),
        "",
        f"{counted(report)} sequences, {dataset['frames']} frames. Protocol: "
        f"{report['protocol']}. All scores are in percent; those of tables, plots and CSV are by "
        f"the convention {report['convention']} unless they say otherwise.",
        "",
        *pipe(
            ["convention", *TITLES.values(), "rules"],
            [
                [name, *(_of(found) if "error" not in found else ["-"] * 3), _rules(found)]
                for name, found in report["conventions"].items()
            ],
        ),
        "",
    ]
    lines += _own_rules(report)
    run = report["run"]
    if settings := run.get("settings"):
        lines += ["Settings: " + ", ".join(f"{key} {value}" for key, value in settings.items())]
        own = "settings of the weights" if run["recipe"] == "weights" else "recipe"
        for key, title in (("differences", own), ("from_paper", "paper's recipe")):
            lines += ["", f"Different from the {title}: {'; '.join(run[key]) or 'nothing'}."]
        lines += ["", speed_line(report), ""]
    lines += [f"- {note}" for note in report["notes"]] + [""] * bool(report["notes"])
    if report["attributes"]:
        rows = [
            [name, f"{found['sequences']:.0f}", *_of(found)]
            for name, found in report["attributes"].items()
        ]
        lines += [*pipe(["attribute", "sequences", *TITLES.values()], rows), ""]
    rows = [
        [
            row["sequence"],
            str(row["frames"]),
            *(percent(row[k]) for k in ("success_auc", "precision", "normalized_precision")),
        ]
        for row in report["sequences"]
    ]
    lines += pipe(["sequence", "frames", *TITLES.values()], rows)
    lines += ["", *(f"Left out: {fault}" for fault in report["left_out"])]
    return printable("\n".join(lines).rstrip() + "\n")


def _own_rules(report: Mapping[str, Any]) -> list[str]:
    """Tables by the rules of GOT-10k and TrackingNet, where the dataset is theirs or one's own."""
    lines: list[str] = []
    name, got10k, trackingnet = (report[key] for key in ("dataset", "got10k", "trackingnet"))
    free = name["name"] in ("folder", "synthetic")
    if (free or name["name"] == "got10k") and "error" not in got10k:
        scores = [percent(got10k[key]) for key in ("ao", "sr50", "sr75")]
        lines += [*pipe(["AO", "SR50", "SR75", "rules"], [[*scores, got10k["rules"]]]), ""]
    if free or name["name"] == "trackingnet":
        row = [*_of(trackingnet), trackingnet["rules"]]
        lines += [*pipe([*TITLES.values(), "rules"], [row]), ""]
    return lines


def csv_text(report: Mapping[str, Any]) -> str:
    """One row a sequence, scores 0..1."""
    keys = ["sequence", "frames", "mean_iou", "success_auc", "precision", "normalized_precision"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, "median_ms", "attributes"])
    for row in report["sequences"]:
        speed = row["median_ms"] or ""  # unknown for files that were scored again
        writer.writerow([*(row[k] for k in keys), speed, " ".join(row["attributes"])])
    return printable(text.getvalue())


def counted(report: Mapping[str, Any]) -> str:
    """Sequences of a report: ``280``, or ``3 of 280`` of a split that papers report."""
    return part_of_split(report) or str(_sequences(report))


def part_of_split(report: Mapping[str, Any]) -> str:
    """``3 of 280`` where the split that papers report has more sequences; empty otherwise."""
    dataset, count = report["dataset"], _sequences(report)
    whole = COUNTS.get((dataset["name"], dataset["split"]), 0)
    return f"{count} of {whole}" if count < whole else ""


def _sequences(report: Mapping[str, Any]) -> int:
    return report["dataset"]["sequences"] or len(report["unscored"])


def main_titles(report: Mapping[str, Any]) -> Sequence[str]:
    """Titles of ``main_scores``."""
    got10k = report["dataset"]["name"] == "got10k"
    return ("AO", "SR50", "SR75") if got10k else tuple(TITLES.values())


def main_scores(report: Mapping[str, Any], convention: str) -> list[float | None]:
    """The three scores that papers give for a dataset, 0..1; None where there is none.

    GOT-10k and TrackingNet have rules of their own, any other dataset those of ``convention``.
    """
    dataset = report["dataset"]["name"]
    if not report["sequences"]:  # a server scores
        return [None] * len(TITLES)
    if dataset == "got10k":
        return [report["got10k"].get(key) for key in ("ao", "sr50", "sr75")]
    found = (
        report["trackingnet"] if dataset == "trackingnet" else report["conventions"][convention]
    )
    return [found.get(key) for key in TITLES]


def latex_text(reports: Sequence[Mapping[str, Any]], convention: str) -> str:
    """One line a tracker for a paper, in percent; titles wherever the scores are others."""
    lines = [r"\begin{tabular}{llccc}"]
    above: Sequence[str] = ()
    for report in reports:
        titles = main_titles(report)
        if titles != above:
            head = " & ".join(titles).replace("Pnorm", r"P$_\mathrm{norm}$")
            lines.append(rf"tracker & dataset & {head} \\ \hline")
            above = titles
        names = [report["tracker"], f"{report['dataset']['name']} {report['dataset']['split']}"]
        if part := part_of_split(report):
            names[1] += f" ({part})"
        cells = [_escaped(name) for name in names]
        cells += [percent(score) for score in main_scores(report, convention)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\end{tabular}", ""])


def pipe(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def _rules(found: Mapping[str, Any]) -> str:
    return f"{found['rules']}. {found['error']}" if "error" in found else found["rules"]


def _of(found: Mapping[str, Any]) -> list[str]:
    """AUC, P and Pnorm in percent."""
    return [percent(found[key]) for key in TITLES]


def _escaped(text: str) -> str:
    """Text for LaTeX."""
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    text = printable(text.strip())
    return re.sub(r"[\\~^_%&#${}]", lambda each: named.get(each[0], f"\\{each[0]}"), text)


def percent(value: float | None) -> str:
    """0..1 as a percentage with two digits; ``-`` for None."""
    return "-" if value is None else f"{100 * value:.2f}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
