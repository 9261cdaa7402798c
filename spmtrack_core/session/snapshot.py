"""What a session reports: one image, the totals, and the state at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from spmtrack_core.geometry.lazy_image import AnyImage
from spmtrack_core.session.frame_buffer import Frame
from spmtrack_core.tracking.followed import Target


@dataclass(frozen=True)
class FrameReport:
    """Result of one processed image."""

    frame: Frame
    image: AnyImage | None
    """The decoded image; None if decoding was not needed."""
    seconds: float
    """Duration of decoding and inference."""
    inference: float = 0.0
    """Part of it that the tracker took; the start of a target counts as such."""
    error: str = ""
    """Why the image could not be processed; empty if it was."""
    targets: tuple[Target, ...] = ()
    """The targets measured in this image, in the order given."""
    primary: Target | None = None
    """The primary one of ``targets``."""


@dataclass(frozen=True)
class Counters:
    """Totals since the start."""

    received: int = 0
    """Images that arrived while tracking was enabled."""
    processed: int = 0
    """Images that were reported, each once."""
    errors: int = 0

    @property
    def dropped(self) -> int:
        """Images skipped for a newer one; the image that waits now is included."""
        return self.received - self.processed


@dataclass(frozen=True)
class Snapshot:
    """Everything there is to say about a session at one moment."""

    enabled: bool
    targets: tuple[Target, ...]
    primary: Target | None
    counters: Counters
    report: FrameReport | None
    """The newest one, as it was published."""
    time: float
    """s of the monotonic clock."""
    busy: float
    """s since the worker began the image or request that it processes now; 0 if idle."""
