"""The processes of a run, one per device: their start, and sums and means over them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor

from spmtrack_core.tracking.torch_engines import choose_device
from spmtrack_core.training.config import TrainConfig

MIXED: dict[str, Any] = {"bfloat16": "bf16-mixed", "float16": "16-mixed"}
"""Fabric's names of the precisions that autocast computes."""


class Autocast(MixedPrecision):
    """Mixed precision that leaves the inputs in float32: autocast rounds what it multiplies.

    Fabric would round all inputs, among them the true boxes and the divisors of the losses.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def make_fabric(config: TrainConfig) -> Fabric:
    """The processes of the run, one per device. ``launch`` starts those that do not run yet.

    torchrun and Slurm start all processes; otherwise this process starts those of its node.
    Raises ``ValueError`` for devices that do not exist, and for one GPU of several processes.
    """
    device, count = choose_device(config.device), config.devices * config.nodes
    if device.type == "cpu" and config.precision == "float16":
        raise ValueError("precision float16 needs a GPU to train on; bfloat16 works on both")
    if device.type == "cuda" and config.devices > torch.cuda.device_count():
        raise ValueError(
            f"devices must be at most {torch.cuda.device_count()}, the GPUs of this machine; got "
            f"{config.devices}. devices=1 gradient_accumulation_steps={config.devices} makes "
            "steps of the same size on one"
        )
    if device.index is not None and count > 1:
        raise ValueError(
            f"device {config.device} is a single one, but devices {config.devices} * nodes "
            f"{config.nodes} need {count}: set device={device.type}, or devices=1 nodes=1"
        )
    # gradients of 1x1 convolutions have one of two equivalent memory layouts
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return Fabric(
        accelerator="cuda" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" and count == 1 else config.devices,
        num_nodes=config.nodes,
        strategy="ddp" if count > 1 else "auto",
        plugins=Autocast(MIXED[config.precision], device.type)
        if config.precision in MIXED
        else [],
    )


def all_reduce(fabric: Fabric, tensor: Tensor, operation: str) -> Tensor:
    """``sum`` or ``mean`` of a tensor over all processes."""
    reduced: Any = fabric.all_reduce(tensor, reduce_op=operation)
    return reduced


def means(fabric: Fabric, terms: Mapping[str, Tensor], clocks: list[float]) -> dict[str, float]:
    """Means of terms and clocks over all processes, with one read-back from the device."""
    names = [*terms, *(f"clock_{index}" for index in range(len(clocks)))]
    parts = [term.float() for term in terms.values()]
    parts += torch.tensor(clocks, device=fabric.device).unbind()
    reduced = all_reduce(fabric, torch.stack(parts), "mean")
    return dict(zip(names, reduced.tolist(), strict=True))
