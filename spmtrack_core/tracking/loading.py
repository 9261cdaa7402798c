"""From the name or path of weights to a tracker on a device: ``load_tracker``.

Torch is imported where PyTorch computes, or converts, the network.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from spmtrack_core.config import TrackerConfig
from spmtrack_core.runtimes.onnx_model import OnnxSPMTrack
from spmtrack_core.runtimes.openvino_model import HINTS, OpenVinoSPMTrack, openvino_networks
from spmtrack_core.tracking.host_engine import HostEngine
from spmtrack_core.tracking.tracker import Tracker

if TYPE_CHECKING:
    from spmtrack_core.runtimes.openvino_model import Networks

LOG = logging.getLogger(__name__)
RUNTIMES = ("torch", "openvino", "onnxruntime", "tensorrt", "auto")
BUNDLED_WEIGHTS = Path(__file__).parents[1] / "weights"


def load_tracker(
    weights: str | Path = "nano",
    device: str = "auto",
    lost_threshold: float | None = None,
    precision: str = "float32",
    trunk: str | Path | None = None,
    runtime: str = "torch",
    threads: int = 0,
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
            ``onnxruntime`` or ``tensorrt`` for an .onnx file; ``auto``: OpenVINO where it is
            installed and the device is the CPU, else PyTorch, and for an .onnx file ONNX Runtime.
        threads: of the CPU for the network; 0: ``warm_up`` measures how many are worth it, and
            until then the runtime chooses.

    Raises:
        FileNotFoundError: the weights are neither a file nor bundled, or the hub cannot be
            reached.
        RuntimeError: the runtime is not installed.
        ValueError: a file, a device or a precision cannot be used.

    """
    path = find_weights(weights)
    frozen = find_weights(trunk) if trunk else None
    asked, runtime = runtime, choose_runtime(path, device, runtime)
    if threads < 0:
        raise ValueError(f"threads must be 0, which chooses, or more; got {threads}")
    if path.suffix == ".onnx":
        if frozen is not None or precision != "float32":
            raise ValueError(f"{path} stores its own trunk and precision; give neither")
        # ONNX Runtime may have CUDA without PyTorch's
        exported = OnnxSPMTrack(path, device, threads, runtime == "tensorrt")
        engine = HostEngine(exported, exported.model_config)
        return Tracker(engine, with_threshold(exported.tracker_config, lost_threshold))
    if runtime == "openvino":
        if precision not in HINTS:
            raise ValueError(f"precision must be one of {', '.join(HINTS)}; got {precision!r}")
        try:
            networks = openvino_networks(path, frozen, lambda: _convert(path, frozen))
            converted = OpenVinoSPMTrack(networks, precision, threads)
            engine = HostEngine(converted, converted.model_config)
            return Tracker(engine, with_threshold(converted.tracker_config, lost_threshold))
        except RuntimeError as error:
            if asked != "auto":
                raise
            LOG.warning("PyTorch computes the network, since OpenVINO does not: %s", error)
    load = _torch_engines().load_torch_engine
    by_torch, config = load(path, frozen, device, precision, threads)
    return Tracker(by_torch, with_threshold(config, lost_threshold))


def _convert(weights: Path, trunk: Path | None) -> Networks:
    LOG.warning("converting %s for OpenVINO, once; this takes some seconds", weights)
    try:
        return _torch_engines().convert_for_openvino(weights, trunk)
    except (ValueError, OSError):  # of the files
        raise
    except Exception as error:  # OpenVINO has exceptions of its own for each kind of failure
        raise RuntimeError(f"OpenVINO cannot convert {weights}: {error}") from error


def _torch_engines() -> ModuleType:
    """``torch_engines``, which imports torch; until then its threads can be told how to wait.

    By default they wait for each other in a loop that takes the cores from other programs, for a
    second and more where all cores are busy.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import spmtrack_core.tracking.torch_engines as with_torch

    return with_torch


def is_cpu(device: str) -> bool:
    """Whether ``device`` stands for the CPU; raises ``ValueError`` as ``choose_device`` does.

    Without NVIDIA's driver ``auto`` does, which needs no torch to be known.
    """
    if device == "cpu":
        return True
    if device == "auto":
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return True
    return _torch_engines().choose_device(device).type == "cpu"


def cuda_devices() -> int:
    """Number of the CUDA devices that PyTorch has."""
    return int(_torch_engines().torch.cuda.device_count())


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


def choose_runtime(weights: Path, device: str, name: str) -> str:
    """What computes the network of ``weights``: ``name``, or for ``auto`` the fastest one.

    Raises ``ValueError`` for a name that is not among ``RUNTIMES`` or does not fit the weights,
    for OpenVINO on another device than the CPU, and as ``choose_device``.
    """
    exported = weights.suffix == ".onnx"
    if name not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}; got {name!r}")
    if exported and name == "openvino":
        raise ValueError(f"runtime openvino takes a checkpoint; got {weights}: give onnxruntime")
    if exported:
        return "tensorrt" if name == "tensorrt" else "onnxruntime"
    if name in ("onnxruntime", "tensorrt"):
        raise ValueError(f"runtime {name} runs an .onnx file of spmtrack export; got {weights}")
    if name == "openvino" and not is_cpu(device):
        raise ValueError(f"runtime openvino runs on the CPU; got device {device!r}")
    if name == "auto":
        installed = importlib.util.find_spec("openvino") is not None
        name = "openvino" if installed and is_cpu(device) else "torch"
        LOG.info("runtime %s", name)
    return name
