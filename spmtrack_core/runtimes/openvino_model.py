"""The inference layout, run by OpenVINO: on CPUs about twice as fast as PyTorch.

A checkpoint is converted once, by PyTorch, and kept; from then on PyTorch is not even imported.
The files of an exported network are read as they are.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np

import spmtrack_core
from spmtrack_core.files import cache_folder, one_line, sha256_of
from spmtrack_core.runtimes.description import ENTRY, Description, description_of
from spmtrack_core.runtimes.exported import description_of_both, files_of
from spmtrack_core.runtimes.inference import INPUTS, Array

LOG = logging.getLogger(__name__)
OPENVINO_FORMAT = "spmtrack-openvino-2"
"""Of the converted networks; a change of the inference layout raises its number."""
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""OpenVINO's names of the precisions. Without one it chooses bfloat16 where the CPU has it."""
CACHE_BYTES = 4_000_000_000
"""Of converted and compiled networks, the last converted ones aside."""
Networks = Mapping[str, Any]


class OpenVinoSPMTrack:
    """Converted or exported networks, with settings and provenance.

    Networks are compiled for one target, when they are first used or by ``compile``, in a second:
    with fixed shapes they are faster, and one target after the other takes no longer than all at
    once with one thread. ``cache_folder()`` keeps what was compiled.

    Args:
        networks: OpenVINO's networks by the names in ``INPUTS``.
        about: their description.
        precision: of the matrix multiplications: ``float32``, ``bfloat16`` or ``float16``.
        threads: of the CPU; 0: as many as OpenVINO takes by itself.

    """

    runtime = "openvino"
    device = "cpu"

    def __init__(
        self,
        networks: Networks,
        about: Description,
        precision: str = "float32",
        threads: int = 0,
    ) -> None:
        self.model_config, self.tracker_config, self.provenance = about
        self._threads = threads
        self._core = core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            # the threads of several programs would be pinned to the same cores
            "ENABLE_CPU_PINNING": "NO",
        }
        self._networks = networks
        self._compiled: dict[tuple[str, int], Any] = {}
        with contextlib.suppress(OSError):
            folder = cache_folder() / "compiled"
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                self._settings["CACHE_DIR"] = str(folder)
        # of the inputs: search, (B, R, ...) each, (B, 1, C)
        _, *references, state = map(_sizes, networks["locate"].inputs)
        self.no_state: Array = np.zeros((1, *state), np.float32)
        self.reference_shapes = tuple(tuple(shape[1:]) for shape in references)

    @property
    def threads(self) -> int:
        """See ``InferenceModel``."""
        return self._threads

    @threads.setter
    def threads(self, threads: int) -> None:
        kept = {key: each for key, each in self._compiled.items() if key[1] == threads}
        self._compiled = kept or self._compiled
        self._threads = threads

    def encode_reference(self, references: Array, masks: Array) -> tuple[Array, ...]:
        """See ``InferenceModel``."""
        return self._run("encode", references, masks)

    def __call__(self, search: Array, *references_and_state: Array) -> tuple[Array, ...]:
        """See ``InferenceModel``."""
        return self._run("locate", search, *references_and_state)

    def compile(self) -> None:
        """Compile now, for one thread where their number is open; raises ``RuntimeError``."""
        for name in self._networks:
            self._request(name, self.threads or 1)

    def _request(self, name: str, threads: int) -> Any:
        """The compiled network for one target."""
        key = name, threads
        if key not in self._compiled:
            network = self._networks[name].clone()
            network.reshape({each: [1, *_sizes(each)] for each in network.inputs})
            settings = self._settings | {"INFERENCE_NUM_THREADS": str(threads)}
            compiled = self._core.compile_model(network, "CPU", settings)
            self._compiled[key] = compiled.create_infer_request()
            with contextlib.suppress(OSError):
                remove_oldest(cache_folder())
        return self._compiled[key]

    def _run(self, name: str, *inputs: Array) -> tuple[Array, ...]:
        request, found = self._request(name, self.threads), []
        for index in range(len(inputs[0])):
            one = [np.ascontiguousarray(each[index : index + 1]) for each in inputs]
            # the request keeps its outputs and will overwrite them
            found.append([each.copy() for each in request.infer(one).values()])
        return tuple(map(np.concatenate, zip(*found, strict=True)))


def _sizes(tensor: Any) -> list[int]:
    """Of an input of a network, without the number of targets before them."""
    return [size.get_length() for size in list(tensor.partial_shape)[1:]]


def imported() -> Any:
    """OpenVINO, an extra; ``RuntimeError`` where it is not installed."""
    try:
        import openvino
    except ImportError as error:
        raise RuntimeError(
            "runtime openvino needs OpenVINO, the extra openvino of this package: "
            f"pip install 'spmtrack_ros[openvino]', or only pip install openvino ({error})"
        ) from None
    return openvino


def core() -> Any:
    """OpenVINO's core, one for the process; raises as ``imported``.

    Its CPU plugin gives the thread that loads it another stack for signal handlers. Unloaded by
    another thread, or as the first of two, it leaves that stack in use and unmaps it: the next
    signal, a Ctrl-C, would end the process without a word. So it is never unloaded.
    """
    return _core_of(imported())


@functools.cache
def _core_of(openvino: ModuleType) -> Any:
    return openvino.Core()


def converted_description(networks: Networks) -> Description:
    """What ``to_openvino`` wrote into its networks; ``ValueError`` where that is damaged."""
    metadata = {ENTRY: networks["locate"].get_rt_info(ENTRY).astype(str)}
    return description_of(metadata, OPENVINO_FORMAT)


def exported_networks(path: Path) -> tuple[Networks, Description]:
    """The networks of an .onnx file of ``spmtrack export``, and of the one beside it.

    Raises ``FileNotFoundError`` where a file is absent, ``ValueError`` where it is broken or not
    from ``spmtrack export``, and ``RuntimeError`` where OpenVINO is not installed.
    """
    read, networks, metadata = core().read_model, {}, {}
    for part, file in files_of(path).items():
        try:
            networks[part] = read(file)
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot read {file}: {one_line(error)[:200]}") from None
        keys = ["framework", ENTRY]
        known = networks[part].has_rt_info(keys)
        metadata[part] = {ENTRY: networks[part].get_rt_info(keys).astype(str)} if known else {}
    try:
        return networks, description_of_both(metadata)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None


def openvino_networks(
    weights: Path, trunk: Path | None, convert: Callable[[], Networks]
) -> Networks:
    """The networks of a weight file from ``cache_folder()``, or converted and kept there.

    Raises ``RuntimeError`` where OpenVINO is not installed, and whatever ``convert`` raises.
    """
    openvino = imported()
    versions = f"{OPENVINO_FORMAT} {openvino.__version__}{spmtrack_core.__version__}"
    digest = sha256_of(*filter(None, (weights, trunk)), start=versions)
    try:
        folder = cache_folder()
    except OSError as error:
        LOG.warning("the converted network is not kept: %s", error)
        return convert()
    paths = {part: folder / f"openvino-{digest[:16]}-{part}.xml" for part in INPUTS}
    if all(path.is_file() for path in paths.values()):
        try:
            kept = {part: core().read_model(path) for part, path in paths.items()}
            converted_description(kept)  # raises where it is damaged
            with contextlib.suppress(OSError):
                for path in paths.values():  # needed now, where reading leaves no trace
                    os.utime(path)
                    os.utime(path.with_suffix(".bin"))
            return kept
        except (RuntimeError, ValueError) as error:
            why = one_line(error)[:200]  # of several lines
            LOG.warning("%s cannot be read and is made again: %s", paths["locate"], why)
    networks = convert()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as made:
            for part, path in paths.items():
                openvino.save_model(networks[part], Path(made, path.name), compress_to_fp16=False)
            for each in sorted(Path(made).iterdir()):  # .bin before .xml, its reader
                os.replace(each, folder / each.name)
        # as later starts: what is compiled now serves them too
        networks = {part: core().read_model(path) for part, path in paths.items()}
    except (OSError, RuntimeError) as error:
        LOG.warning("the converted network is not kept in %s: %s", folder, error)
    return networks


def remove_oldest(folder: Path, limit: int = CACHE_BYTES) -> None:
    """Remove what OpenVINO needed longest ago beyond ``limit`` bytes.

    The converted networks that were needed last stay. Whoever misses a file makes it again.
    """
    needed = []
    for path in (*folder.glob("openvino-*"), *folder.glob("compiled/*.blob")):
        with contextlib.suppress(FileNotFoundError):  # another process removes files too
            status = path.stat()
            needed.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    needed.sort(reverse=True)
    converted = [path.name for *_, path in needed if path.parent == folder]
    last = converted[0].rpartition("-")[0] if converted else None
    total = 0
    for _, size, path in needed:
        total += size
        if total > limit and path.name.rpartition("-")[0] != last:
            path.unlink(missing_ok=True)
    for path in folder.glob("tmp*"):  # of a conversion that was killed
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir() and path.stat().st_mtime < time.time() - 86_400:
                shutil.rmtree(path, ignore_errors=True)
