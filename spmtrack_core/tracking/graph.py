"""The step on a CUDA device: one upload of the frame, one recorded graph, one small read-back.

For a network of many small products, starting the kernels takes longer than running them. So all
that a frame needs, from the crop to the chosen box, is recorded once and then replayed without
Python between the kernels.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.geometry.crop import AlignedCrop
from spmtrack_core.geometry.image import SCALE, SHIFT, Image, mean_colour
from spmtrack_core.model.fused import FusedSPMTrack
from spmtrack_core.tracking.postprocess import hann_window
from spmtrack_core.tracking.preprocess import CROP_NUMBERS, crop_numbers, crop_tensor
from spmtrack_core.tracking.step import Answers, look

LOG = logging.getLogger(__name__)

FRAME_BYTES = 1920 * 1080 * 3
"""Memory for a frame, to begin with."""
WARM_UP_RUNS = 3
"""Runs before the recording; libraries choose kernels and take memory in the first ones."""
ONE_AT_A_TIME = threading.Lock()
"""Held while recording: CUDA allows one at a time, and no waiting for the device meanwhile."""


class DeviceStep:
    """As ``HostStep``, with frame and crops in the memory of ``device``, on a stream of its own.

    Recorded for each number of targets when it is first met, and anew for a frame larger than any
    before (and than 1920x1080). Where that fails, one warning says so, and the same is computed
    kernel by kernel.
    """

    def __init__(
        self,
        model: FusedSPMTrack,
        model_config: ModelConfig,
        config: TrackerConfig,
        device: torch.device,
    ) -> None:
        self.model = model
        self.model_config = model_config
        self.config = config
        self.device = device
        self.window = hann_window(model_config.search_grid_hw).to(device)
        self.scale, self.shift = (torch.from_numpy(part).to(device) for part in (SCALE, SHIFT))
        cuda = device.type == "cuda"
        self.may_record = cuda
        self.recordings: dict[tuple[str, int], Recording] = {}
        self.room = Room(device) if cuda else None
        self.shown: Image = np.empty((0, 0, 3), np.uint8)
        self.stream = torch.cuda.Stream(device) if cuda else None
        if self.stream is not None:  # the weights are still on their way
            self.stream.wait_stream(torch.cuda.current_stream(device))
        with self.place():
            self.frame = Upload(FRAME_BYTES, torch.uint8, device)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Where everything has to happen that touches tensors of the device."""
        if self.stream is None:
            yield
        else:
            with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
                yield

    def show(self, frame: Image) -> None:
        """See ``HostStep``."""
        if frame.size > len(self.frame.tensor):
            self.recordings.clear()  # they read from the memory there was
            self.room = Room(self.device) if self.room else None
            self.frame = Upload(frame.size, torch.uint8, self.device)
        self.frame.send(frame)
        self.shown = frame

    def find(
        self,
        crops: Sequence[AlignedCrop],
        backgrounds: Sequence[ArrayLike],
        references: Sequence[Tensor],
        states: Tensor,
    ) -> Answers:
        """See ``HostStep``."""
        frame_hw, pairs = self.shown.shape[:2], zip(crops, backgrounds, strict=True)
        numbers = np.stack([crop_numbers(frame_hw, *pair) for pair in pairs])  # (B, 12)
        found, states = self._run("find", self._find, numbers, *references, states)
        return found.tolist(), states  # the only read-back

    def remember(self, crop: AlignedCrop, mask: NDArray[np.float32]) -> tuple[Tensor, ...]:
        """See ``HostStep``."""
        whole = crop.fills(self.model_config.template_hw)
        background = np.zeros(3) if whole else mean_colour(self.shown)
        numbers = crop_numbers(self.shown.shape[:2], crop, background)
        return self._run("remember", self._remember, np.append(numbers, mask)[None])

    def crops(self, numbers: Tensor, output_hw: tuple[int, int]) -> Tensor:
        """(B, 12) of ``crop_numbers`` to normalised crops (B, 3, h, w) of what is shown."""
        pixels = self.frame.tensor.view(-1, 3)
        return crop_tensor(pixels, numbers, output_hw, self.scale, self.shift)  # (B, 3, h, w)

    def _find(self, numbers: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """(B, 12) crops, references and states to what ``look`` says."""
        search_hw = self.model_config.search_hw
        searches, weight = self.crops(numbers, search_hw), self.config.window_weight
        return look(self.model, self.window, weight, search_hw, searches, *others)

    def _remember(self, numbers: Tensor) -> tuple[Tensor, ...]:
        """(1, 12 + Hz * Wz) crop and mask to what the network keeps of the frame."""
        crop, mask = numbers.tensor_split((CROP_NUMBERS,), 1)
        templates = self.crops(crop, self.model_config.template_hw)
        return self.model.remember(templates, mask.unflatten(1, self.model.template_grid_hw))

    def _run(
        self, name: str, function: Callable[..., tuple[Tensor, ...]], numbers: NDArray,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """``function`` of ``numbers`` from the host and tensors of the device."""
        key = name, len(numbers)
        if self.may_record and key not in self.recordings:
            try:
                self.recordings[key] = Recording(
                    function, numbers, others, self.device, self.room
                )
            except RuntimeError as error:
                self.may_record = False
                cause: BaseException = error
                while cause.__context__ is not None:  # ending the recording fails as well
                    cause = cause.__context__
                reason = str(cause).partition("\n")[0]
                LOG.warning("tracking without a CUDA graph, which is slower: %s", reason)
        if key in self.recordings:
            return self.recordings[key](numbers, *others)
        return function(torch.from_numpy(numbers).to(self.device), *others)


class Room:
    """A stream to record on and the memory of what is recorded there.

    Recordings in one room share memory: they may not run at the same time. What libraries keep for
    the stream is theirs alone, where ordinary streams would be handed out once more after 32.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device, priority=-1)
        self.pool = torch.cuda.graph_pool_handle()


class Recording:
    """A function of numbers from the host and tensors of the device as a CUDA graph.

    The function must neither wait for the device nor read from it. Raises ``RuntimeError`` where
    it cannot be recorded; the current stream stays what it was.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        numbers: NDArray,
        others: Sequence[Tensor],
        device: torch.device,
        room: Room | None = None,
    ) -> None:
        room = room or Room(device)
        self.numbers = Upload(numbers.size, torch.float64, device)
        self.numbers.send(numbers)
        received = self.numbers.tensor.view(numbers.shape)
        self.inputs = [other.clone() for other in others]
        for _ in range(WARM_UP_RUNS):
            function(received, *self.inputs)
        self.graph = torch.cuda.CUDAGraph()
        # a recording that fails would leave its own stream the current one
        with ONE_AT_A_TIME, torch.cuda.stream(torch.cuda.current_stream(device)):
            torch.cuda.synchronize(device)
            # other threads may use the device meanwhile
            with torch.cuda.graph(
                self.graph, room.pool, room.stream, capture_error_mode="thread_local"
            ):
                self.outputs = function(received, *self.inputs)

    def __call__(self, numbers: NDArray, *others: Tensor) -> tuple[Tensor, ...]:
        """What ``function`` returns, in tensors of the caller's own."""
        self.numbers.send(numbers)
        for kept, given in zip(self.inputs, others, strict=True):
            kept.copy_(given)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)


class Upload:
    """A place on the device that arrays are sent to, on a GPU by way of pinned memory."""

    def __init__(self, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.tensor = torch.empty(capacity, dtype=dtype, device=device)
        self.pinned, self.sent = self.tensor, None
        if device.type == "cuda":
            self.pinned = torch.empty(capacity, dtype=dtype, pin_memory=True)
            self.sent = torch.cuda.Event()

    def send(self, array: NDArray) -> None:
        """Put ``array`` at the beginning; it may be changed on return, before it has arrived."""
        if self.sent is not None:
            self.sent.synchronize()  # the last one may still be on its way
        np.copyto(self.pinned[: array.size].view(array.shape).numpy(), array)
        if self.sent is not None:
            self.tensor[: array.size].copy_(self.pinned[: array.size], non_blocking=True)
            self.sent.record(torch.cuda.current_stream(self.tensor.device))
