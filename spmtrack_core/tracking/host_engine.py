"""Frames on the host: from crops of them to the boxes that the network finds there.

Without torch: a network that another runtime computes needs none.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from spmtrack_core.config import ModelConfig
from spmtrack_core.geometry.crop import AlignedCrop
from spmtrack_core.geometry.image import Image, crop_image, normalize
from spmtrack_core.runtimes.inference import Array, InferenceModel
from spmtrack_core.tracking.postprocess import hann_window, select_box
from spmtrack_core.tracking.references import REFERENCES, Encoded

LOG = logging.getLogger(__name__)

Located: TypeAlias = tuple[list[list[float]], Any]
"""x1, y1, x2, y2 in search pixels and confidence of each of B targets; state tokens (B, 1, C)."""

WORTH = 0.5
"""Part of a thread's work that each further one must add to be used."""
RUNS = 5
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""What a container may use: microseconds of the CPU, or max, and of which period."""


class HostEngine:
    """Crops by OpenCV, and a network with arrays in and out, whichever runtime computes it."""

    def __init__(self, model: InferenceModel, model_config: ModelConfig) -> None:
        self.model = model
        self.model_config = model_config
        self.window = hann_window(model_config.search_grid_hw)
        self.runtime = model.runtime

    @property
    def device(self) -> str:
        """Where the network is computed."""
        return self.model.device

    @property
    def threads(self) -> int:
        """Those of the network; 0: as many as the runtime takes by itself."""
        return self.model.threads

    def choose_threads(self) -> None:
        """Measure the network with 1, 2, 4 ... threads, unless their number is given.

        More are taken while each of them adds half the work of the first. One core is left to
        whoever sends the images: other programs have their own work, and threads that wait for
        each other lose most where all cores are busy. ``OMP_NUM_THREADS``, where it is set, is
        the largest number instead.
        """
        if self.model.threads or self.device != "cpu":
            return
        limit = os.environ.get("OMP_NUM_THREADS", "")
        most = min(cores(), int(limit)) if limit.isdecimal() else cores() - 1
        most = max(most, 1)
        counts = sorted({*(1 << n for n in range(most.bit_length())), most})
        chosen = 1 if most == 1 else self._worthwhile(counts)
        self.model.threads = chosen
        LOG.info("%d of %d threads", chosen, most)

    def _worthwhile(self, counts: Sequence[int]) -> int:
        """The last of the ``counts`` of threads that is worth its cores."""
        zeros = [
            np.zeros((1, *shape), np.float32)
            for shape in (
                (3, *self.model_config.search_hw),
                *((REFERENCES, *shape) for shape in self.model.reference_shapes),
            )
        ]
        chosen, best = 0, math.inf
        for count in counts:
            self.model.threads = count
            self.model(*zeros, self.model.no_state)  # compiles, takes memory
            times = []
            for _ in range(RUNS):
                started = time.perf_counter()
                self.model(*zeros, self.model.no_state)
                times.append(time.perf_counter() - started)
            if chosen and np.median(times) * (chosen + WORTH * (count - chosen)) > best * chosen:
                break
            chosen, best = count, float(np.median(times))
        return chosen

    def stream(self) -> AbstractContextManager[object]:
        """Context for making and using arrays of the engine."""
        return contextlib.nullcontext()

    def empty(self, shape: tuple[int, ...]) -> Array:
        """Memory for float32 numbers, where the network takes them from."""
        return np.empty(shape, np.float32)

    def set_frames(self, frames: Sequence[Image]) -> None:
        """Set the frames that the next crops are taken from; one may be there several times."""
        self.frames = frames

    def locate(
        self,
        places: Sequence[int],
        crops: Sequence[AlignedCrop],
        backgrounds: Sequence[ArrayLike],
        references: Sequence[Sequence[Encoded]],
        states: Sequence[Any],
        window_weights: Sequence[float],
        box_overlap: float,
    ) -> Located:
        """Find B targets, each in its search region.

        ``places`` are the indices of their frames among those that are set, ``backgrounds``
        (3,) fill what lies beyond a frame, ``references`` are R frames of ``encode_references``
        for each target, ``states`` (1, 1, C) target state tokens, ``window_weights`` the shares of
        the Hann window, ``box_overlap`` that of ``TrackerConfig``.
        """
        search_hw = self.model_config.search_hw
        searches = np.empty((len(crops), 3, *search_hw), np.float32)
        for search, place, crop, background in zip(
            searches, places, crops, backgrounds, strict=True
        ):
            normalize(crop_image(self.frames[place], crop, search_hw, background), search)
        encoded = [  # (B, R, ...) of each part
            np.stack(parts).reshape(len(crops), -1, *parts[0].shape)
            for parts in zip(*(frame for frames in references for frame in frames), strict=True)
        ]
        score_map, box_map, state = self.model(searches, *encoded, np.concatenate(states))
        weights = np.array(window_weights, np.float32)[:, None, None]  # (B, 1, 1)
        boxes, scores, _ = select_box(
            score_map, box_map, self.window, weights, search_hw, box_overlap
        )
        return np.column_stack((boxes, scores)).tolist(), state

    def encode_references(
        self, places: Sequence[int], crops: Sequence[AlignedCrop], masks: Sequence[Array]
    ) -> list[Encoded]:
        """Crops of the frames at ``places`` as reference frames for the network.

        ``masks`` are (Hz, Wz). A crop has its frame's mean color beyond the frame.
        """
        encoded = []  # one by one: a runtime may have to compile each number of them
        for place, crop, mask in zip(places, crops, masks, strict=True):
            template = normalize(
                crop_image(self.frames[place], crop, self.model_config.template_hw)
            )
            parts = self.model.encode_reference(template[None], mask[None])
            encoded.append(tuple(part[0] for part in parts))
        return encoded


def cores() -> int:
    """Cores of the CPU that this process may use; a container's share is rounded up."""
    try:
        quota, period = CPU_QUOTA.read_text().split()
        share = math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no container, no limit: "max"
        share = sys.maxsize
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return max(1, min(share, len(os.sched_getaffinity(0))))
    return max(1, min(share, os.cpu_count() or 1))
