"""How good a network is in the middle of its training."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy
from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.tracking.tracker import Tracker
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.losses import iou_and_giou
from spmtrack_core.training.step import look


@torch.no_grad()
def validate_batches(
    model: SPMTrack, batches: Iterable[Batch], autocast: Callable[[], AbstractContextManager]
) -> dict[str, float]:
    """What the best cells say of ``batches``, with the network alone under ``autocast``.

    The mean IoU where the target is there, and the ROC AUC of the score for boxes with an IoU
    above 0.5 against the others and absent targets.
    """
    model.eval()
    scores, found = [], []
    for batch in batches:
        size_wh = batch.boxes_xyxy.new_tensor(batch.searches.shape[:-3:-1]).repeat(2)
        with autocast():
            looks = list(look(model, batch))
        for seen, truth in looks:
            score, best = seen.score_map.flatten(1).max(1)  # (B,)
            boxes = seen.boxes.flatten(1, 2)[torch.arange(len(best)), best]  # (B, 4)
            found.append(iou_and_giou(boxes * size_wh, truth)[0])  # NaN where it is absent
            scores.append(score)
    iou = torch.cat(found)
    row = {"validation_iou": float(iou.nanmean())}
    auc = separation(torch.cat(scores), iou > 0.5)
    return row if math.isnan(auc) else row | {"validation_auc": auc}


def separation(scores: Tensor, good: Tensor) -> float:
    """ROC AUC: how often a good one has the higher score; NaN where all are good or none is."""
    better, worse = scores[good], scores[~good]
    if not len(better) or not len(worse):
        return math.nan
    above = (better[:, None] > worse).float() + 0.5 * (better[:, None] == worse)
    return float(above.mean())


def validate_sequences(
    tracker: Tracker, sequences: Iterable[FrameSequence], max_frames: int
) -> dict[str, list[float]]:
    """Track each sequence from its first visible frame, at most ``max_frames`` of it.

    Returns the IoU of every frame after the first in which the target is visible, by sequence. One
    that cannot be read or started is left out, with a warning.
    """
    found = {}
    for sequence in sequences:
        try:
            found[sequence.name] = _track(tracker, sequence, max_frames)
        except (ValueError, OSError) as error:
            warnings.warn(f"not validated on {sequence.name}: {error}", stacklevel=2)
    return found


def _track(tracker: Tracker, sequence: FrameSequence, max_frames: int) -> list[float]:
    truth = sequence.boxes_xywh
    if truth is None:
        raise ValueError(f"sequence {sequence.name} has no boxes to validate with")
    visible = np.asarray(np.isfinite(truth).all(axis=1))
    first = int(visible.argmax())
    frames = itertools.islice(sequence, first, first + max_frames)
    tracker.init(next(frames), truth[first])
    ious = []
    for index, frame in enumerate(frames, first + 1):
        box = tracker.update(frame).box_xywh
        if visible[index]:
            pair = xywh_to_xyxy(box), xywh_to_xyxy(truth[index])
            ious.append(float(iou_xyxy(*pair)))
    return ious
