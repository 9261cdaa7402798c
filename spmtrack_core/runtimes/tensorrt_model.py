"""An engine of ``spmtrack export --format tensorrt``, run by TensorRT on the GPU it was built on.

Never run on a GPU: the tests have a TensorRT whose engines the CPU computes.
"""

from __future__ import annotations

import math
import weakref
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spmtrack_core.files import one_line
from spmtrack_core.runtimes.description import ENTRY, description_of
from spmtrack_core.runtimes.inference import INPUTS, OUTPUTS, Array

ENGINE_FORMAT = "spmtrack-tensorrt-1"
SETTINGS = "settings.json"
"""Name of the description in an engine file, a ZIP with one engine for each of ``INPUTS``."""
LARGEST_BATCH = 8
"""Largest number of targets of an engine; it is tuned for one."""


class TensorRtSPMTrack:
    """The networks of an engine file, with settings and provenance.

    Args:
        path: the file.
        device: ``auto``, ``cuda`` or ``cuda:N``. Inputs and outputs are on the CPU.

    Raises:
        FileNotFoundError: the file does not exist.
        RuntimeError: TensorRT or CUDA's package for Python is not installed, or CUDA fails.
        ValueError: the file is broken or not from ``spmtrack export``, or TensorRT cannot use it.

    """

    runtime = "tensorrt"
    threads = 0

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        try:  # NVIDIA's, not extras: they must fit the driver
            import tensorrt
            from cuda.bindings import runtime as cuda
        except ImportError as error:
            raise RuntimeError(
                f"{path} needs NVIDIA's tensorrt, 10 or later, and cuda-python ({error})"
            ) from None
        settings, serialized = read_engines(Path(path))
        try:
            about = description_of({ENTRY: settings}, ENGINE_FORMAT)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}") from None
        self.model_config, self.tracker_config, self.provenance = about
        self._cuda = cuda
        self._index = cuda_index(device, checked(cuda, cuda.cudaGetDeviceCount()))
        self.device = f"cuda:{self._index}"
        checked(cuda, cuda.cudaSetDevice(self._index))
        # kept: the engines need it
        self._runtime = of_tensorrt(tensorrt.Runtime, tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engines = {}
        for part, one in serialized.items():
            engine = self._runtime.deserialize_cuda_engine(one)
            if engine is None:
                raise ValueError(
                    f"TensorRT {tensorrt.__version__} cannot run {path} on {self.device}: an "
                    "engine is for one kind of GPU and one version of TensorRT; build it here: "
                    "spmtrack export --format tensorrt"
                )
            try:
                self._engines[part] = Engine(engine, part, cuda)
            except ValueError as error:
                raise ValueError(f"{path} cannot be used: {error}") from None
        _, references, state = (self._engines["locate"].shapes[each] for each in INPUTS["locate"])
        self.no_state: Array = np.zeros((1, *state), np.float32)
        self.reference_shapes = (references[1:],)

    def encode_reference(self, references: Array, masks: Array) -> tuple[Array, ...]:
        """See ``InferenceModel``."""
        return self._run("encode", references, masks)

    def __call__(self, search: Array, *references_and_state: Array) -> tuple[Array, ...]:
        """See ``InferenceModel``."""
        return self._run("locate", search, *references_and_state)

    def _run(self, part: str, *inputs: Array) -> tuple[Array, ...]:
        """One pass, or several where there are more targets than ``LARGEST_BATCH``."""
        checked(self._cuda, self._cuda.cudaSetDevice(self._index))  # each thread has its own
        found = [
            self._engines[part]([each[start : start + LARGEST_BATCH] for each in inputs])
            for start in range(0, len(inputs[0]), LARGEST_BATCH)
        ]
        return tuple(map(np.concatenate, zip(*found, strict=True)))


class Engine:
    """An engine with memory on the GPU for the inputs and outputs of ``LARGEST_BATCH`` targets.

    Raises ``ValueError`` for an engine with other inputs or outputs than ``part`` has, and
    ``RuntimeError`` where memory does not suffice.
    """

    def __init__(self, engine: Any, part: str, cuda: Any) -> None:
        self._inputs, self._outputs, self._cuda = INPUTS[part], OUTPUTS[part], cuda
        self.shapes = {  # of one target
            name: tuple(engine.get_tensor_shape(name))[1:]
            for name in (*self._inputs, *self._outputs)
        }
        for name, shape in self.shapes.items():
            if not shape or min(shape) < 1:
                raise ValueError(f"{name} has the shape {shape}, expected fixed sizes")
        self._context = engine.create_execution_context()
        if self._context is None:
            raise RuntimeError("TensorRT has not enough memory on the GPU")
        self._stream = checked(cuda, cuda.cudaStreamCreate())
        self._memory: dict[str, int] = {}
        weakref.finalize(self, release, cuda, self._stream, self._memory)
        for name, shape in self.shapes.items():
            size = LARGEST_BATCH * math.prod(shape) * np.dtype(np.float32).itemsize
            self._memory[name] = int(checked(cuda, cuda.cudaMalloc(size)))
            accepted(name, self._context.set_tensor_address(name, self._memory[name]))

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """One pass for at most ``LARGEST_BATCH`` targets.

        Raises ``ValueError`` for inputs of another shape.
        """
        cuda, kinds, batch = self._cuda, self._cuda.cudaMemcpyKind, len(inputs[0])
        taken = [np.ascontiguousarray(each, np.float32) for each in inputs]  # until the end
        given = [np.empty((batch, *self.shapes[name]), np.float32) for name in self._outputs]

        def copy(to: int, source: int, size: int, kind: Any) -> None:
            checked(cuda, cuda.cudaMemcpyAsync(to, source, size, kind, self._stream))

        for name, array in zip(self._inputs, taken, strict=True):
            if array.shape != (batch, *self.shapes[name]):
                raise ValueError(
                    f"{name} has the shape {array.shape}, expected {(batch, *self.shapes[name])}"
                )
            accepted(name, self._context.set_input_shape(name, array.shape))
            copy(
                self._memory[name],
                array.ctypes.data,
                array.nbytes,
                kinds.cudaMemcpyHostToDevice,
            )
        if not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError("TensorRT could not compute the network; the reason is in its log")
        for name, array in zip(self._outputs, given, strict=True):
            copy(
                array.ctypes.data,
                self._memory[name],
                array.nbytes,
                kinds.cudaMemcpyDeviceToHost,
            )
        checked(cuda, cuda.cudaStreamSynchronize(self._stream))
        return given


def of_tensorrt(kind: Callable[..., Any], *arguments: Any) -> Any:
    """An object of TensorRT; ``RuntimeError`` where it cannot be made, as without a driver."""
    try:
        return kind(*arguments)
    except TypeError as error:  # its constructor has returned nothing
        raise RuntimeError(f"TensorRT cannot use a GPU here: {one_line(error)}") from None


def accepted(name: str, answer: bool) -> None:
    """Raise ``RuntimeError`` where TensorRT has refused what it was told of a tensor."""
    if not answer:
        raise RuntimeError(f"TensorRT refuses the address or the shape of {name}")


def release(cuda: Any, stream: Any, memory: Mapping[str, int]) -> None:
    """Give a stream and memory back to the GPU."""
    for address in memory.values():
        cuda.cudaFree(address)
    cuda.cudaStreamDestroy(stream)


def checked(cuda: Any, answer: tuple[Any, ...]) -> Any:
    """The result in an answer of CUDA, which starts with an error code; or ``RuntimeError``."""
    code, *found = answer
    if code != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(code)
        raise RuntimeError(f"CUDA failed: {text.decode()}")
    return found[0] if found else None


def cuda_index(name: str, count: int) -> int:
    """N of ``cuda:N``, and 0 of ``auto`` and ``cuda``, on a computer with ``count`` GPUs.

    Raises ``ValueError`` for another name, and for a device that is not there.
    """
    kind, colon, index = name.partition(":")
    if kind not in ("auto", "cuda") or (colon and not (kind == "cuda" and index.isdigit())):
        raise ValueError(f"runtime tensorrt runs on cuda or cuda:N; got device {name!r}")
    if int(index or 0) >= count:
        raise ValueError(f"device cuda:{index or 0} not found; CUDA devices available: {count}")
    return int(index or 0)


def write_engines(path: Path, settings: str, engines: Mapping[str, bytes]) -> None:
    """Write an engine file: a description and serialized engines by the names in ``INPUTS``."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(SETTINGS, settings)
        for part, engine in engines.items():
            archive.writestr(f"{part}.engine", engine)


def read_engines(path: Path) -> tuple[str, dict[str, bytes]]:
    """What ``write_engines`` wrote; ``FileNotFoundError`` or ``ValueError`` for another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            settings = archive.read(SETTINGS).decode()
            return settings, {part: archive.read(f"{part}.engine") for part in INPUTS}
    except FileNotFoundError:
        raise FileNotFoundError(f"no weights at {path}") from None
    except (
        zipfile.BadZipFile,
        KeyError,
        UnicodeDecodeError,
        EOFError,
        RuntimeError,  # of methods that are not supported, and of encrypted files
        zlib.error,
    ) as error:
        raise ValueError(
            f"{path} is no complete engine file of spmtrack export --format tensorrt: {error}"
        ) from None
