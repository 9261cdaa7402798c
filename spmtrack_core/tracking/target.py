"""Everything that the tracker keeps of one target; the network keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spmtrack_core.config import TrackerConfig
from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.tracking.recovery import Recovery
from spmtrack_core.tracking.references import ExactReferences, ReferenceBuffer
from spmtrack_core.tracking.result import TrackState

ASPECT_TOLERANCE = 0.02
"""Relative; 854 x 480 and 426 x 240 are rounded versions of one aspect."""


@dataclass
class Target:
    """One target between frames."""

    box_xyxy: Boxes
    """(4,) the last good box, frame pixels."""
    background: NDArray
    """(3,) mean color of the first frame, 0..255; fills search regions beyond the frame."""
    references: ReferenceBuffer | ExactReferences
    state_token: Any
    """(1, 1, C) target state token of the last frame; zero, which adds nothing, before."""
    frame_hw: tuple[int, int]
    """Size of the frames that ``box_xyxy`` is in."""
    lost_reason: str = ""
    """Why the last frame could not be searched; empty if it was searched."""
    mean_confidence: float = 1.0
    """Moving average over the last frames."""
    seen: bool = True
    """False while the target is LOST."""
    certain_xyxy: Boxes = field(init=False)
    """(4,) the last box with a confidence above the threshold, at first the given one; frame
    pixels."""
    recovery: Recovery | None = None
    """Where to search for the target besides its last box; None while it is not LOST."""

    def __post_init__(self) -> None:
        self.certain_xyxy = self.box_xyxy

    def rescale(self, frame_hw: tuple[int, int]) -> str:
        """Scale the boxes along with frames of another size; what changed, empty if nothing did.

        A camera that changes its resolution shows the same picture in another scale. With another
        aspect it shows another part of the scene, or a stretched one: ``lost_reason`` is set until
        the aspect is the old one again.
        """
        (h, w), (old_h, old_w) = frame_hw, self.frame_hw
        change = f"frames changed from {old_w} x {old_h} to {w} x {h} pixels"
        before, self.lost_reason = self.lost_reason, ""
        if frame_hw == self.frame_hw:
            return ""
        if abs(w * old_h / (h * old_w) - 1) > ASPECT_TOLERANCE:
            self.lost_reason = (
                f"{change}, which is another aspect: the target is lost until they change back or "
                "it is started again"
            )
            return "" if self.lost_reason == before else self.lost_reason
        scale = np.array((w / old_w, h / old_h))
        self.box_xyxy = self.box_xyxy * np.tile(scale, 2)
        self.certain_xyxy = self.certain_xyxy * np.tile(scale, 2)
        if self.recovery is not None:
            self.recovery.rescale(scale)
        self.frame_hw = frame_hw
        return f"{change}: the target's box is scaled along"

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
