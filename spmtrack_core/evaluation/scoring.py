"""Scores of boxes that exist already, of one sequence and of all, in every convention."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spmtrack_core.data.clips import Track, visible
from spmtrack_core.evaluation.conventions import (
    CONVENTIONS,
    DEFAULT,
    RULES,
    Curves,
    Rules,
    curves,
    got10k_overlaps,
    got10k_scores,
    trackingnet_scores,
)
from spmtrack_core.evaluation.metrics import confidence_auc, frame_iou, long_term, lost_scores
from spmtrack_core.evaluation.results import SequenceRun
from spmtrack_core.geometry.boxes import Boxes

SCORES = ("auc", "precision", "normalized_precision")


@dataclass
class SequenceScore:
    """The scores of one sequence, means over its repetitions."""

    track: Track
    runs: list[SequenceRun]
    curves: dict[str, Curves]
    """By convention; without those that end in an error."""
    errors: dict[str, str]
    """Why a convention has no score."""
    got10k: NDArray[np.float64] | None
    """Overlaps of all frames that count, of all repetitions."""
    trackingnet: dict[str, float]
    iou: list[NDArray[np.float64]] = field(repr=False)
    """``frame_iou`` of each repetition."""

    @property
    def mean_iou(self) -> float:
        """Over the frames that show the target; NaN if none does."""
        seen = np.concatenate(self.iou)
        seen = seen[~np.isnan(seen)]
        return float(seen.mean()) if len(seen) else float("nan")


def fingerprint(tracks: Iterable[Track]) -> str:
    """SHA-256 of names and true boxes of sequences: equal for all trackers on the same data."""
    digest = hashlib.sha256()
    for track in sorted(tracks, key=lambda each: each.name):
        digest.update(track.name.encode("utf-8", "surrogateescape"))
        digest.update(np.asarray(track.shown_xywh, np.float64).tobytes())
    return digest.hexdigest()


def score_sequence(dataset: str, track: Track, runs: Sequence[SequenceRun]) -> SequenceScore:
    """Score the boxes of one or several passes; they count pixels from 0, as ``track`` does."""
    rules = RULES.get(dataset, Rules())
    shift = np.array([track.origin, track.origin, 0, 0])
    absent = track.absent
    if absent is None:
        absent = np.asarray(~np.isfinite(track.boxes_xywh).all(1), bool)
    found: dict[str, list[Curves]] = {name: [] for name in CONVENTIONS}
    errors: dict[str, str] = {}
    overlaps, ious, tracking = [], [], []
    for run in runs:
        boxes = run.boxes_xywh + shift
        truth = track.boxes_xywh + shift
        for name in CONVENTIONS:
            try:
                found[name].append(curves(name, boxes, truth, absent, rules))
            except ValueError as error:
                errors[name] = str(error)
        hidden = ~visible(track.shown_xywh)
        if dataset == "got10k" and track.absent is not None:
            hidden = track.absent  # a true box without an area counts, and fails
        try:
            overlaps.append(
                got10k_overlaps(run.boxes_xywh, track.boxes_xywh, hidden, track.image_wh)
            )
        except ValueError as error:
            errors["got10k"] = str(error)
        tracking.append(trackingnet_scores(run.boxes_xywh, track.boxes_xywh))
        ious.append(frame_iou(_filled(run.boxes_xywh, len(truth)), track.shown_xywh))
    means = {
        name: Curves(*(np.mean(parts, 0) for parts in zip(*each, strict=True)))
        for name, each in found.items()
        if name not in errors
    }
    return SequenceScore(
        track,
        list(runs),
        means,
        errors,
        None if "got10k" in errors else np.concatenate(overlaps),
        {key: float(np.mean([each[key] for each in tracking])) for key in SCORES},
        ious,
    )


def summary(scores: Sequence[SequenceScore]) -> dict[str, Any]:
    """Scores over all sequences, as the keys of ``results.json`` below ``mean``.

    Every number is 0..1. A convention that ends in an error for one sequence has ``error``.
    """
    conventions: dict[str, Any] = {}
    for name, words in CONVENTIONS.items():
        failed = [score for score in scores if name in score.errors]
        if failed:
            first = failed[0]
            text = f"{first.track.name}: {first.errors[name]} ({len(failed)} of {len(scores)})"
            conventions[name] = {"rules": words, "error": text}
        else:
            each = [score.curves[name].scores() for score in scores]
            means = {key: float(np.mean([one[key] for one in each])) for key in SCORES}
            conventions[name] = {"rules": words, **means}
    failed = [score for score in scores if score.got10k is None]
    known = all(score.track.image_wh for score in scores)
    clipping = "boxes clipped to the image" if known else "boxes not clipped: sizes unknown"
    got10k: dict[str, Any] = {
        "rules": f"GOT-10k: first frame and hidden frames left out, no +1, {clipping}; AO over "
        "all frames pooled"
    }
    if failed:
        got10k["error"] = f"{failed[0].track.name}: {failed[0].errors['got10k']}"
    else:
        pooled = [score.got10k for score in scores if score.got10k is not None]
        got10k |= _finite(got10k_scores(np.concatenate(pooled)))
    means = {key: float(np.mean([score.trackingnet[key] for score in scores])) for key in SCORES}
    words = "TrackingNet: integers, first box is the true one, areas below 21 thresholds"
    return {
        "conventions": conventions,
        "got10k": got10k,
        "trackingnet": {"rules": words, **means},
        **_confidence(scores),
    }


def mean_curves(scores: Sequence[SequenceScore], convention: str = DEFAULT) -> Curves | None:
    """Curves over all sequences; None where the convention ends in an error for one."""
    each = [score.curves.get(convention) for score in scores]
    if not each or any(one is None for one in each):
        return None
    return Curves(*(np.mean(parts, 0) for parts in zip(*each, strict=True)))


def by_attribute(scores: Sequence[SequenceScore]) -> dict[str, dict[str, float]]:
    """Mean scores of the sequences that have an attribute, by its name."""
    names = sorted({name for score in scores for name in score.track.attributes})
    table = {}
    for name in names:
        chosen = [score for score in scores if name in score.track.attributes]
        found = mean_curves(chosen)
        if found is not None:
            table[name] = {"sequences": float(len(chosen)), **found.scores()}
    return table


def _confidence(scores: Sequence[SequenceScore]) -> dict[str, Any]:
    """How well confidence and state tell good boxes and absent targets, first frames left out."""
    pairs = [
        (run, iou[1:], ~visible(score.track.shown_xywh)[1:])
        for score in scores
        for run, iou in zip(score.runs, score.iou, strict=True)
    ]
    confidence = [run.confidence[1:] for run, _, _ in pairs]
    good = [np.nan_to_num(iou) > 0.5 for _, iou, _ in pairs]
    lengths = all(len(a) == len(b) for a, b in zip(confidence, good, strict=True))
    if not lengths or not pairs:
        return {"confidence_auc": None, "long_term": None, "lost": None}
    auc = confidence_auc(np.concatenate(confidence), np.concatenate(good))
    absent = np.concatenate([gone for _, _, gone in pairs])
    known = ~np.isnan(np.concatenate(confidence)).all()
    terms = long_term([iou for _, iou, _ in pairs], confidence)
    lost = lost_scores(np.concatenate([run.lost[1:] for run, _, _ in pairs]), absent)
    return {
        "confidence_auc": None if np.isnan(auc) else auc,
        "long_term": terms and _finite(terms),
        "lost": lost if known else None,
    }


def _filled(boxes_xywh: Boxes, frames: int) -> Boxes:
    """(frames, 4), NaN where there is no box."""
    filled = np.full((frames, 4), np.nan)
    filled[: len(boxes_xywh)] = boxes_xywh[:frames]
    return filled


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    """NaN and infinity as None: JSON has neither."""
    return {key: value if np.isfinite(value) else None for key, value in numbers.items()}
