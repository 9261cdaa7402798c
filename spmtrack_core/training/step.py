"""The loss of a training step: searches after three references, as published."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from spmtrack_core.model.spmtrack import Prediction, SPMTrack
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.losses import tracking_loss
from spmtrack_core.training.targets import cells_of


def positive_cells(batch: Batch, grid_hw: tuple[int, int]) -> Tensor:
    """(S,) how many cells of each search the targets cover: what the losses are divided by."""
    search_hw = (batch.searches.shape[-2], batch.searches.shape[-1])
    cells = cells_of(batch.boxes_xyxy, search_hw, grid_hw)  # (B, S, H, W)
    return cells.sum((0, 2, 3)).float()


def look(model: nn.Module, batch: Batch) -> Iterator[tuple[Prediction, Tensor]]:
    """Predictions in float32 for each search of a batch, with its true boxes.

    The target state token goes from each to the next, detached.
    """
    state = None
    for index in range(batch.searches.shape[1]):
        seen = model(batch.searches[:, index], batch.references, batch.masks, state)
        state = seen.state_token.detach()
        yield Prediction(seen.score_map.float(), seen.boxes.float(), state), batch.boxes_xyxy[
            :, index
        ]


class TrackingStep(nn.Module):
    """Network and loss as one module: one forward pass is what a strategy wraps and shards."""

    def __init__(self, model: SPMTrack) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        batch: Batch,
        counts: Tensor | None = None,
        score_weight: float = 1.0,
        box_weight: float = 1.0,
        iou_aware: bool = True,
    ) -> dict[str, Tensor]:
        """The loss, summed over the searches, its two terms, and the mean IoU of positive cells.

        ``counts`` (S,) divides the sums over each search in place of the positive cells of this
        batch alone, for a batch that is one part of a larger one. Only ``loss`` has a gradient.
        """
        search_hw = (batch.searches.shape[-2], batch.searches.shape[-1])
        terms = [
            tracking_loss(
                seen.score_map, seen.boxes, truth, search_hw, iou_aware,
                None if counts is None else counts[index],
            )
            for index, (seen, truth) in enumerate(look(self.model, batch))
        ]  # fmt: skip
        score = torch.stack([term.score for term in terms]).sum()
        box = torch.stack([term.box for term in terms]).sum()
        iou = torch.cat([term.iou for term in terms])
        return {
            "loss": score_weight * score + box_weight * box,
            "score_loss": score.detach(),
            "box_loss": box.detach(),
            "positive_iou": iou.sum() / max(1, len(iou)),
        }
