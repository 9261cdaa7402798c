"""Frames on a CUDA device: one upload of the frames, one graph, one small read-back.

In a network of many small matrix multiplications, starting a kernel takes longer than running it.
So everything from the crop to the chosen box is captured once in a CUDA graph and then replayed,
without Python between the kernels.
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

from spmtrack_core.config import ModelConfig
from spmtrack_core.geometry.crop import AlignedCrop
from spmtrack_core.geometry.image import SCALE, SHIFT, Image, mean_color
from spmtrack_core.model.fused import FusedSPMTrack
from spmtrack_core.tracking.device_steps import (
    CROP_NUMBERS,
    crop_numbers,
    crop_tensor,
    predict_boxes,
)
from spmtrack_core.tracking.host_engine import Located
from spmtrack_core.tracking.postprocess import hann_window
from spmtrack_core.tracking.references import Encoded

LOG = logging.getLogger(__name__)

FRAME_BYTES = 1920 * 1080 * 3
"""Initial memory for a frame."""
WARM_UP_RUNS = 3
"""Runs before the capture: libraries choose kernels and allocate memory in the first ones."""
CAPTURE_LOCK = threading.Lock()
"""Held while capturing: CUDA allows one capture at a time, and no synchronization meanwhile."""


class CudaEngine:
    """As ``HostEngine``, with frames and crops in the memory of ``device``, on its own stream.

    The engine captures a graph for each number of targets when that number first occurs, and again
    for frames that together are larger than all before (and than 1920x1080). After a failed
    capture it logs one warning and starts the kernels one by one.
    """

    runtime = "torch"
    threads = 0

    def __init__(
        self, model: FusedSPMTrack, model_config: ModelConfig, device: torch.device
    ) -> None:
        self.model = model
        self.model_config = model_config
        self.device = device
        self.window = torch.from_numpy(hann_window(model_config.search_grid_hw)).to(device)
        self.scale, self.shift = (torch.from_numpy(part).to(device) for part in (SCALE, SHIFT))
        cuda = device.type == "cuda"
        self.may_capture = cuda
        self.graphs: dict[tuple[str, int], CapturedGraph] = {}
        self.pool = GraphPool(device) if cuda else None
        self.frames: Sequence[Image] = ()
        self.starts: list[int] = []  # indices of their first pixels
        self.cuda_stream = torch.cuda.Stream(device) if cuda else None
        if self.cuda_stream is not None:  # a copy of the weights may still be running
            self.cuda_stream.wait_stream(torch.cuda.current_stream(device))
        with self.stream():
            self.pixels = PinnedBuffer(FRAME_BYTES, torch.uint8, device)

    def choose_threads(self) -> None:
        """See ``HostEngine``; here the CPU has little to compute."""

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Context for making and using tensors of the device."""
        with torch.inference_mode():
            if self.cuda_stream is None:
                yield
            else:
                with torch.cuda.device(self.device), torch.cuda.stream(self.cuda_stream):
                    yield

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """See ``HostEngine``."""
        return torch.empty(shape, device=self.device)

    def set_frames(self, frames: Sequence[Image]) -> None:
        """See ``HostEngine``."""
        distinct = {id(frame): frame for frame in frames}
        ends = np.cumsum([frame.size for frame in distinct.values()]).tolist()
        if ends[-1] > len(self.pixels.tensor):
            self.graphs.clear()  # they read the former memory
            self.pool = GraphPool(self.device) if self.pool else None
            # at least doubled, so that a growing number of frames does so only a few times
            size = max(ends[-1], 2 * len(self.pixels.tensor))
            self.pixels = PinnedBuffer(size, torch.uint8, self.device)
        self.pixels.send(*distinct.values())
        starts = dict(zip(distinct, (end // 3 for end in (0, *ends)), strict=False))
        self.frames, self.starts = frames, [starts[id(frame)] for frame in frames]

    def locate(
        self,
        places: Sequence[int],
        crops: Sequence[AlignedCrop],
        backgrounds: Sequence[ArrayLike],
        references: Sequence[Sequence[Encoded]],
        states: Sequence[Tensor],
        window_weights: Sequence[float],
        box_overlap: float,
    ) -> Located:
        """See ``HostEngine``."""
        # settings are inputs like the crops: a graph would keep those it was captured with
        rows = zip(places, crops, backgrounds, window_weights, strict=True)
        numbers = np.stack(
            [
                np.append(self._numbers(place, crop, background), (weight, box_overlap))
                for place, crop, background, weight in rows
            ]
        )  # (B, 15)
        encoded = [  # (B, R, ...) of each part
            torch.stack(parts).unflatten(0, (len(crops), -1))
            for parts in zip(*(frame for frames in references for frame in frames), strict=True)
        ]
        state = torch.cat(tuple(states))  # (B, 1, C)
        found, state = self._run("locate", self._locate, numbers, *encoded, state)
        return found.tolist(), state  # the only read-back

    def encode_references(
        self,
        places: Sequence[int],
        crops: Sequence[AlignedCrop],
        masks: Sequence[NDArray[np.float32]],
    ) -> list[Encoded]:
        """See ``HostEngine``."""
        rows = []
        for place, crop, mask in zip(places, crops, masks, strict=True):
            inside = crop.fills(self.model_config.template_hw)
            background = np.zeros(3) if inside else mean_color(self.frames[place])
            rows.append(np.append(self._numbers(place, crop, background), mask))
        # their number changes from frame to frame: graphs for powers of two serve all
        count = 1 << (len(rows) - 1).bit_length()
        numbers = np.stack([*rows, *[rows[0]] * (count - len(rows))])
        encoded = self._run("encode", self._encode, numbers)
        # copies: each lives as long as its target needs it
        return [tuple(part[index].clone() for part in encoded) for index in range(len(rows))]

    def _numbers(
        self, place: int, crop: AlignedCrop, background: ArrayLike
    ) -> NDArray[np.float64]:
        frame_hw = self.frames[place].shape[:2]
        return crop_numbers(frame_hw, crop, background, self.starts[place])

    def crops(self, numbers: Tensor, output_hw: tuple[int, int]) -> Tensor:
        """(B, 13) of ``crop_numbers`` to normalized crops (B, 3, h, w) of the frames."""
        pixels = self.pixels.tensor.view(-1, 3)
        return crop_tensor(pixels, numbers, output_hw, self.scale, self.shift)  # (B, 3, h, w)

    def _locate(self, numbers: Tensor, *references_and_states: Tensor) -> tuple[Tensor, ...]:
        """``predict_boxes`` for (B, 15) crop numbers and settings, references and states."""
        crops, settings = numbers.tensor_split((CROP_NUMBERS,), 1)
        search_hw = self.model_config.search_hw
        searches = self.crops(crops, search_hw)
        weight, box_overlap = settings.float().split(1, 1)  # (B, 1) each
        return predict_boxes(
            self.model,
            self.window,
            weight.unsqueeze(2),
            search_hw,
            box_overlap,
            searches,
            *references_and_states,
        )

    def _encode(self, numbers: Tensor) -> tuple[Tensor, ...]:
        """(B, 13 + Hz * Wz) crops and masks to the network's form of reference frames."""
        crop, mask = numbers.tensor_split((CROP_NUMBERS,), 1)
        templates = self.crops(crop, self.model_config.template_hw)
        return self.model.encode_reference(
            templates, mask.unflatten(1, self.model.template_grid_hw)
        )

    def _run(
        self,
        name: str,
        function: Callable[..., tuple[Tensor, ...]],
        numbers: NDArray,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        """``function`` of ``numbers`` from the host and tensors of the device."""
        key = name, len(numbers)
        if self.may_capture and key not in self.graphs:
            try:
                self.graphs[key] = CapturedGraph(function, numbers, others, self.device, self.pool)
            except RuntimeError as error:
                self.may_capture = False
                cause: BaseException = error
                while cause.__context__ is not None:  # the end of the capture fails as well
                    cause = cause.__context__
                reason = str(cause).partition("\n")[0]
                LOG.warning("tracking without a CUDA graph, which is slower: %s", reason)
        if key in self.graphs:
            return self.graphs[key](numbers, *others)
        return function(torch.from_numpy(numbers).to(self.device), *others)


class GraphPool:
    """A stream to capture graphs on, and the memory that these graphs share.

    Graphs of one pool must not run at the same time. Libraries keep memory for the stream. Other
    code would share an ordinary stream: PyTorch returns 32 of them in turn.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device, priority=-1)
        self.handle = torch.cuda.graph_pool_handle()


class CapturedGraph:
    """A function of numbers from the host and tensors of the device as a CUDA graph.

    The function must neither wait for the device nor read from it. Raises ``RuntimeError`` if it
    cannot be captured; the current stream is then unchanged.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        numbers: NDArray,
        others: Sequence[Tensor],
        device: torch.device,
        pool: GraphPool | None = None,
    ) -> None:
        pool = pool or GraphPool(device)
        self.numbers = PinnedBuffer(numbers.size, torch.float64, device)
        self.numbers.send(numbers)
        received = self.numbers.tensor.view(numbers.shape)
        self.inputs = [other.clone() for other in others]
        for _ in range(WARM_UP_RUNS):
            function(received, *self.inputs)
        self.graph = torch.cuda.CUDAGraph()
        # a failed capture would leave its own stream as the current one
        with CAPTURE_LOCK, torch.cuda.stream(torch.cuda.current_stream(device)):
            torch.cuda.synchronize(device)
            # thread_local: other threads may use the device during the capture
            with torch.cuda.graph(
                self.graph, pool.handle, pool.stream, capture_error_mode="thread_local"
            ):
                self.outputs = function(received, *self.inputs)

    def __call__(self, numbers: NDArray, *others: Tensor) -> tuple[Tensor, ...]:
        """What ``function`` returns, in tensors that the caller may keep."""
        self.numbers.send(numbers)
        for kept, given in zip(self.inputs, others, strict=True):
            kept.copy_(given)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)


class PinnedBuffer:
    """A tensor on the device that arrays are copied to, on a GPU through pinned memory."""

    def __init__(self, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.tensor = torch.empty(capacity, dtype=dtype, device=device)
        self.pinned, self.sent = self.tensor, None
        if device.type == "cuda":
            self.pinned = torch.empty(capacity, dtype=dtype, pin_memory=True)
            self.sent = torch.cuda.Event()

    def send(self, *arrays: NDArray) -> None:
        """Copy ``arrays`` one after another to the beginning of the tensor.

        The caller may change them on return.
        """
        if self.sent is not None:
            self.sent.synchronize()  # the last copy may still be running
        end = 0
        for array in arrays:
            start, end = end, end + array.size
            np.copyto(self.pinned[start:end].view(array.shape).numpy(), array)
        if self.sent is not None:
            self.tensor[:end].copy_(self.pinned[:end], non_blocking=True)
            self.sent.record(torch.cuda.current_stream(self.tensor.device))
