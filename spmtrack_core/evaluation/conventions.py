"""One-pass evaluation by the rules of each toolkit: the same boxes, four conventions.

Boxes are xywh, (N, 4), in the coordinates of the annotation files: some conventions ask whether a
coordinate is positive, so it matters whether a file counts pixels from 0 or from 1. Every frame
counts in the denominator. ``CONVENTIONS`` says in words what each one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spmtrack_core.geometry.boxes import Boxes

SUCCESS_THRESHOLDS = np.linspace(0, 1, 21)
"""Overlap, strictly above."""
PRECISION_THRESHOLDS = np.arange(51.0)
"""Distance of the centers in px, at most; the precision is reported at 20."""
NORMALIZED_THRESHOLDS = np.arange(51) / 100
"""The same in sides of the true box; reported at 0.20."""
REPORTED = 20
"""Index of the reported threshold in both."""

CONVENTIONS = {
    "spmtrack": "SPMTrack's and LoRAT's own code: valid frames have a truth with w, h > 0; IoU at "
    "most 1; empty, NaN and negative predictions fail; the first box is scored as it is",
    "ostrack": "OSTrack, STARK: the same valid frames; IoU may exceed 1 by rounding; an empty "
    "prediction becomes the box before it; NaN and negative sizes are errors",
    "pytracking": "pytracking: as ostrack, but valid frames have a truth with x, y, w, h > 0",
    "official": "MATLAB toolkits of LaSOT and TNL2K: as pytracking, but a frame that is not valid "
    "and not flagged absent has the error -1, which passes; empty, NaN and negative predictions "
    "become the box before them",
}
"""Conventions by name, the paper's first, each with its rules in words."""
DEFAULT = "spmtrack"


@dataclass(frozen=True)
class Rules:
    """What the toolkits do differently for one dataset."""

    flags: bool = False
    """Frames that the dataset flags as absent are not valid. ``official`` always does this."""
    absent_fails: bool = False
    """Frames flagged as absent fail both errors."""
    invalid_passes: bool = False
    """Frames that are not valid pass the precision in px."""
    pads: bool = True
    """``ostrack`` and ``pytracking`` fill a result that is too short with failures."""


RULES = {
    "lasot": Rules(flags=True, absent_fails=True, pads=False),
    "lasot_ext": Rules(flags=True),
    "vasttrack": Rules(flags=True, absent_fails=True),
    "uav123": Rules(invalid_passes=True),
    "uav20l": Rules(invalid_passes=True),
}
"""Rules by dataset, where they are not the common ones."""

COUNTS = {
    ("lasot", "test"): 280,
    ("lasot_ext", "test"): 150,
    ("got10k", "val"): 180,
    ("got10k", "test"): 180,
    ("trackingnet", "test"): 511,
    ("tnl2k", "test"): 700,
    ("nfs", "test"): 100,
    ("nfs", "pytracking"): 100,
    ("uav123", "test"): 123,
    ("uav20l", "test"): 20,
    ("otb2015", "test"): 100,
    ("vasttrack", "test"): 3500,
}
"""Sequences of the splits that papers report."""


class Curves(NamedTuple):
    """Shares of the frames of one sequence, 0..1."""

    success: NDArray[np.float64]
    """(21,) overlap strictly above each of ``SUCCESS_THRESHOLDS``."""
    precision: NDArray[np.float64]
    """(51,) error at most each of ``PRECISION_THRESHOLDS``."""
    normalized: NDArray[np.float64]
    """(51,) error at most each of ``NORMALIZED_THRESHOLDS``."""

    def scores(self) -> dict[str, float]:
        """``auc``, ``precision`` and ``normalized_precision``, 0..1."""
        return {
            "auc": float(self.success.mean()),
            "precision": float(self.precision[REPORTED]),
            "normalized_precision": float(self.normalized[REPORTED]),
        }


def curves(
    convention: str,
    predicted_xywh: Boxes,
    truth_xywh: Boxes,
    absent: NDArray[np.bool_] | None = None,
    rules: Rules = Rules(),
) -> Curves:
    """The curves of one sequence by one of ``CONVENTIONS``.

    ``absent`` (N,) are the frames that the dataset flags as absent. Boxes beyond the last true one
    do not count. Raises ``ValueError`` for an unknown convention, for too few boxes where the
    convention does not pad, and for boxes that end the toolkit of the convention in an error.

    >>> box = np.array([[10.0, 10, 20, 20]] * 4)
    >>> round(curves("spmtrack", box, box).scores()["auc"], 6)  # 1 > 1 is false
    0.952381
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}; got {convention!r}")
    truth = np.asarray(truth_xywh, float)
    flagged = np.zeros(len(truth), bool) if absent is None else np.asarray(absent, bool)
    predicted = np.array(predicted_xywh, float).reshape(-1, 4)[: len(truth)]
    official, own = convention == "official", convention == "spmtrack"
    with np.errstate(invalid="ignore"):
        usable = ~np.isnan(predicted).any(1) & (predicted[:, 2:] > 0).all(1)
    if own:
        usable &= np.isfinite(predicted).all(1)
    elif not official and (np.isnan(predicted).any() or (predicted[:, 2:] < 0).any()):
        raise ValueError(f"a box is NaN or has a negative size: an error by {convention}")
    if not own:
        _repeat(predicted, usable, np.isnan(truth).any(1))
    if len(predicted) < len(truth):
        missing = len(truth) - len(predicted)
        if own or official or not rules.pads:
            raise ValueError(
                f"{len(predicted)} boxes for {len(truth)} frames: an error by {convention}"
            )
        predicted = np.concatenate([predicted, np.zeros((missing, 4))])
    if not own:
        predicted[0] = truth[0]

    with np.errstate(all="ignore"):
        sizes = (truth[:, 2:] > 0).all(1)
        valid = sizes if convention in ("spmtrack", "ostrack") else (truth > 0).all(1)
        if rules.flags or official:
            valid = valid & ~flagged
        overlap = pixel_iou(predicted, truth)
        offset = _centers(predicted) - _centers(truth)
        error = np.sqrt((offset**2).sum(1))
        sides = truth[:, 2:]
        offset = _centers(predicted) / sides - _centers(truth) / sides
        normalized = np.sqrt((offset**2).sum(1))
        if own:
            overlap = np.minimum(overlap, 1.0)
            overlap[~usable], error[~usable], normalized[~usable] = -1, np.inf, np.inf
        overlap[~valid] = -1
        error[~valid] = -1 if rules.invalid_passes or official else np.inf
        normalized[~valid] = -1
        if rules.absent_fails or official:
            error[flagged] = normalized[flagged] = np.inf
        return Curves(
            (overlap[:, None] > SUCCESS_THRESHOLDS).mean(0),
            (error[:, None] <= PRECISION_THRESHOLDS).mean(0),
            (normalized[:, None] <= NORMALIZED_THRESHOLDS).mean(0),
        )


def pixel_iou(a_xywh: Boxes, b_xywh: Boxes) -> NDArray[np.float64]:
    """(N,) IoU that counts whole pixels (+1); rounding may lift it above 1, NaN without area."""
    low = np.maximum(a_xywh[:, :2], b_xywh[:, :2])
    # this order of operations: the toolkits' roundings decide at overlap 1
    high = np.minimum(a_xywh[:, :2] + a_xywh[:, 2:] - 1.0, b_xywh[:, :2] + b_xywh[:, 2:] - 1.0)
    intersection = np.clip(high - low + 1.0, 0, None).prod(1)
    return intersection / (a_xywh[:, 2:].prod(1) + b_xywh[:, 2:].prod(1) - intersection)


def got10k_overlaps(
    predicted_xywh: Boxes,
    truth_xywh: Boxes,
    hidden: NDArray[np.bool_] | None = None,
    image_wh: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """IoU by the rules of GOT-10k in the frames that count: not the first, not the ``hidden``.

    Both boxes are clipped to an image of ``image_wh``; no +1. The average overlap (AO) is the mean
    over the frames of all sequences. A NaN box gives NaN. Raises ``ValueError`` for another number
    of boxes.
    """
    predicted, truth = np.array(predicted_xywh, float), np.array(truth_xywh, float)
    if len(predicted) < len(truth):
        raise ValueError(f"{len(predicted)} boxes for {len(truth)} frames: an error by got10k")
    kept = np.ones(len(truth), bool) if hidden is None else ~np.asarray(hidden, bool)
    kept[0] = False
    a, b = (_clipped(each[: len(truth)][kept], image_wh) for each in (predicted, truth))
    with np.errstate(invalid="ignore", over="ignore"):
        high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
        inside = np.maximum(high - np.maximum(a[:, :2], b[:, :2]), 0).prod(1)
        union = a[:, 2:].prod(1) + b[:, 2:].prod(1) - inside
        return np.clip(inside / (union + np.finfo(float).eps), 0, 1)


def got10k_scores(overlaps: NDArray[np.float64]) -> dict[str, float]:
    """``ao``, ``sr50`` and ``sr75`` of the overlaps of all sequences, 0..1."""
    if not len(overlaps):
        return {"ao": np.nan, "sr50": np.nan, "sr75": np.nan}
    with np.errstate(invalid="ignore"):
        rates = {f"sr{share}": float((overlaps > share / 100).mean()) for share in (50, 75)}
    return {"ao": float(overlaps.mean()), **rates}


def trackingnet_scores(predicted_xywh: Boxes, truth_xywh: Boxes) -> dict[str, float]:
    """``auc``, ``precision`` and ``normalized_precision`` of one video by TrackingNet's rules.

    Numbers are rounded to integers, the first box is the true one, boxes that are missing are
    empty. The scores are areas below curves of 21 thresholds: overlap 0..1 (at least), error
    0..50 px and 0..0.5 sides of the true box (at most).
    """
    truth = np.round(np.asarray(truth_xywh, float))
    predicted = np.full_like(truth, np.nan)
    rows = np.round(np.asarray(predicted_xywh, float))[: len(truth)]
    predicted[: len(rows)] = rows
    predicted[0] = truth[0]
    with np.errstate(all="ignore"):
        overlap = pixel_iou(predicted, truth)
        offset = _centers(predicted) - _centers(truth)
        error = np.sqrt((offset**2).sum(1))
        normalized = np.sqrt(((offset / truth[:, 2:]) ** 2).sum(1))
        names = ("auc", "precision", "normalized_precision")
        shares = (
            (overlap[:, None] >= SUCCESS_THRESHOLDS).mean(0),
            (error[:, None] <= np.linspace(0, 50, 21)).mean(0),
            (normalized[:, None] <= np.linspace(0, 0.5, 21)).mean(0),
        )
    areas = ((share[1:] + share[:-1]).mean() / 2 for share in shares)
    return {name: float(area) for name, area in zip(names, areas, strict=True)}


def _repeat(boxes_xywh: Boxes, usable: NDArray[np.bool_], unknown: NDArray[np.bool_]) -> None:
    """Replace each box that is not usable by the one before it, unless the truth is NaN."""
    for frame in range(1, len(boxes_xywh)):
        if not usable[frame] and not unknown[frame]:
            boxes_xywh[frame] = boxes_xywh[frame - 1]


def _centers(boxes_xywh: Boxes) -> NDArray[np.float64]:
    """(N, 2) centers of the pixels of each box."""
    return boxes_xywh[:, :2] + 0.5 * (boxes_xywh[:, 2:] - 1.0)


def _clipped(boxes_xywh: Boxes, image_wh: tuple[float, float] | None) -> Boxes:
    """Boxes as GOT-10k clips them to the image: corner first, then size."""
    if image_wh is None:
        return boxes_xywh
    low = np.clip(boxes_xywh[:, :2], 0, image_wh)
    return np.concatenate([low, np.clip(boxes_xywh[:, 2:], 0, image_wh - low)], 1)
