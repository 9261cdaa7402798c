"""Metrics of boxes and of the confidence that no benchmark's rules touch.

Boxes are xywh, (N, 4); IoU has no +1. The target is visible where the true box is finite and has
an area. ``conventions.py`` has the scores of the benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy


def mean_iou(predicted_xywh: ArrayLike, truth_xywh: ArrayLike) -> float:
    """Mean IoU over the frames with a visible target, the first included; NaN if none.

    >>> mean_iou([[0, 0, 10, 10], [5, 0, 10, 10]], [[0, 0, 10, 10], [0, 0, 10, 10]])
    0.6666666666666666
    """
    iou = frame_iou(predicted_xywh, truth_xywh)
    seen = iou[~np.isnan(iou)]
    return float(seen.mean()) if len(seen) else float("nan")


def frame_iou(predicted_xywh: ArrayLike, truth_xywh: ArrayLike) -> NDArray[np.float64]:
    """(N,) IoU; 0 where a prediction is no box, NaN in frames without a visible target."""
    predicted, truth = _pair(predicted_xywh, truth_xywh)
    visible = _valid(truth)
    iou = np.full(len(truth), np.nan)
    with np.errstate(invalid="ignore", over="ignore"):  # files of results may hold infinity
        seen = iou_xyxy(xywh_to_xyxy(predicted[visible]), xywh_to_xyxy(truth[visible]))
    iou[visible] = np.nan_to_num(seen)
    return iou


def good_boxes(predicted_xywh: ArrayLike, truth_xywh: ArrayLike) -> NDArray[np.bool_]:
    """(N,) whether the target is visible and the IoU is above 0.5."""
    return np.nan_to_num(frame_iou(predicted_xywh, truth_xywh)) > 0.5


def confidence_auc(confidence: ArrayLike, good: ArrayLike) -> float:
    """ROC AUC: how often a good box has a higher confidence than a bad one; a tie is one half.

    ``confidence`` and ``good`` are (N,); frames without a confidence (NaN) do not count. 0.5 is
    chance; NaN if all boxes are good or none is.

    >>> confidence_auc([0.9, 0.8, 0.3, float("nan")], [True, False, False, True])
    1.0
    """
    scores, is_good = np.asarray(confidence, float), np.asarray(good, bool)
    known = ~np.isnan(scores)
    scores, is_good = scores[known], is_good[known]
    ordered = np.sort(scores[~is_good])
    below = np.searchsorted(ordered, scores[is_good], "left")
    up_to = np.searchsorted(ordered, scores[is_good], "right")
    if not len(ordered) or not is_good.any():
        return float("nan")
    return float((below + up_to).mean() / (2 * len(ordered)))


def long_term(
    ious: Sequence[NDArray[np.float64]], confidences: Sequence[NDArray[np.float64]]
) -> dict[str, float] | None:
    """F-score of VOT-LT with its precision, recall and ``threshold`` of the confidence.

    One array (N,) a sequence: ``frame_iou``, NaN where the target is absent, and the confidence.
    At a threshold, precision is the mean IoU of the frames with at least this confidence (0 where
    the target is absent), recall the sum of the same over the number of frames that show the
    target; both are means over the sequences. The threshold is that of the highest F-score. None
    without a confidence (Lukezic et al., "Now you see me", 2018).

    >>> long_term([np.array([1, np.nan, 0.5])], [np.array([0.9, 0.1, 0.6])])["f_score"]
    0.75
    """
    everything = np.concatenate([np.asarray(each) for each in confidences] or [np.empty(0)])
    if np.isnan(everything).any() or not len(everything):
        return None
    thresholds = np.unique(np.quantile(everything, np.linspace(0, 1, 101), method="lower"))
    precision, recall = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    shown = 0
    for iou, confidence in zip(ious, confidences, strict=True):
        claimed = confidence >= thresholds[:, None]  # (T, N)
        overlap = (claimed * np.nan_to_num(iou)).sum(1)
        count = claimed.sum(1)
        precision += np.divide(overlap, count, out=np.ones(len(count)), where=count > 0)
        visible = int((~np.isnan(iou)).sum())
        shown += visible > 0
        recall += overlap / max(visible, 1)
    precision, recall = precision / len(ious), recall / max(shown, 1)
    both = precision + recall
    f_score = np.divide(2 * precision * recall, both, out=np.zeros(len(both)), where=both > 0)
    best = int(f_score.argmax())
    chosen = f_score[best], precision[best], recall[best], thresholds[best]
    names = ("f_score", "precision", "recall", "threshold")
    return {name: float(value) for name, value in zip(names, chosen, strict=True)}


def lost_scores(lost: ArrayLike, absent: ArrayLike) -> dict[str, float] | None:
    """How well LOST tells that a target is absent: ``precision``, ``recall``, ``f_score``.

    Both are (N,) of all frames together. None where the target is never absent.

    >>> lost_scores([True, True, False, False], [True, False, True, False])["precision"]
    0.5
    """
    said, gone = np.asarray(lost, bool), np.asarray(absent, bool)
    if not gone.any():
        return None
    right = float((said & gone).sum())
    precision = right / said.sum() if said.any() else 1.0
    recall = right / gone.sum()
    both = precision + recall
    f_score = 2 * precision * recall / both if both else 0.0
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f_score": float(f_score),
        "absent_frames": int(gone.sum()),
    }


def _pair(
    predicted_xywh: ArrayLike, truth_xywh: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as arrays (N, 4)."""
    predicted, truth = np.asarray(predicted_xywh, float), np.asarray(truth_xywh, float)
    if predicted.shape != truth.shape:
        raise ValueError(f"{len(predicted)} predicted boxes for {len(truth)} frames")
    return predicted, truth


def _valid(truth_xywh: NDArray[np.float64]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):  # NaN is an absent target
        return np.logical_and((truth_xywh[:, 2:] > 0).all(1), np.isfinite(truth_xywh).all(1))
