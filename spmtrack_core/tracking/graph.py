"""CUDA graphs: a function of tensors recorded once, then replayed without Python between kernels.

For a network of many small products, starting the kernels takes longer than running them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UP_RUNS = 3
"""Runs before the recording; libraries choose kernels and take memory in the first ones."""


class GraphedStep:
    """``function`` for inputs of the shapes and types of ``examples``, on a CUDA device.

    The first input comes from the host, the others lie on the device. The function must neither
    wait for the device nor read from it. Raises ``RuntimeError`` where it cannot be recorded.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        examples: Sequence[Tensor],
        device: torch.device,
    ) -> None:
        self.device = device
        self.staging = torch.empty_like(examples[0], pin_memory=True)
        self.inputs = [example.to(device, copy=True) for example in examples]
        with torch.cuda.device(device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_RUNS):
                    function(*self.inputs)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            # other threads may use the device meanwhile
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.outputs = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What ``function`` returns, in tensors of the caller's own.

        Read one of them before the next call: until then the first input may still be on its way.
        """
        self.staging.copy_(inputs[0])
        with torch.cuda.device(self.device):
            for kept, given in zip(self.inputs, (self.staging, *inputs[1:]), strict=True):
                kept.copy_(given, non_blocking=True)
            self.graph.replay()
            return tuple(output.clone() for output in self.outputs)
