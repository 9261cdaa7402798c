"""Validation during a training run, with the metrics of the evaluation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.metrics import confidence_auc, good_boxes, mean_iou
from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.tracking.loop import track_frames
from spmtrack_core.tracking.torch_engines import torch_engine
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
    share: the mean IoU by sequence, the mean over all frames (AO) and the ROC AUC of the
    confidence.
    """
    if held_out is None:
        return {}
    if isinstance(held_out, SyntheticTracks):
        count = math.ceil(config.validation_samples / held_out.batch_size)
        batches = (held_out.batch(index) for index in range(count))
        return validate_batches(model, batches, fabric.autocast)
    engine = torch_engine(model, config.model, fabric.device, config.precision)
    tracker = Tracker(engine, config.tracker)
    mine = held_out[fabric.global_rank :: fabric.world_size]
    scores = validate_sequences(tracker, mine)
    sums = torch.tensor(
        [
            sum(score.iou for score in scores),
            len(scores),
            sum(score.iou * score.frames for score in scores),
            sum(score.frames for score in scores),
        ],
        dtype=torch.float32,
        device=fabric.device,
    )
    sequence_sum, sequences, frame_sum, frames = all_reduce(fabric, sums, "sum").tolist()
    if not sequences:
        return {}
    row = {"validation_iou": sequence_sum / sequences, "validation_ao": frame_sum / frames}
    # each process fills the rows of its own sequences: confidence, good box, and 1 for a frame
    longest = max(sequence.length or 0 for sequence in held_out)
    table = torch.zeros(len(held_out), longest, 3, device=fabric.device)
    rows = table[fabric.global_rank :: fabric.world_size]
    for part, score in zip(rows, scores, strict=False):
        part[: len(score.good)] = torch.tensor(
            [score.confidence, score.good, [1.0] * len(score.good)]
        ).T
    confidence, good, tracked = all_reduce(fabric, table, "sum").flatten(0, 1).cpu().unbind(1)
    auc = confidence_auc(confidence[tracked > 0], good[tracked > 0] > 0)
    return row if math.isnan(auc) else row | {"validation_auc": auc}


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


class SequenceScore(NamedTuple):
    """How a sequence was tracked after its first frame."""

    iou: float
    """Mean IoU of the frames in which the target is visible."""
    frames: int
    """Number of these frames."""
    confidence: list[float]
    """Of all frames."""
    good: list[bool]
    """Whether the target is visible and its box has an IoU above 0.5."""


def validate_sequences(
    tracker: Tracker, sequences: Iterable[FrameSequence]
) -> list[SequenceScore]:
    """Track each sequence from its first box.

    A sequence that cannot be read or started is left out with a warning.
    """
    scores = []
    for sequence in sequences:
        truth = sequence.boxes_xywh
        try:
            if truth is None:
                raise ValueError("it has no boxes")
            tracked = track_frames(tracker, sequence, truth[0].tolist())
            results = [frame.result for frame in tracked][1:]  # the first box was given
            boxes = [result.box_xywh for result in results]
            iou, good = mean_iou(boxes, truth[1:]), good_boxes(boxes, truth[1:])
        except (ValueError, OSError) as error:
            warnings.warn(f"not validated on {sequence.name}: {error}", stacklevel=2)
            continue
        frames = int(np.isfinite(truth[1:]).all(1).sum())
        confidence = [result.confidence for result in results]
        scores.append(SequenceScore(iou, frames, confidence, good.tolist()))
    return scores
