"""What the tracker remembers of one target, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.tracking.references import ReferenceBuffer


class TrackState(str, Enum):
    """Whether the target is seen."""

    TRACKING = "tracking"
    LOST = "lost"


class TrackResult(NamedTuple):
    """What ``Tracker.update`` says of one frame."""

    box_xywh: tuple[float, float, float, float]
    """Frame pixels, clipped to the frame; the last good box if this frame gave none."""
    confidence: float
    """0..1; the Hann window has no part in it."""
    state: TrackState
    """LOST when the confidence is below the threshold or the prediction was no box."""


@dataclass
class Target:
    """Everything that belongs to one target; the network holds none of it."""

    box_xyxy: Boxes
    """(4,) the last good box, frame pixels."""
    background: NDArray
    """(3,) mean colour of the first frame, 0..255; fills search regions beyond the frame."""
    references: ReferenceBuffer
    state_token: Tensor
    """(1, 1, C) target state token of the last frame; zero, which adds nothing, before."""
