"""The engines whose network PyTorch computes, and the devices it has."""

from __future__ import annotations

import logging
import platform
from pathlib import Path

import torch

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.model.fused import fuse
from spmtrack_core.model.openvino_export import to_openvino
from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.model.torch_model import TorchSPMTrack
from spmtrack_core.model.weights import PRECISIONS, choose_precision, load_checkpoint
from spmtrack_core.runtimes.openvino_model import Networks
from spmtrack_core.tracking.cuda_engine import CudaEngine
from spmtrack_core.tracking.host_engine import HostEngine
from spmtrack_core.tracking.references import REFERENCES

LOG = logging.getLogger(__name__)


def torch_engine(
    model: SPMTrack,
    model_config: ModelConfig,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    threads: int = 0,
) -> HostEngine | CudaEngine:
    """An engine with the inference layout of ``model``, which it leaves as it is.

    ``precision`` is that of the network's matrix multiplications, as under autocast in the
    published evaluation; everything around the network is float32 and float64. ``threads`` are
    those of the CPU; 0: as PyTorch is set.
    """
    device = torch.device(device)
    fused = fuse(model, PRECISIONS[precision]).to(device)
    if device.type == "cuda":
        return CudaEngine(fused, model_config, device)
    return HostEngine(TorchSPMTrack(fused, threads), model_config)


def load_torch_engine(
    weights: Path, trunk: Path | None, device: str, precision: str, threads: int
) -> tuple[HostEngine | CudaEngine, TrackerConfig]:
    """An engine with the network of a weight file, and the settings of the tracker."""
    dtype, chosen = choose_precision(precision), choose_device(device)
    if emulated(precision, chosen):
        LOG.warning("this CPU has no instructions for %s; float32 is faster", precision)
    checkpoint = load_checkpoint(weights, trunk, dtype)
    engine = torch_engine(checkpoint.model, checkpoint.model_config, chosen, precision, threads)
    return engine, checkpoint.tracker_config


def convert_for_openvino(weights: Path, trunk: Path | None) -> Networks:
    """The network of a weight file as OpenVINO computes it."""
    return to_openvino(load_checkpoint(weights, trunk), REFERENCES)


def choose_device(name: str) -> torch.device:
    """The torch device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; else ``ValueError``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name} not found; CUDA devices available: {torch.cuda.device_count()}"
        )
    return device


def emulated(precision: str, device: torch.device) -> bool:
    """Whether a device multiplies matrices of ``precision`` without instructions for it.

    That takes up to eighty times as long as float32. x86 CPUs without AVX-512 have no such
    instructions.
    """
    without = torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT", "NO AVX")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return device.type == "cpu" and precision != "float32" and x86 and without
