"""An exported network, run by ONNX Runtime on a CPU, or on a GPU by CUDA."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from spmtrack_core.files import one_line
from spmtrack_core.runtimes.exported import description_of_both, files_of
from spmtrack_core.runtimes.inference import INPUTS, OUTPUTS, Array

LOG = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
"""ONNX Runtime's names for what computes a network."""
Provider: TypeAlias = tuple[str, dict[str, Any]]
"""One of them with its options."""
ON_CPU: list[Provider] = [(CPU, {})]


class OnnxSPMTrack:
    """The networks of two files that ``spmtrack export`` wrote, with settings and provenance.

    Args:
        path: the .onnx file. The one of the reference frames, and files with the tensors of large
            networks, must stay beside it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; CUDA needs onnxruntime-gpu. With
            ``auto`` the CPU computes, after a warning, where a GPU cannot. Inputs and outputs are
            on the CPU in any case.
        threads: of the CPU; 0: as many as ONNX Runtime takes by itself. Where a GPU computes the
            network, they stay as they are given here.

    Raises:
        FileNotFoundError: one of the files does not exist.
        RuntimeError: ONNX Runtime is not installed.
        ValueError: a file is broken or not from ``spmtrack export``, or ONNX Runtime has no CUDA,
            or cannot use it.

    """

    runtime = "onnxruntime"

    def __init__(self, path: str | Path, device: str = "cpu", threads: int = 0) -> None:
        path = Path(path)
        try:
            import onnxruntime  # an extra; other weights save its memory
        except ImportError:
            raise RuntimeError(
                f"{path} needs ONNX Runtime, the extra onnx of this package: "
                "pip install 'spmtrack_ros[onnx]', or only pip install onnxruntime"
            ) from None
        self.files = files_of(path)
        self.providers = choose_providers(device, onnxruntime.get_available_providers())
        try:
            self.sessions = self._open(threads)
        except ValueError as error:
            if device != "auto" or self.providers == ON_CPU:
                raise
            self.providers = ON_CPU
            self.sessions = self._open(threads)
            LOG.warning("%s; until then the CPU computes it", error)
        try:
            metadata = {
                part: session.get_modelmeta().custom_metadata_map
                for part, session in self.sessions.items()
            }
            about = description_of_both(metadata)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}") from None
        self.model_config, self.tracker_config, self.provenance = about
        _, references, state = (each.shape for each in self.sessions["locate"].get_inputs())
        self.no_state: Array = np.zeros((1, *state[1:]), np.float32)
        self.reference_shapes: tuple[tuple[int, ...], ...] = (tuple(references[2:]),)

    @property
    def device(self) -> str:
        """What computes the network: ``cpu`` or ``cuda:N``."""
        name, options = self.providers[0]
        return "cpu" if name == CPU else f"cuda:{options['device_id']}"

    @property
    def threads(self) -> int:
        """See ``InferenceModel``."""
        return self.sessions["locate"].get_session_options().intra_op_num_threads

    @threads.setter
    def threads(self, threads: int) -> None:
        if self.device == "cpu" and threads != self.threads:
            self.sessions = self._open(threads)

    def _open(self, threads: int) -> dict[str, Any]:
        """The files as sessions of ONNX Runtime by ``providers``; their threads are fixed."""
        return {part: self._session(path, threads) for part, path in self.files.items()}

    def _session(self, path: Path, threads: int) -> Any:
        """Raises ``ValueError`` unless the first of the providers computes."""
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
                path, options, self.providers, enable_fallback=0
            )
            session.disable_fallback()  # for releases that ignore the argument
            if session.get_providers()[0] == first:
                return session
            reason = "it is part of ONNX Runtime, but its libraries cannot be loaded"
        except Exception as error:  # ONNX Runtime has one exception class for each cause
            reason = one_line(error)[:200]
        if self.device == "cpu":
            raise ValueError(f"ONNX Runtime cannot read {path}: {reason}")
        raise ValueError(
            f"CUDA cannot run {path} on {self.device}: {reason}; check the device, NVIDIA's "
            "driver, and that CUDA and cuDNN have the versions that onnxruntime-gpu "
            f"{onnxruntime.__version__} is built for, or let the CPU compute it: device cpu"
        )

    def encode_reference(self, references: Array, masks: Array) -> tuple[Array, ...]:
        """See ``InferenceModel``."""
        return self._run("encode", references, masks)

    def __call__(self, search: Array, *references_and_state: Array) -> tuple[Array, ...]:
        """See ``InferenceModel``."""
        return self._run("locate", search, *references_and_state)

    def _run(self, part: str, *inputs: Array) -> tuple[Array, ...]:
        feed = dict(zip(INPUTS[part], inputs, strict=True))
        return tuple(self.sessions[part].run(OUTPUTS[part], feed))


def choose_providers(device: str, available: Sequence[str]) -> list[Provider]:
    """What ONNX Runtime shall compute with, best first; the CPU last, for what CUDA lacks.

    Raises ``ValueError`` for a device of another name, or one that is not ``available``: part of
    the installed ONNX Runtime, whether or not it can be loaded.
    """
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdigit())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if kind == "cuda" and CUDA not in available:
        raise ValueError("no CUDA in ONNX Runtime: install onnxruntime-gpu instead of onnxruntime")
    if kind == "cpu" or CUDA not in available:
        return ON_CPU
    return [(CUDA, {"device_id": index or "0"}), *ON_CPU]
