"""One step: from crops of a frame to the network's answers, on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.geometry.crop import AlignedCrop
from spmtrack_core.geometry.image import Image, crop_image, normalise
from spmtrack_core.model.fused import FusedSPMTrack
from spmtrack_core.model.onnx_model import OnnxSPMTrack
from spmtrack_core.tracking.postprocess import hann_window, select_box

Answers: TypeAlias = tuple[list[list[float]], Tensor]
"""x1, y1, x2, y2 in search pixels and confidence of each of B targets; states (B, 1, C)."""


def look(
    model: FusedSPMTrack | OnnxSPMTrack,
    window: Tensor,
    window_weight: float,
    search_hw: tuple[int, int],
    searches: Tensor,
    *others: Tensor,
) -> tuple[Tensor, Tensor]:
    """Box in search pixels and confidence of each target (B, 5), and its state (B, 1, C).

    ``searches`` (B, 3, H, W); ``others`` are the references as the model takes them, and states.
    """
    prediction = model(searches, *others)
    boxes, scores, _ = select_box(prediction, window, window_weight, search_hw)
    return torch.cat((boxes, scores.unsqueeze(1)), 1), prediction.state_token


class HostStep:
    """Crops by OpenCV, and a network on the CPU or one that uploads by itself."""

    def __init__(
        self,
        model: FusedSPMTrack | OnnxSPMTrack,
        model_config: ModelConfig,
        config: TrackerConfig,
    ) -> None:
        self.model = model
        self.model_config = model_config
        self.config = config
        self.window = hann_window(model_config.search_grid_hw)

    def place(self) -> AbstractContextManager[object]:
        """Where everything has to happen that touches tensors of the step."""
        return contextlib.nullcontext()

    def show(self, frame: Image) -> None:
        """The frame that crops are taken from, until the next one."""
        self.frame = frame

    def find(
        self,
        crops: Sequence[AlignedCrop],
        backgrounds: Sequence[ArrayLike],
        references: Sequence[Tensor],
        states: Tensor,
    ) -> Answers:
        """Look for B targets, each in its search region.

        ``backgrounds`` (3,) fill what lies beyond the frame, ``references`` (B, R, ...) are what
        ``remember`` gave, ``states`` (B, 1, C) target state tokens.
        """
        search_hw = self.model_config.search_hw
        searches = np.empty((len(crops), 3, *search_hw), np.float32)
        for search, crop, background in zip(searches, crops, backgrounds, strict=True):
            normalise(crop_image(self.frame, crop, search_hw, background), search)
        found, states = look(
            self.model, self.window, self.config.window_weight, search_hw,
            torch.from_numpy(searches), *references, states,
        )  # fmt: skip
        return found.tolist(), states

    def remember(self, crop: AlignedCrop, mask: NDArray[np.float32]) -> tuple[Tensor, ...]:
        """What the network keeps of the frame as a reference frame, (1, ...) each.

        ``mask`` is (Hz, Wz); what lies beyond the frame has the frame's mean colour.
        """
        template = normalise(crop_image(self.frame, crop, self.model_config.template_hw))
        return self.model.remember(torch.from_numpy(template)[None], torch.from_numpy(mask)[None])
