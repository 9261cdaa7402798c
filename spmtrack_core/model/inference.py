"""The network as the tracker uses it, whichever runtime computes it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from spmtrack_core.model.spmtrack import Prediction


class InferenceModel(Protocol):
    """A network for inference. Keeps nothing of a target."""

    @property
    def no_state(self) -> Tensor:
        """(1, 1, C) zeros: the target state token before the first frame."""

    @property
    def reference_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what ``encode_reference`` returns for one frame."""

    def encode_reference(self, references: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Reference frames (B, 3, h, w) and masks (B, Hz, Wz) as ``__call__`` takes them."""

    def __call__(self, search: Tensor, *references_and_state: Tensor) -> Prediction:
        """Find the target of the reference frames (B, R, ...) in ``search`` (B, 3, H, W)."""
