"""Forward pass and loss of a training step: searches after three references, as published."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from spmtrack_core.model.spmtrack import Prediction, SPMTrack
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.losses import tracking_loss
from spmtrack_core.training.targets import cells_of


def positive_cells(batch: Batch, grid_hw: tuple[int, int]) -> Tensor:
    """(S,) number of positive cells of each search over all tracks: the divisor of its losses."""
    search_hw = (batch.searches.shape[-2], batch.searches.shape[-1])
    cells = cells_of(batch.boxes_xyxy, search_hw, grid_hw)  # (B, S, H, W)
    return cells.sum((0, 2, 3)).float()


def predictions(
    model: SPMTrack, batch: Batch, without: Collection[str] = ()
) -> Iterator[tuple[Prediction, Tensor]]:
    """Prediction in float32 and true boxes (B, 4) of each search of a batch.

    The target state token passes from each search to the next, detached. ``without`` is that of
    ``TrainConfig``.
    """
    references, masks = batch.references, batch.masks
    if "references" in without:
        references = references[:, :1].expand_as(references)
        masks = masks[:, :1].expand_as(masks)
    state, encoded = None, model.encode_references(references, masks)
    for search, truth in zip(batch.searches.unbind(1), batch.boxes_xyxy.unbind(1), strict=True):
        prediction = model.locate(search, encoded, None if "state_token" in without else state)
        state = prediction.state_token.detach()
        yield Prediction(prediction.score_map.float(), prediction.boxes.float(), state), truth


class TrackingLoss(nn.Module):
    """Network and loss as one module, so that DDP and torch.compile wrap one forward pass."""

    def __init__(self, model: SPMTrack, without: Collection[str] = ()) -> None:
        super().__init__()
        self.model, self.without = model, without

    def forward(
        self,
        batch: Batch,
        counts: Tensor | None = None,
        score_weight: float = 1.0,
        box_weight: float = 1.0,
        iou_aware: bool = True,
    ) -> dict[str, Tensor]:
        """``loss`` summed over the searches, its two terms, and the mean IoU of positive cells.

        ``counts`` (S,) are the divisors of each search's sums for a micro-batch; None: the
        positive cells of this batch. Only ``loss`` has a gradient.
        """
        search_hw = (batch.searches.shape[-2], batch.searches.shape[-1])
        terms = []
        for index, (prediction, truth) in enumerate(predictions(self.model, batch, self.without)):
            count = None if counts is None else counts[index]
            maps = prediction.score_map, prediction.boxes
            terms.append(tracking_loss(*maps, truth, search_hw, iou_aware, count))
        score = torch.stack([term.score for term in terms]).sum()
        box = torch.stack([term.box for term in terms]).sum()
        iou = torch.cat([term.iou for term in terms])
        return {
            "loss": score_weight * score + box_weight * box,
            "score_loss": score.detach(),
            "box_loss": box.detach(),
            "positive_iou": iou.sum() / max(1, len(iou)),
        }
