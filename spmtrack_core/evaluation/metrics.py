"""Metrics of one-pass evaluation for LaSOT, UAV123, NfS and OTB, by the rules of pytracking.

Boxes are xywh, (N, 4). ``overlaps`` counts whole pixels (+1 convention). A frame is valid if width
and height of the true box are positive; every frame counts in the denominator.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy

SUCCESS_THRESHOLDS = np.linspace(0, 1, 21)


def mean_iou(predicted_xywh: ArrayLike, truth_xywh: ArrayLike) -> float:
    """Mean IoU (no +1) over the frames with a visible target, the first included; NaN if none.

    >>> mean_iou([[0, 0, 10, 10], [5, 0, 10, 10]], [[0, 0, 10, 10], [0, 0, 10, 10]])
    0.6666666666666666
    """
    predicted, truth = _pair(predicted_xywh, truth_xywh)
    visible = _valid(truth)
    if not visible.any():
        return float("nan")
    seen = iou_xyxy(xywh_to_xyxy(predicted[visible]), xywh_to_xyxy(truth[visible]))
    return float(seen.mean())


def overlaps(predicted_xywh: ArrayLike, truth_xywh: ArrayLike) -> NDArray[np.float64]:
    """(N,) IoU with the +1 convention; 1 in the first frame, -1 in frames that are not valid.

    A prediction without width or height is replaced by the one before it. Raises ``ValueError``
    for different numbers of boxes, and for predictions that are not finite or of negative size.

    >>> overlaps([[0, 0, 1, 1], [0, 0, 10, 10]], [[0, 0, 10, 10], [0, 0, 10, 10]]).tolist()
    [1.0, 1.0]
    """
    predicted, truth = _pair(predicted_xywh, truth_xywh)
    if not np.isfinite(predicted).all() or (predicted[:, 2:] < 0).any():
        raise ValueError("a predicted box is not finite or has a negative size")
    predicted[0] = truth[0]
    for frame in range(1, len(predicted)):
        if (predicted[frame, 2:] == 0).any():
            predicted[frame] = predicted[frame - 1]
    valid = _valid(truth)
    sides = np.minimum(
        predicted[:, :2] + predicted[:, 2:] - 1, truth[:, :2] + truth[:, 2:] - 1
    ) - np.maximum(predicted[:, :2], truth[:, :2])
    intersection = np.clip(sides + 1, 0, None).prod(1)
    union = predicted[:, 2:].prod(1) + truth[:, 2:].prod(1) - intersection
    # rounding must not lift a perfect overlap above the last threshold
    return np.where(valid, np.minimum(intersection / np.where(valid, union, 1), 1.0), -1.0)


def success_curve(overlaps_: ArrayLike) -> NDArray[np.float64]:
    """(21,) share of frames with an overlap strictly above 0, 0.05, ... 1.

    >>> float(success_curve([1.0, 0.5, -1.0, 0.0])[0])
    0.5
    """
    return (np.asarray(overlaps_)[:, None] > SUCCESS_THRESHOLDS).mean(0)


def success_auc(predicted_xywh: ArrayLike, truth_xywh: ArrayLike) -> float:
    """Area under the success curve, 0..1: the mean of its 21 values, so at most 20 / 21."""
    return float(success_curve(overlaps(predicted_xywh, truth_xywh)).mean())


def good_boxes(predicted_xywh: ArrayLike, truth_xywh: ArrayLike) -> NDArray[np.bool_]:
    """(N,) whether the target is visible and the IoU (no +1) is above 0.5."""
    predicted, truth = _pair(predicted_xywh, truth_xywh)
    visible = _valid(truth)
    good = np.zeros(len(truth), bool)
    good[visible] = iou_xyxy(xywh_to_xyxy(predicted[visible]), xywh_to_xyxy(truth[visible])) > 0.5
    return good


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


def _pair(
    predicted_xywh: ArrayLike, truth_xywh: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as arrays (N, 4), the prediction as a copy."""
    predicted, truth = np.array(predicted_xywh, float), np.asarray(truth_xywh, float)
    if predicted.shape != truth.shape:
        raise ValueError(f"{len(predicted)} predicted boxes for {len(truth)} frames")
    return predicted, truth


def _valid(truth_xywh: NDArray[np.float64]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):  # NaN is an absent target
        return np.logical_and((truth_xywh[:, 2:] > 0).all(1), np.isfinite(truth_xywh).all(1))
