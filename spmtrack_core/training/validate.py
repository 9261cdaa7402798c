"""Validation during a training run, with the metrics of the evaluation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import numpy as np
import torch
from lightning_fabric import Fabric

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.metrics import confidence_auc, mean_iou
from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.tracking.loop import track_frames
from spmtrack_core.tracking.tracker import Tracker
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.losses import iou_and_giou
from spmtrack_core.training.processes import all_reduce
from spmtrack_core.training.sources import HeldOut
from spmtrack_core.training.step import predictions
from spmtrack_core.training.synthetic import SyntheticTracks


def validate(
    model: SPMTrack, held_out: HeldOut, config: TrainConfig, fabric: Fabric
) -> dict[str, float]:
    """Columns ``validation_...`` of a row of the log; empty if nothing could be validated.

    For synthetic tracks: the IoU and the ROC AUC of the score. For sequences, which the processes
    share: the mean IoU by sequence and the mean over all frames (AO).
    """
    if held_out is None:
        return {}
    if isinstance(held_out, SyntheticTracks):
        count = math.ceil(config.validation_samples / held_out.batch_size)
        batches = (held_out.batch(index) for index in range(count))
        return validate_batches(model, batches, fabric.autocast)
    tracker = Tracker(model, config.model, config.tracker, fabric.device, config.precision)
    mine = held_out[fabric.global_rank :: fabric.world_size]
    scores = validate_sequences(tracker, mine)
    sums = torch.tensor(
        [
            sum(iou for iou, _ in scores),
            len(scores),
            sum(iou * frames for iou, frames in scores),
            sum(frames for _, frames in scores),
        ],
        dtype=torch.float32,
        device=fabric.device,
    )
    sequence_sum, sequences, frame_sum, frames = all_reduce(fabric, sums, "sum").tolist()
    if not sequences:
        return {}
    return {"validation_iou": sequence_sum / sequences, "validation_ao": frame_sum / frames}


@torch.no_grad()
def validate_batches(
    model: SPMTrack, batches: Iterable[Batch], autocast: Callable[[], AbstractContextManager]
) -> dict[str, float]:
    """Score the box of the best cell in each search of ``batches``, without a tracker.

    ``validation_iou`` is the mean IoU where the target is present. ``validation_auc`` is the ROC
    AUC of the score for boxes with an IoU above 0.5, against all other boxes; it is left out if
    there is only one kind.
    """
    model.eval()
    scores, ious = [], []
    for batch in batches:
        size_wh = batch.boxes_xyxy.new_tensor(batch.searches.shape[:-3:-1]).repeat(2)
        with autocast():
            predicted = list(predictions(model, batch))
        for prediction, truth in predicted:
            score, best = prediction.score_map.flatten(1).max(1)  # (B,)
            boxes = prediction.boxes.flatten(1, 2)[torch.arange(len(best)), best]  # (B, 4)
            ious.append(iou_and_giou(boxes * size_wh, truth)[0])  # NaN for an absent target
            scores.append(score)
    iou = torch.cat(ious)
    row = {"validation_iou": float(iou.nanmean())}
    auc = confidence_auc(torch.cat(scores).cpu(), (iou > 0.5).cpu())
    return row if math.isnan(auc) else row | {"validation_auc": auc}


def validate_sequences(
    tracker: Tracker, sequences: Iterable[FrameSequence]
) -> list[tuple[float, int]]:
    """Track each sequence from its first box; mean IoU and number of visible frames after it.

    A sequence that cannot be read or started is left out with a warning.
    """
    scores = []
    for sequence in sequences:
        truth = sequence.boxes_xywh
        try:
            if truth is None:
                raise ValueError("it has no boxes")
            tracked = track_frames(tracker, sequence, truth[0].tolist())
            boxes = [frame.result.box_xywh for frame in tracked]
            iou = mean_iou(boxes[1:], truth[1:])  # the first box was given
        except (ValueError, OSError) as error:
            warnings.warn(f"not validated on {sequence.name}: {error}", stacklevel=2)
            continue
        scores.append((iou, int(np.isfinite(truth[1:]).all(1).sum())))
    return scores
