"""An exported network, run by ONNX Runtime on a CPU, or on a GPU by CUDA or TensorRT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spmtrack_core.files import cache_folder
from spmtrack_core.runtimes.description import description_of
from spmtrack_core.runtimes.inference import Array

ONNX_FORMAT = "spmtrack-onnx-1"
INPUTS = ("search", "references", "masks", "state_token")
OUTPUTS = ("score_map", "boxes", "next_state_token")
"""In ONNX no output may have the name of an input."""
PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
"""ONNX Runtime's names for what computes on a GPU."""


class OnnxSPMTrack:
    """The network of a file that ``spmtrack export`` wrote, with its settings and provenance.

    Args:
        path: the .onnx file; a second file with its tensors must stay beside it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; CUDA needs onnxruntime-gpu. Inputs and
            outputs are on the CPU in any case.
        threads: of the CPU; 0: as many as ONNX Runtime takes by itself. Where a GPU computes the
            network, they stay as they are given here.
        tensorrt: let TensorRT compute what it can. It builds an engine at the first pass, in
            minutes, and keeps it in ``cache_folder()``.

    Raises:
        FileNotFoundError: the file does not exist.
        RuntimeError: ONNX Runtime is not installed.
        ValueError: the file is broken or not from ``spmtrack export``, or ONNX Runtime has no
            CUDA or no TensorRT.

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
        self.providers = choose_providers(device, tensorrt, onnxruntime.get_available_providers())
        self.session = self._open(threads)
        try:
            if tuple(each.name for each in self.session.get_inputs()) != INPUTS:
                raise ValueError(f"it is no {ONNX_FORMAT} network; spmtrack export writes them")
            about = description_of(self.session.get_modelmeta().custom_metadata_map, ONNX_FORMAT)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}") from None
        self.model_config, self.tracker_config, self.provenance = about
        width = self.session.get_inputs()[-1].shape[-1]
        self.no_state: Array = np.zeros((1, 1, width), np.float32)

    @property
    def threads(self) -> int:
        """See ``InferenceModel``."""
        return self.session.get_session_options().intra_op_num_threads

    @threads.setter
    def threads(self, threads: int) -> None:
        on_cpu = self.session.get_providers() == ["CPUExecutionProvider"]
        if on_cpu and threads != self.threads:
            self.session = self._open(threads)

    def _open(self, threads: int) -> Any:
        """The file as a session of ONNX Runtime, whose threads cannot be changed."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # let threads sleep while they wait: other nodes, and the crops, need the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only; they are raised as well
        try:
            return onnxruntime.InferenceSession(self.path, options, self.providers)
        except Exception as error:  # ONNX Runtime has one exception class for each cause
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"ONNX Runtime cannot read {self.path}: {reason}") from None

    @property
    def reference_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what ``encode_reference`` returns for one frame."""
        return (3, *self.model_config.template_hw), self.model_config.template_grid_hw

    def encode_reference(self, references: Array, masks: Array) -> tuple[Array, ...]:
        """Reference frames and masks, unchanged: the exported network embeds them itself."""
        return references, masks

    def __call__(self, search: Array, *references_and_state: Array) -> tuple[Array, ...]:
        """Find the target of reference frames and masks (B, R, ...) in ``search`` (B, 3, H, W)."""
        feed = dict(zip(INPUTS, (search, *references_and_state), strict=True))
        return tuple(self.session.run(OUTPUTS, feed))


def choose_providers(device: str, tensorrt: bool, available: Sequence[str]) -> list[Any]:
    """What ONNX Runtime shall compute with, best first; the CPU last, for what others lack.

    Raises ``ValueError`` for a device of another name, or one that is not ``available``.
    """
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdigit())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if tensorrt and kind == "cpu":
        raise ValueError(f"runtime tensorrt runs on a GPU; got device {device!r}")
    asked = "tensorrt" if tensorrt else kind
    if asked in PROVIDERS and PROVIDERS[asked] not in available:
        title = {"cuda": "CUDA", "tensorrt": "TensorRT"}[asked]
        raise ValueError(
            f"no {title} in ONNX Runtime: install onnxruntime-gpu instead of onnxruntime"
        )
    gpu = {"device_id": index or "0"}
    providers: list[Any] = []
    if tensorrt:
        folder = str(cache_folder())
        cached = {"trt_engine_cache_enable": True, "trt_engine_cache_path": folder}
        providers.append((PROVIDERS["tensorrt"], gpu | cached))
    if kind != "cpu" and PROVIDERS["cuda"] in available:
        providers.append((PROVIDERS["cuda"], gpu))
    return [*providers, "CPUExecutionProvider"]
