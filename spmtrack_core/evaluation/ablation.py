"""What parts of the network are worth: the same weights with one of them taken out.

The weights were trained with every part, so this shows what tracking leans on, and not how good a
network would be that was trained without it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spmtrack_core.geometry.image import Image
from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.model.tmoe import TMoELinear
from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.tracking.loading import choose_device
from spmtrack_core.tracking.result import TrackResult
from spmtrack_core.tracking.target import Target
from spmtrack_core.tracking.tracker import Tracker


class Forgetful:
    """A tracker that forgets something of its target before each frame."""

    def __init__(self, tracker: Tracker, forget: Callable[[Target], None]) -> None:
        self.tracker, self.forget = tracker, forget

    def init(self, frame: Image, box_xywh: Any) -> None:
        """See ``Tracker``."""
        self.tracker.init(frame, box_xywh)

    def update(self, frame: Image) -> TrackResult:
        """See ``Tracker``."""
        if self.tracker.target is not None:
            self.forget(self.tracker.target)
        return self.tracker.update(frame)


def ablations(path: Path, device: str) -> dict[str, Forgetful | Tracker]:
    """Trackers with the weights of ``path`` less one part each, by what they lack.

    Raises as ``load_checkpoint`` does.
    """

    def tracker(change: Callable[[SPMTrack], None] = lambda _: None) -> Tracker:
        checkpoint = load_checkpoint(path)
        model, config = checkpoint.model, checkpoint.model_config
        tracker_config = checkpoint.tracker_config
        change(model)
        return Tracker(model, config, tracker_config, choose_device(device))

    return {
        "template alone": Forgetful(tracker(), keep_the_template),
        "no state token": Forgetful(tracker(), drop_the_state),
        "no routing": tracker(average_the_experts),
    }


def keep_the_template(target: Target) -> None:
    """Without the frames since: the template is all three reference frames."""
    target.references.frames = target.references.entries = 1


def drop_the_state(target: Target) -> None:
    """Without the target state token: every frame is the first."""
    target.state_token = torch.zeros_like(target.state_token)


@torch.no_grad()
def average_the_experts(model: nn.Module) -> None:
    """With routers that weigh all experts alike, which makes them a single one: their mean."""
    for module in model.modules():
        if isinstance(module, TMoELinear):
            module.router.zero_()
