"""From the name or path of weights to a tracker on a device: ``load_tracker``.

Torch is imported where PyTorch computes, or converts, the network.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import logging
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from spmtrack_core.config import TrackerConfig
from spmtrack_core.files import user_path
from spmtrack_core.runtimes.exported import pair
from spmtrack_core.runtimes.onnx_model import OnnxSPMTrack
from spmtrack_core.runtimes.openvino_model import (
    HINTS,
    OpenVinoSPMTrack,
    converted_description,
    exported_networks,
    openvino_networks,
)
from spmtrack_core.runtimes.tensorrt_model import TensorRtSPMTrack
from spmtrack_core.tracking.host_engine import HostEngine
from spmtrack_core.tracking.tracker import Tracker

if TYPE_CHECKING:
    from spmtrack_core.runtimes.openvino_model import Networks

LOG = logging.getLogger(__name__)
CHECKPOINT = "checkpoints"
RUNTIMES = {
    "torch": (CHECKPOINT,),
    "onnxruntime": (".onnx",),
    "openvino": (CHECKPOINT, ".onnx"),
    "tensorrt": (".engine",),
}
"""What each runtime computes: checkpoints, or files of ``spmtrack export`` by their suffix."""
MOST_THREADS = 256
"""More take the processor for minutes before the first frame."""
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
        weights: the name of bundled weights, or the path of a checkpoint or of an .onnx or .engine
            file of ``spmtrack export``.
        device: ``auto`` (CUDA if available), ``cpu``, ``cuda`` or ``cuda:N``.
        lost_threshold: 0..1; replaces the value stored with the weights.
        precision: of the matrix multiplications: ``float32``, or ``bfloat16`` or ``float16`` with
            half the memory. An exported file has its own.
        trunk: file of the DINOv2 trunk for weights without one (published or adapters-only); None:
            timm's pretrained weights from the hub. An exported file has its own.
        runtime: what computes the network. ``torch``; ``openvino``, on CPUs about twice as fast;
            ``onnxruntime`` or ``openvino`` for an .onnx file; ``tensorrt`` for an .engine file;
            ``auto``: OpenVINO where it is installed and the device is the CPU, else PyTorch, and
            for an .onnx file ONNX Runtime where it is installed, else OpenVINO.
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
    if not 0 <= threads <= MOST_THREADS:
        raise ValueError(f"threads must be 0, which chooses, to {MOST_THREADS}; got {threads}")
    if kind_of(path) != CHECKPOINT:
        if frozen is not None or precision != "float32":
            raise ValueError(f"{path} stores its own trunk and precision; give neither")
        return _tracker(_exported(path, device, runtime, threads), lost_threshold)
    if runtime == "openvino":
        if precision not in HINTS:
            raise ValueError(f"precision must be one of {', '.join(HINTS)}; got {precision!r}")
        try:
            networks = openvino_networks(path, frozen, lambda: _convert(path, frozen))
            about = converted_description(networks)
            model = OpenVinoSPMTrack(networks, about, precision, threads)
            if asked == "auto":
                model.compile()  # now, when there is a choice left
            return _tracker(model, lost_threshold)
        except RuntimeError as error:
            if asked != "auto":
                raise
            LOG.warning("PyTorch computes the network, since OpenVINO does not: %s", error)
    load = _torch_engines().load_torch_engine
    by_torch, config = load(path, frozen, device, precision, threads)
    return Tracker(by_torch, with_threshold(config, lost_threshold))


def _exported(
    path: Path, device: str, runtime: str, threads: int
) -> OnnxSPMTrack | OpenVinoSPMTrack | TensorRtSPMTrack:
    if runtime == "tensorrt":
        return TensorRtSPMTrack(path, device)
    if runtime == "openvino":
        return OpenVinoSPMTrack(*exported_networks(path), threads=threads)
    return OnnxSPMTrack(path, device, threads)  # may have CUDA without PyTorch's


def _tracker(
    model: OnnxSPMTrack | OpenVinoSPMTrack | TensorRtSPMTrack, lost_threshold: float | None
) -> Tracker:
    """A tracker with a network that has its settings."""
    engine = HostEngine(model, model.model_config)
    return Tracker(engine, with_threshold(model.tracker_config, lost_threshold))


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
    path, bundled = user_path(weights), BUNDLED_WEIGHTS / f"{weights}.safetensors"
    if path.is_file():
        return path
    if bundled.is_file():
        return bundled
    names = sorted(file.stem for file in BUNDLED_WEIGHTS.glob("*.safetensors"))
    raise FileNotFoundError(
        f"no weights {str(weights)!r}: neither a file nor bundled ({', '.join(names)})"
    )


def weight_files(*weights: str | Path | None) -> list[Path]:
    """The files that ``weights`` are read from, which no output may replace; None is none.

    An .onnx file comes with the second one and with the tensors that did not fit into them.
    Raises as ``find_weights``.
    """
    found = [find_weights(each) for each in weights if each]
    pairs = [pair(path).values() for path in found if path.suffix == ".onnx"]
    networks = list(itertools.chain(*pairs))
    return [*found, *networks, *(path.with_name(f"{path.name}.data") for path in networks)]


def kind_of(weights: Path) -> str:
    """One of the values in ``RUNTIMES``."""
    exported = any(weights.suffix in kinds for kinds in RUNTIMES.values())
    return weights.suffix if exported else CHECKPOINT


def choose_runtime(weights: Path, device: str, name: str) -> str:
    """What computes the network of ``weights``: ``name``, or for ``auto`` the fastest one.

    Raises ``ValueError`` for a name that is not among ``RUNTIMES`` or does not fit the weights,
    for OpenVINO on another device than the CPU, and as ``choose_device``.
    """
    if name not in (*RUNTIMES, "auto"):
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, auto; got {name!r}")
    kind = kind_of(weights)
    runs = [each for each, kinds in RUNTIMES.items() if kind in kinds]
    if kind != CHECKPOINT and name in ("torch", "auto"):  # torch is but the default
        found = [each for each in runs if importlib.util.find_spec(each)]
        name = (*found, *runs)[0]
    elif name not in (*runs, "auto"):
        kinds = " and ".join(RUNTIMES[name])
        raise ValueError(f"runtime {name} runs {kinds} files of spmtrack export; got {weights}")
    if name == "openvino":
        exported = kind != CHECKPOINT  # where it runs, there may be no torch to ask
        if not (device in ("auto", "cpu") if exported else is_cpu(device)):
            raise ValueError(f"runtime openvino runs on the CPU; got device {device!r}")
    if name == "auto":
        installed = importlib.util.find_spec("openvino") is not None
        name = "openvino" if installed and is_cpu(device) else "torch"
        LOG.info("runtime %s", name)
    return name
