"""The result of a tracker for one frame, and the two methods of every tracker. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from spmtrack_core.geometry.image import Image
from spmtrack_core.geometry.lazy_image import AnyImage


class TrackState(str, Enum):
    """Whether the target is seen; ``Target.judge`` decides."""

    TRACKING = "tracking"
    UNCERTAIN = "uncertain"
    """The confidence is low in this frame, but its average is not."""
    LOST = "lost"


class TrackResult(NamedTuple):
    """The result of ``VideoTracker.update`` for one frame."""

    box_xywh: tuple[float, float, float, float]
    """Frame pixels, clipped to the frame; the last good box if there is none in this frame."""
    confidence: float
    """0..1, without the Hann window; NaN from a tracker that has no confidence."""
    state: TrackState
    """LOST when the average confidence is below the threshold or the prediction was no box."""


class VideoTracker(Protocol):
    """A tracker of one target: this project's, OpenCV's, or one of your own."""

    def init(self, frame: Image, box_xywh: Sequence[float]) -> Any:
        """Start on ``frame``, RGB uint8 (H, W, 3), with the target's box in its pixels."""

    def update(self, frame: Image) -> TrackResult:
        """Find the target in the next frame."""


class SeveralTargetTracker(Protocol):
    """A tracker of several targets in one pass, as ``Tracker`` is."""

    def start(self, frame: AnyImage, box_xywh: Sequence[float]) -> Any:
        """A new target for ``follow``; ``frame`` and box as for ``VideoTracker.init``."""

    def follow(self, frame: AnyImage, targets: Sequence[Any]) -> Sequence[TrackResult]:
        """Find each of the targets in the next frame."""
