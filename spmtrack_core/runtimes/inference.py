"""The network as the tracker uses it on the host, whichever runtime computes it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

INPUTS = {
    "encode": ("reference", "mask"),
    "locate": ("search", "references", "state_token"),
}
"""The two functions of ``InferenceModel``, a network each, and their arguments."""
OUTPUTS = {
    "encode": ("encoded",),
    "locate": ("score_map", "boxes", "next_state_token"),
}
"""In ONNX no output may have the name of an input."""


class InferenceModel(Protocol):
    """A network for inference, with arrays in and out. Keeps nothing of a target."""

    runtime: str
    """What computes it, as ``load_tracker`` calls it."""
    threads: int
    """Of the CPU; 0: as many as the runtime takes by itself. May be changed between passes."""

    @property
    def device(self) -> str:
        """``cpu``, or ``cuda:N``."""

    @property
    def no_state(self) -> Array:
        """(1, 1, C) zeros: the target state token before the first frame."""

    @property
    def reference_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what ``encode_reference`` returns for one frame."""

    def encode_reference(self, references: Array, masks: Array) -> tuple[Array, ...]:
        """Reference frames (B, 3, h, w) and masks (B, Hz, Wz) as ``__call__`` takes them.

        The arrays are the caller's to keep.
        """

    def __call__(self, search: Array, *references_and_state: Array) -> tuple[Array, ...]:
        """Find the target of the reference frames (B, R, ...) in ``search`` (B, 3, H, W).

        Score map (B, Hx, Wx), boxes (B, Hx, Wx, 4) and state token (B, 1, C): see ``Prediction``.
        """
