"""Everything that the tracker keeps of one target; the network keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray
from torch import Tensor

from spmtrack_core.config import TrackerConfig
from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.tracking.references import ReferenceBuffer
from spmtrack_core.tracking.result import TrackState


@dataclass
class Target:
    """One target between frames."""

    box_xyxy: Boxes
    """(4,) the last good box, frame pixels."""
    background: NDArray
    """(3,) mean color of the first frame, 0..255; fills search regions beyond the frame."""
    references: ReferenceBuffer
    state_token: Tensor
    """(1, 1, C) target state token of the last frame; zero, which adds nothing, before."""
    mean_confidence: float = 1.0
    """Moving average over the last frames."""
    seen: bool = True
    """False while the target is LOST."""

    def judge(self, confidence: float, has_box: bool, config: TrackerConfig) -> TrackState:
        """The state after a frame with this ``confidence``, 0..1; LOST without a box.

        With hysteresis, so that one frame with a low confidence makes no loss and one with a
        high confidence no recovery: the average decides, and needs more to return than to stay.
        """
        self.mean_confidence += config.confidence_weight * (confidence - self.mean_confidence)
        threshold = config.lost_threshold
        if not self.seen:
            threshold += config.found_margin * (1 - threshold)
        self.seen = has_box and self.mean_confidence >= threshold
        if not self.seen:
            return TrackState.LOST
        certain = confidence >= config.lost_threshold
        return TrackState.TRACKING if certain else TrackState.UNCERTAIN
