"""The report of a run: one JSON with every number and its rule, tables, plots, all frames."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spmtrack_core.data.clips import visible
from spmtrack_core.evaluation.conventions import CONVENTIONS, COUNTS, DEFAULT, RULES
from spmtrack_core.evaluation.plots import PLOTS, plot_attributes, plot_curves
from spmtrack_core.evaluation.scoring import (
    SCORES,
    SequenceScore,
    by_attribute,
    mean_curves,
    summary,
)
from spmtrack_core.evaluation.tables import csv_text, latex_text, markdown_text
from spmtrack_core.files import printable, write_beside, write_text

PROTOCOL = "one pass, first frame given, valid frames: truth with w, h > 0"
FLAGGED = ", not flagged absent"


@dataclass(frozen=True)
class Facts:
    """What a report says besides scores."""

    dataset: str = "folder"
    split: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Weights, settings, versions, device, command: whatever tells how the boxes came about."""
    notes: Sequence[str] = ()
    """Remarks on all of it, such as the coordinates of result files."""


def write_report(
    output: Path,
    label: str,
    scores: Sequence[SequenceScore],
    unscored: Sequence[str],
    left_out: Sequence[str],
    fingerprint: str,
    facts: Facts | None = None,
) -> dict[str, Any]:
    """Write the report of a run into ``output`` and return it.

    Files: ``results.json``; with scores also ``table.md``, ``results.csv``, ``table.tex``,
    ``frames.npz``, ``success.png``; with ``facts`` ``precision.png`` and ``normalized.png``; and
    ``attributes.png`` where the sequences have attributes. ``unscored`` are sequences whose truth
    a server has.
    """
    label = printable(label)
    report = make_report(label, scores, unscored, left_out, fingerprint, facts or Facts())
    if scores:
        write_beside(output / "frames.npz", lambda path: save_frames(path, scores))
        texts = {
            "table.md": markdown_text(report),
            "results.csv": csv_text(report),
            "table.tex": latex_text([report], DEFAULT),
        }
        for name, text in texts.items():
            write_text(output / name, text)
        curves = {label: [score.curves[DEFAULT] for score in scores if DEFAULT in score.curves]}
        if curves[label]:
            plot_curves(output, curves, tuple(PLOTS) if facts else ("success",))
        if report["attributes"]:
            plot_attributes(output / "attributes.png", {label: report["attributes"]})
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_text(output / "results.json", text)
    return report


def make_report(
    label: str,
    scores: Sequence[SequenceScore],
    unscored: Sequence[str],
    left_out: Sequence[str],
    fingerprint: str,
    facts: Facts,
) -> dict[str, Any]:
    """The content of ``results.json``; scores are 0..1."""
    rows = [_row(score) for score in scores]
    found = summary(scores) if scores else {"confidence_auc": None, "conventions": {}}
    curves = mean_curves(scores)
    times = [run.seconds[1:] for each in scores for run in each.runs]
    seconds = np.concatenate([np.empty(0), *times])
    seconds = seconds[~np.isnan(seconds)]
    keys = ("mean_iou", "success_auc", *SCORES[1:])
    mean = {key: _mean([row[key] for row in rows]) for key in keys}
    known = [row["median_ms"] for row in rows if row["median_ms"]]  # a single frame has none
    mean["median_ms"] = _mean(known) or 0.0
    rules = RULES.get(facts.dataset)
    notes = told_once((row["sequence"], note) for row in rows for note in row["notes"])
    return {
        "tracker": label,
        "dataset": {
            "name": facts.dataset,
            "split": facts.split,
            "sequences": len(rows),
            "split_sequences": COUNTS.get((facts.dataset, facts.split)),
            "frames": sum(row["frames"] for row in rows),
            "fingerprint": fingerprint,
        },
        "protocol": PROTOCOL + (FLAGGED if rules and rules.flags else ""),
        "convention": DEFAULT,
        "rules": CONVENTIONS[DEFAULT],
        "mean": mean,
        **found,
        "spread": _spread(found["conventions"]),
        "speed": {
            "median_ms": _rounded(np.median(seconds) * 1000) if len(seconds) else None,
            "p95_ms": _rounded(np.percentile(seconds, 95) * 1000) if len(seconds) else None,
            "batch": sorted({run.batch for each in scores for run in each.runs}),
        },
        "success_curve": curves.success.round(6).tolist() if curves else None,
        "precision_curve": curves.precision.round(6).tolist() if curves else None,
        "normalized_curve": curves.normalized.round(6).tolist() if curves else None,
        "attributes": by_attribute(scores),
        "sequences": rows,
        "unscored": list(unscored),
        "left_out": list(left_out),
        "notes": [*facts.notes, *notes],
        "run": dict(facts.run),
    }


def save_frames(path: Path, scores: Sequence[SequenceScore]) -> None:
    """Every frame of the first repetition as arrays of one npz; ``ends`` (S,) close sequences.

    ``boxes_xywh`` and ``truth_xywh`` (F, 4), ``iou`` (NaN: target absent), ``confidence``,
    ``seconds``, ``lost`` and ``visible`` (F,), ``names`` (S,).
    """
    truth = [score.track.boxes_xywh for score in scores]
    lengths = [len(each) for each in truth]
    runs = [score.runs[0] for score in scores]

    def column(part: int, empty: float) -> np.ndarray:
        parts = []
        for run, length in zip(runs, lengths, strict=True):
            values = np.asarray(run[part], float)[:length]
            padding = np.full((length - len(values), *values.shape[1:]), empty)
            parts.append(np.concatenate([values, padding]))
        return np.concatenate(parts)

    with open(path, "wb") as file:  # a name would get .npz appended
        np.savez_compressed(
            file,
            names=np.array([score.track.name for score in scores]),
            ends=np.cumsum(lengths),
            boxes_xywh=column(0, np.nan),
            truth_xywh=np.concatenate(truth),
            visible=np.concatenate([visible(score.track.shown_xywh) for score in scores]),
            iou=np.concatenate([score.iou[0] for score in scores]),
            confidence=column(2, np.nan),
            seconds=column(1, np.nan),
            lost=column(3, 0) > 0,
        )


def told_once(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Sequences and what is noted of them, one line for each note, however many have it."""
    names: dict[str, list[str]] = {}
    for name, note in notes:
        names.setdefault(note, []).append(name)
    return [
        f"{first}: {note}"
        if not others
        else f"{1 + len(others)} sequences, such as {first}: {note}"
        for note, (first, *others) in names.items()
    ]


def _row(score: SequenceScore) -> dict[str, Any]:
    """One sequence of ``results.json``."""
    track, default = score.track, score.curves.get(DEFAULT)
    found = default.scores() if default else dict.fromkeys(SCORES)
    later = np.concatenate([run.seconds[1:] for run in score.runs])
    later = later[~np.isnan(later)]
    extra = max(0, *(len(run.boxes_xywh) - len(track.boxes_xywh) for run in score.runs))
    long = (f"{extra} boxes more than frames: the first ones are scored",) if extra else ()
    return {
        "sequence": track.name,
        "frames": len(track.boxes_xywh),
        "mean_iou": _rounded(score.mean_iou, 9),
        "success_auc": found["auc"],
        "precision": found["precision"],
        "normalized_precision": found["normalized_precision"],
        "auc": {name: float(curves.success.mean()) for name, curves in score.curves.items()},
        "median_ms": float(np.median(later) * 1000) if len(later) else 0.0,
        "attributes": list(track.attributes),
        "notes": [*track.notes, *long],
        "errors": dict(score.errors),
    }


def _spread(conventions: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Largest difference between the conventions, by score."""
    known = [each for each in conventions.values() if "error" not in each]
    if not known:
        return {}
    return {key: max(e[key] for e in known) - min(e[key] for e in known) for key in SCORES}


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is known; None if something is not."""
    if not values or any(value is None for value in values):
        return None
    return float(np.mean(np.array(values, float)))


def _rounded(value: float, digits: int = 3) -> float | None:
    return None if np.isnan(value) else round(float(value), digits)
