"""An exported network, run by ONNX Runtime on a CPU, or on a GPU by CUDA or TensorRT."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeAlias

import numpy as np

from spmtrack_core.files import cache_folder, one_line, sha256_of
from spmtrack_core.runtimes.description import description_of
from spmtrack_core.runtimes.inference import Array

LOG = logging.getLogger(__name__)

ONNX_FORMAT = "spmtrack-onnx-1"
INPUTS = ("search", "references", "masks", "state_token")
OUTPUTS = ("score_map", "boxes", "next_state_token")
"""In ONNX no output may have the name of an input."""
LARGEST_BATCH = 8
"""Largest number of targets of a TensorRT engine; it is tuned for one."""
PROVIDERS = {
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
}
"""ONNX Runtime's names for what computes a network."""
Provider: TypeAlias = tuple[str, dict[str, Any]]
"""One of ``PROVIDERS`` with its options."""
ON_CPU: list[Provider] = [(PROVIDERS["CPU"], {})]


class OnnxSPMTrack:
    """The network of a file that ``spmtrack export`` wrote, with its settings and provenance.

    Args:
        path: the .onnx file; a second file with its tensors must stay beside it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; CUDA needs onnxruntime-gpu. With
            ``auto`` the CPU computes, after a warning, where a GPU cannot. Inputs and outputs are
            on the CPU in any case.
        threads: of the CPU; 0: as many as ONNX Runtime takes by itself. Where a GPU computes the
            network, they stay as they are given here.
        tensorrt: let TensorRT compute what it can. It builds an engine here, in minutes, for 1 to
            ``LARGEST_BATCH`` targets, and ``engine_cache`` keeps it for the next time.

    Raises:
        FileNotFoundError: the file does not exist.
        RuntimeError: ONNX Runtime is not installed.
        ValueError: the file is broken or not from ``spmtrack export``, or ONNX Runtime has no
            CUDA or no TensorRT, or cannot use it.

    """

    def __init__(
        self, path: str | Path, device: str = "cpu", threads: int = 0, tensorrt: bool = False
    ) -> None:
        path = Path(path)
        try:
            import onnxruntime  # an extra; other weights save its memory
        except ImportError:
            raise RuntimeError(
                f"{path} needs ONNX Runtime, the extra onnx of this package: "
                "pip install 'spmtrack_ros[onnx]', or only pip install onnxruntime"
            ) from None
        if not path.is_file():
            raise FileNotFoundError(f"no weights at {path}")
        self.runtime = "tensorrt" if tensorrt else "onnxruntime"
        self.path = path
        self.largest_batch = LARGEST_BATCH if tensorrt else None
        providers = choose_providers(device, tensorrt, onnxruntime.get_available_providers())
        # what TensorRT shall build is read from the file first, on the CPU
        self.providers = ON_CPU if tensorrt else providers
        try:
            self.session = self._open(threads)
        except ValueError as error:
            if device != "auto" or self.providers == ON_CPU:
                raise
            self.providers = ON_CPU
            self.session = self._open(threads)
            LOG.warning("%s; until then the CPU computes it", error)
        inputs = self.session.get_inputs()
        try:
            if tuple(each.name for each in inputs) != INPUTS:
                raise ValueError(f"it is no {ONNX_FORMAT} network; spmtrack export writes them")
            about = description_of(self.session.get_modelmeta().custom_metadata_map, ONNX_FORMAT)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}") from None
        self.model_config, self.tracker_config, self.provenance = about
        self.no_state: Array = np.zeros((1, 1, inputs[-1].shape[-1]), np.float32)
        if tensorrt:
            (name, options), *others = providers
            options = options | shape_profile(inputs) | engine_cache(path)
            self.providers = [(name, options), *others]
            del inputs, self.session  # their memory, before the engine is built
            self.session = self._open(threads)

    @property
    def device(self) -> str:
        """What computes the network: ``cpu`` or ``cuda:N``."""
        name, options = self.providers[0]
        return "cpu" if name == PROVIDERS["CPU"] else f"cuda:{options['device_id']}"

    @property
    def threads(self) -> int:
        """See ``InferenceModel``."""
        return self.session.get_session_options().intra_op_num_threads

    @threads.setter
    def threads(self, threads: int) -> None:
        if self.device == "cpu" and threads != self.threads:
            self.session = self._open(threads)

    def _open(self, threads: int) -> Any:
        """The file as a session of ONNX Runtime by ``providers``; its threads cannot be changed.

        Raises ``ValueError`` unless the first of the providers computes.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # let threads sleep while they wait: other nodes, and the crops, need the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only; they are raised as well
        first = self.providers[0][0]
        try:
            # by default ONNX Runtime prints that a GPU failed, and computes on the CPU
            session = onnxruntime.InferenceSession(
                self.path, options, self.providers, enable_fallback=0
            )
            session.disable_fallback()  # for releases that ignore the argument
            if session.get_providers()[0] == first:
                return session
            reason = "it is part of ONNX Runtime, but its libraries cannot be loaded"
        except Exception as error:  # ONNX Runtime has one exception class for each cause
            reason = one_line(error)[:200]
        if self.device == "cpu":
            raise ValueError(f"ONNX Runtime cannot read {self.path}: {reason}")
        title = next(title for title, name in PROVIDERS.items() if name == first)
        raise ValueError(
            f"{title} cannot run {self.path} on {self.device}: {reason}; check the device, "
            "NVIDIA's driver, and that CUDA, cuDNN and TensorRT have the versions that "
            f"onnxruntime-gpu {onnxruntime.__version__} is built for, or let the CPU compute it: "
            "runtime onnxruntime, device cpu"
        )

    @property
    def reference_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what ``encode_reference`` returns for one frame."""
        return (3, *self.model_config.template_hw), self.model_config.template_grid_hw

    def encode_reference(self, references: Array, masks: Array) -> tuple[Array, ...]:
        """Reference frames and masks, unchanged: the exported network embeds them itself."""
        return references, masks

    def __call__(self, search: Array, *references_and_state: Array) -> tuple[Array, ...]:
        """Find the target of reference frames and masks (B, R, ...) in ``search`` (B, 3, H, W).

        Several passes where B is above ``largest_batch``.
        """
        inputs = search, *references_and_state
        size = self.largest_batch or len(search)
        passes = []
        for start in range(0, len(search), size):
            parts = (each[start : start + size] for each in inputs)
            passes.append(self.session.run(OUTPUTS, dict(zip(INPUTS, parts, strict=True))))
        if len(passes) == 1:
            return tuple(passes[0])
        return tuple(np.concatenate(parts) for parts in zip(*passes, strict=True))


def choose_providers(device: str, tensorrt: bool, available: Sequence[str]) -> list[Provider]:
    """What ONNX Runtime shall compute with, best first; the CPU last, for what others lack.

    Raises ``ValueError`` for a device of another name, or one that is not ``available``: part of
    the installed ONNX Runtime, whether or not it can be loaded.
    """
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdigit())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if tensorrt and kind == "cpu":
        raise ValueError(f"runtime tensorrt runs on a GPU; got device {device!r}")
    needed = "TensorRT" if tensorrt else "CUDA" if kind == "cuda" else "CPU"
    if PROVIDERS[needed] not in available:
        raise ValueError(
            f"no {needed} in ONNX Runtime: install onnxruntime-gpu instead of onnxruntime"
        )
    names = [PROVIDERS["TensorRT"]] if tensorrt else []
    if kind != "cpu" and PROVIDERS["CUDA"] in available:
        names.append(PROVIDERS["CUDA"])
    return [*((name, {"device_id": index or "0"}) for name in names), *ON_CPU]


def shape_profile(inputs: Sequence[Any]) -> dict[str, str]:
    """TensorRT's options for one engine of 1 to ``LARGEST_BATCH`` targets, tuned for one.

    Without them a new engine is built whenever the number of targets changes. ``inputs`` are
    ONNX Runtime's: each has ``name`` and ``shape``, in which the number of targets is a name.
    """

    def shapes(targets: int) -> str:
        sizes = (
            "x".join(str(size if isinstance(size, int) else targets) for size in each.shape)
            for each in inputs
        )
        return ",".join(f"{each.name}:{size}" for each, size in zip(inputs, sizes, strict=True))

    return {
        "trt_profile_min_shapes": shapes(1),
        "trt_profile_opt_shapes": shapes(1),
        "trt_profile_max_shapes": shapes(LARGEST_BATCH),
    }


def engine_cache(path: Path) -> dict[str, Any]:
    """TensorRT's options to keep the engine of an .onnx file in a folder of its own.

    ONNX Runtime finds an engine by the names in the file, not by its weights; so the folder is
    named by the file's content. A folder that cannot be written gives a warning and no options.
    """
    folder = cache_folder() / "tensorrt" / content_digest(path)[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or error
        LOG.warning(
            "TensorRT builds an engine at every start: cannot write %s: %s", folder, reason
        )
        return {}
    if not any(folder.glob("*.engine")):
        LOG.warning("TensorRT builds an engine for %s, once; this takes minutes", path)
    return {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}


def content_digest(path: Path) -> str:
    """SHA-256 of an .onnx file and of the files beside it that hold its tensors."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph:
        # their names are in the graph, and stay as they are where the .onnx file is renamed
        beside = sorted(path.parent.glob("*.data"))
        tensors = [each for each in beside if graph.find(each.name.encode()) >= 0]
    return sha256_of(path, *tensors)
