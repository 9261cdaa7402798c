"""The inference layout, run by PyTorch on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from spmtrack_core.model.fused import FusedSPMTrack
from spmtrack_core.runtimes.inference import Array


class TorchSPMTrack:
    """A network of ``fuse`` on the CPU, with arrays in and out.

    ``threads`` are those of its own passes; other networks of the process keep theirs, unless
    their thread computes with PyTorch for the first time during such a pass. 0: as PyTorch is set.
    """

    runtime = "torch"
    device = "cpu"

    def __init__(self, network: FusedSPMTrack, threads: int = 0) -> None:
        self.network = network
        self.threads = threads
        self.no_state: Array = network.no_state.numpy()
        self.reference_shapes = network.reference_shapes

    def encode_reference(self, references: Array, masks: Array) -> tuple[Array, ...]:
        """As that of ``FusedSPMTrack``."""
        return self._run(self.network.encode_reference, references, masks)

    def __call__(self, search: Array, *references_and_state: Array) -> tuple[Array, ...]:
        """As ``FusedSPMTrack.forward``."""
        return self._run(self.network, search, *references_and_state)

    @torch.inference_mode()
    def _run(self, function: Callable, *inputs: Array) -> tuple[Array, ...]:
        usual = torch.get_num_threads()
        try:
            torch.set_num_threads(self.threads or usual)
            return tuple(each.numpy() for each in function(*map(torch.from_numpy, inputs)))
        finally:
            torch.set_num_threads(usual)
