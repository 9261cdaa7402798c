"""Frames on the host: from crops of them to the boxes that the network finds there."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spmtrack_core.config import ModelConfig
from spmtrack_core.geometry.crop import AlignedCrop
from spmtrack_core.geometry.image import Image, crop_image, normalize
from spmtrack_core.model.inference import InferenceModel
from spmtrack_core.tracking.postprocess import hann_window, select_box

Located: TypeAlias = tuple[list[list[float]], Tensor]
"""x1, y1, x2, y2 in search pixels and confidence of each of B targets; state tokens (B, 1, C)."""


def predict_boxes(
    model: InferenceModel,
    window: Tensor,
    window_weight: float | Tensor,
    search_hw: tuple[int, int],
    searches: Tensor,
    *references_and_states: Tensor,
) -> tuple[Tensor, Tensor]:
    """Box in search pixels and confidence of each target (B, 5), and its state token (B, 1, C).

    ``searches`` (B, 3, H, W) are normalized; the model takes the other tensors after them.
    """
    prediction = model(searches, *references_and_states)
    boxes, scores, _ = select_box(prediction, window, window_weight, search_hw)
    return torch.cat((boxes, scores.unsqueeze(1)), 1), prediction.state_token


class HostEngine:
    """Crops by OpenCV, and a network with inputs on the CPU; ONNX Runtime may upload them."""

    def __init__(self, model: InferenceModel, model_config: ModelConfig) -> None:
        self.model = model
        self.model_config = model_config
        self.window = hann_window(model_config.search_grid_hw)

    def stream(self) -> AbstractContextManager[object]:
        """Context for making and using tensors of the engine."""
        return contextlib.nullcontext()

    def set_frames(self, frames: Sequence[Image]) -> None:
        """Set the frames that the next crops are taken from; one may be there several times."""
        self.frames = frames

    def locate(
        self,
        places: Sequence[int],
        crops: Sequence[AlignedCrop],
        backgrounds: Sequence[ArrayLike],
        references: Sequence[Tensor],
        states: Tensor,
        window_weight: float,
    ) -> Located:
        """Find B targets, each in its search region.

        ``places`` are the indices of their frames among those that are set, ``backgrounds``
        (3,) fill what lies beyond a frame, ``references`` (B, R, ...) come from
        ``encode_references``, ``states`` (B, 1, C) are target state tokens.
        """
        search_hw = self.model_config.search_hw
        searches = np.empty((len(crops), 3, *search_hw), np.float32)
        for search, place, crop, background in zip(
            searches, places, crops, backgrounds, strict=True
        ):
            normalize(crop_image(self.frames[place], crop, search_hw, background), search)
        inputs = torch.from_numpy(searches), *references, states
        found, states = predict_boxes(self.model, self.window, window_weight, search_hw, *inputs)
        return found.tolist(), states

    def encode_references(
        self,
        places: Sequence[int],
        crops: Sequence[AlignedCrop],
        masks: Sequence[NDArray[np.float32]],
    ) -> tuple[Tensor, ...]:
        """Crops of the frames at ``places`` as B reference frames for the network: (B, ...).

        ``masks`` are (Hz, Wz). A crop has its frame's mean color beyond the frame.
        """
        encoded = []  # one by one: a runtime may have to compile each number of them
        for place, crop, mask in zip(places, crops, masks, strict=True):
            template = normalize(
                crop_image(self.frames[place], crop, self.model_config.template_hw)
            )
            inputs = torch.from_numpy(template)[None], torch.from_numpy(mask)[None]
            encoded.append(self.model.encode_reference(*inputs))
        return tuple(join(parts) for parts in zip(*encoded, strict=True))


def join(parts: Sequence[Tensor]) -> Tensor:
    """(B, ...) of B tensors (1, ...); a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))
