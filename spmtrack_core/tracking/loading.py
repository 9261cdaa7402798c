"""From the name or path of weights to a tracker on a device: ``load_tracker``."""

from __future__ import annotations

import importlib.util
import logging
import platform
from dataclasses import replace
from pathlib import Path

import torch

from spmtrack_core.config import TrackerConfig
from spmtrack_core.model.fused import fuse
from spmtrack_core.model.onnx_model import OnnxSPMTrack
from spmtrack_core.model.openvino_model import OpenVinoSPMTrack
from spmtrack_core.model.weights import PRECISIONS, load_checkpoint
from spmtrack_core.tracking.references import REFERENCES
from spmtrack_core.tracking.tracker import Tracker

LOG = logging.getLogger(__name__)
RUNTIMES = ("torch", "openvino", "auto")
BUNDLED_WEIGHTS = Path(__file__).parents[1] / "weights"


def load_tracker(
    weights: str | Path = "nano",
    device: str = "auto",
    lost_threshold: float | None = None,
    precision: str = "float32",
    trunk: str | Path | None = None,
    runtime: str = "torch",
) -> Tracker:
    """A tracker with ``weights``.

    Args:
        weights: the name of bundled weights, or the path of a checkpoint or of an .onnx file.
        device: ``auto`` (CUDA if available), ``cpu``, ``cuda`` or ``cuda:N``.
        lost_threshold: 0..1; replaces the value stored with the weights.
        precision: of the matrix multiplications: ``float32``, or ``bfloat16`` or ``float16`` with
            half the memory. An .onnx file has its own.
        trunk: file of the DINOv2 trunk for weights without one (published or adapters-only); None:
            timm's pretrained weights from the hub. An .onnx file has its own.
        runtime: what computes the network. ``torch``; ``openvino``, on CPUs about twice as fast;
            ``auto``: OpenVINO where it is installed and the device is the CPU, else PyTorch.
            ONNX Runtime runs an .onnx file in any case.

    Raises:
        FileNotFoundError: the weights are neither a file nor bundled, or the hub cannot be
            reached.
        RuntimeError: the runtime is not installed.
        ValueError: a file, a device or a precision cannot be used.

    """
    path = find_weights(weights)
    dtype = choose_precision(precision)
    runtime = choose_runtime(path, device, runtime)
    if path.suffix == ".onnx":
        if trunk is not None or dtype is not torch.float32:
            raise ValueError(f"{path} stores its own trunk and precision; give neither")
        model = OnnxSPMTrack(path, device)
        config = with_threshold(model.tracker_config, lost_threshold)
        # tensors stay on the CPU: ONNX Runtime uploads them, and may have CUDA without PyTorch's
        return Tracker(model, model.model_config, config, "cpu", precision)
    chosen = choose_device(device)
    frozen = find_weights(trunk) if trunk else None
    if emulated(precision, chosen):
        LOG.warning("this CPU has no instructions for %s; float32 is faster", precision)
    checkpoint = load_checkpoint(path, frozen, dtype)
    config = with_threshold(checkpoint.tracker_config, lost_threshold)
    model_config = checkpoint.model_config
    if runtime == "openvino":
        fused = fuse(checkpoint.model, torch.float32)
        network = OpenVinoSPMTrack(fused, model_config, REFERENCES, precision)
        return Tracker(network, model_config, config, chosen, precision)
    return Tracker(checkpoint.model, model_config, config, chosen, precision)


def with_threshold(config: TrackerConfig, lost_threshold: float | None) -> TrackerConfig:
    """``config`` with another ``lost_threshold``, where one is given."""
    return config if lost_threshold is None else replace(config, lost_threshold=lost_threshold)


def find_weights(weights: str | Path) -> Path:
    """The file of ``weights``: a path or a bundled name; ``FileNotFoundError`` if neither."""
    path, bundled = Path(weights), BUNDLED_WEIGHTS / f"{weights}.safetensors"
    if path.is_file():
        return path
    if bundled.is_file():
        return bundled
    names = sorted(file.stem for file in BUNDLED_WEIGHTS.glob("*.safetensors"))
    raise FileNotFoundError(
        f"no weights {str(weights)!r}: neither a file nor bundled ({', '.join(names)})"
    )


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


def choose_runtime(weights: Path, device: str, name: str) -> str:
    """What computes the network of ``weights``: ``torch``, ``openvino`` or ``onnxruntime``.

    ``name`` is one of ``RUNTIMES``; an .onnx file has its own. Raises ``ValueError`` for another
    name, for OpenVINO on another device than the CPU, and as ``choose_device``.
    """
    exported = weights.suffix == ".onnx"
    if name not in RUNTIMES and not (exported and name == "onnxruntime"):
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}; got {name!r}")
    if exported:
        return "onnxruntime"
    on_cpu = choose_device(device).type == "cpu"
    if name == "openvino" and not on_cpu:
        raise ValueError(f"runtime openvino runs on the CPU; got device {device!r}")
    if name == "auto":
        installed = importlib.util.find_spec("openvino") is not None
        name = "openvino" if installed and on_cpu else "torch"
        LOG.info("runtime %s", name)
    return name


def choose_precision(name: str) -> torch.dtype:
    """The torch type of ``float32``, ``bfloat16`` or ``float16``; else ``ValueError``."""
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {name!r}")
    return PRECISIONS[name]


def emulated(precision: str, device: torch.device) -> bool:
    """Whether a device multiplies matrices of ``precision`` without instructions for it.

    That takes up to eighty times as long as float32. x86 CPUs without AVX-512 have no such
    instructions.
    """
    without = torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT", "NO AVX")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return device.type == "cpu" and precision != "float32" and x86 and without
