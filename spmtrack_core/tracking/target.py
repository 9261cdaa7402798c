"""Everything that the tracker keeps of one target; the network keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray
from torch import Tensor

from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.tracking.references import ReferenceBuffer


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
