"""Engines give the numbers of their networks, for any number of targets, and free their memory.

No GPU is needed: in place of TensorRT and CUDA stand objects with the calls that NVIDIA documents.
An engine's bytes are those of an .onnx file, memory of the GPU is memory of the host, and ONNX
Runtime computes.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import zipfile
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from exported_network import SETTINGS, arrays, write_network

from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.runtimes.description import ENTRY, describe
from spmtrack_core.runtimes.exported import second_file
from spmtrack_core.runtimes.inference import INPUTS, OUTPUTS
from spmtrack_core.runtimes.onnx_model import OnnxSPMTrack
from spmtrack_core.runtimes.tensorrt_model import (
    ENGINE_FORMAT,
    LARGEST_BATCH,
    TensorRtSPMTrack,
    read_engines,
    write_engines,
)
from spmtrack_core.tracking.loading import load_tracker

CALLS = (
    "cudaFree cudaGetDeviceCount cudaGetErrorString cudaMalloc cudaMemcpyAsync cudaSetDevice "
    "cudaStreamCreate cudaStreamDestroy cudaStreamSynchronize"
).split()


class Stream:
    """A stream of CUDA becomes an integer, and is none."""

    def __int__(self):
        return id(self)


class Cuda(ModuleType):
    """``cuda.bindings.runtime`` of a computer with ``count`` GPUs.

    The call ``fails`` fails, once it has succeeded ``succeeds`` times.
    """

    cudaError_t = SimpleNamespace(cudaSuccess=0, cudaErrorMemoryAllocation=2)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self, count=2):
        super().__init__("cuda.bindings.runtime")
        self.count, self.fails, self.succeeds = count, None, 0
        self.memory, self.streams, self.devices = {}, set(), []
        for name in CALLS:
            setattr(self, name, self._guarded(name, getattr(self, f"_{name[4:].lower()}")))

    def _guarded(self, name, call):
        def guarded(*arguments):
            if name == self.fails:
                self.succeeds -= 1
                if self.succeeds < 0:
                    return 2, None
            return call(*arguments)

        return guarded

    def _geterrorstring(self, code):
        return 0, b"out of memory"

    def _getdevicecount(self):
        return 0, self.count

    def _setdevice(self, index):
        self.devices.append(index)
        return (0,)

    def _malloc(self, size):
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return 0, ctypes.addressof(buffer)

    def _free(self, address):
        del self.memory[address]
        return (0,)

    def _streamcreate(self):
        stream = Stream()
        self.streams.add(stream)
        return 0, stream

    def _streamdestroy(self, stream):
        self.streams.remove(stream)
        return (0,)

    def _streamsynchronize(self, stream):
        assert stream in self.streams
        return (0,)

    def _memcpyasync(self, to, source, size, kind, stream):
        assert stream in self.streams
        (device,) = (to,) if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice else (source,)
        assert size <= len(self.memory[device])
        ctypes.memmove(to, source, size)
        return (0,)


class Context:
    """An execution context: reads its inputs, and writes its outputs, at the given addresses."""

    def __init__(self, engine, fails):
        self.engine, self.fails = engine, fails
        self.addresses, self.shapes = {}, {}

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return isinstance(address, int)

    def set_input_shape(self, name, shape):
        fits = shape[1:] == self.engine.shapes[name][1:] and 1 <= shape[0] <= LARGEST_BATCH
        if fits:
            self.shapes[name] = shape
        return fits

    def execute_async_v3(self, stream):
        assert type(stream) is int
        if self.fails == "pass":
            return False
        feed = {
            name: np.ctypeslib.as_array(
                ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_float)), shape
            ).copy()
            for name, shape in self.shapes.items()
        }
        names = [each.name for each in self.engine.session.get_outputs()]
        for name, array in zip(names, self.engine.session.run(names, feed), strict=True):
            ctypes.memmove(self.addresses[name], array.ctypes.data, array.nbytes)
        return True


class Engine:
    def __init__(self, serialized, fails):
        self.session, self.fails = onnxruntime.InferenceSession(serialized), fails
        both = (*self.session.get_inputs(), *self.session.get_outputs())
        self.shapes = {each.name: (-1, *each.shape[1:]) for each in both}

    def get_tensor_shape(self, name):
        return self.shapes.get(name, ())  # none of a name that it does not have

    def create_execution_context(self):
        return None if self.fails == "memory" else Context(self, self.fails)


class TensorRt(ModuleType):
    """``tensorrt``; what ``fails`` is the driver, the version of an engine, memory or a pass."""

    __version__ = "11.4.0"

    def __init__(self):
        super().__init__("tensorrt")
        self.fails = ""
        self.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})

    def Runtime(self, _):
        if self.fails == "driver":
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return SimpleNamespace(deserialize_cuda_engine=self._read)

    def _read(self, serialized):
        return None if self.fails == "version" else Engine(serialized, self.fails)


@pytest.fixture
def gpu(monkeypatch):
    tensorrt, cuda = TensorRt(), Cuda()
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = cuda
    for name, module in (("tensorrt", tensorrt), ("cuda.bindings", bindings)):
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(tensorrt=tensorrt, cuda=cuda)


@pytest.fixture
def network(tmp_path):
    """An .onnx file and an engine file of it."""
    exported = write_network(tmp_path / "tiny.onnx")
    files = {"encode": second_file(exported), "locate": exported}
    engines = {part: file.read_bytes() for part, file in files.items()}
    write_engines(tmp_path / "tiny.engine", describe(ENGINE_FORMAT, SETTINGS)[ENTRY], engines)
    return exported


@pytest.mark.parametrize("targets", [1, LARGEST_BATCH, LARGEST_BATCH + 1, 20])
def test_any_number_of_targets_has_the_numbers_of_the_network(network, gpu, targets):
    model, expected = TensorRtSPMTrack(network.with_suffix(".engine")), OnnxSPMTrack(network)
    assert (model.runtime, model.device, model.threads) == ("tensorrt", "cuda:0", 0)
    assert model.reference_shapes == expected.reference_shapes
    assert model.no_state.tolist() == expected.no_state.tolist()
    reference, located = arrays(targets)
    for _ in range(2):
        for part, inputs in (("encode_reference", reference), ("__call__", located)):
            ours, theirs = getattr(model, part)(*inputs), getattr(expected, part)(*inputs)
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_tracker_runs_an_engine_file_as_it_runs_an_onnx_file(network, gpu):
    frames = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), np.uint8)
    found = []
    for weights in (network.with_suffix(".engine"), network):
        tracker = load_tracker(weights, "auto")
        tracker.warm_up(3)
        tracker.init(frames[0], (30, 20, 40, 30))
        found.append([(r.box_xywh, r.confidence) for r in map(tracker.update, frames[1:])])
        assert tracker.config == SETTINGS.tracker_config
    assert found[0] == found[1]


def test_memory_of_the_gpu_is_given_back(network, gpu):
    model = TensorRtSPMTrack(network.with_suffix(".engine"), "cuda:1")
    tensors = sum(len(INPUTS[part]) + len(OUTPUTS[part]) for part in INPUTS)
    assert (len(gpu.cuda.memory), len(gpu.cuda.streams)) == (tensors, 2)
    model(*arrays(1)[1])
    assert (model.device, set(gpu.cuda.devices)) == ("cuda:1", {1})
    del model
    gc.collect()
    assert not gpu.cuda.memory and not gpu.cuda.streams


def test_memory_is_given_back_where_it_does_not_suffice(network, gpu):
    gpu.cuda.fails, gpu.cuda.succeeds = "cudaMalloc", 4
    with pytest.raises(RuntimeError, match="CUDA failed: out of memory"):
        TensorRtSPMTrack(network.with_suffix(".engine"))
    gc.collect()
    assert not gpu.cuda.memory and not gpu.cuda.streams


@pytest.mark.parametrize(
    ("fault", "error", "match"),
    [
        ("other version", ValueError, r"TensorRT 11\.4\.0 cannot run .*; build it here"),
        ("no engine", ValueError, "is no complete engine file of spmtrack export"),
        ("cut", ValueError, "is no complete engine file of spmtrack export"),
        ("one part", ValueError, "is no complete engine file .*locate.engine"),
        ("compressed", ValueError, "is no complete engine file .*decompressing"),
        ("encrypted", ValueError, "is no complete engine file .*encrypted"),
        ("foreign", ValueError, f"cannot be used: it is no {ENGINE_FORMAT} network"),
        ("third GPU", ValueError, "cuda:2 not found; CUDA devices available: 2"),
        ("cpu", ValueError, "tensorrt runs on cuda or cuda:N; got device 'cpu'"),
        ("no CUDA", RuntimeError, "CUDA failed"),
        ("no driver", RuntimeError, "TensorRT cannot use a GPU here: .*returned nullptr"),
        ("no memory", RuntimeError, "TensorRT has not enough memory on the GPU"),
        ("exchanged", ValueError, "cannot be used: search has the shape"),
        ("not installed", RuntimeError, "needs NVIDIA's tensorrt, 10 or later, and cuda-python"),
        ("onnxruntime", ValueError, r"runtime onnxruntime runs \.onnx files"),
        ("precision", ValueError, "stores its own trunk and precision"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(network, gpu, monkeypatch, fault, error, match):
    path, options = network.with_suffix(".engine"), {"device": "cuda"}
    match fault:
        case "other version":
            gpu.tensorrt.fails = "version"
        case "no driver":
            gpu.tensorrt.fails = "driver"
        case "no memory":
            gpu.tensorrt.fails = "memory"
        case "exchanged":
            settings, engines = read_engines(path)
            write_engines(path, settings, dict.fromkeys(engines, engines["encode"]))
        case "no engine":
            path.write_text("no engine")
        case "cut":
            path.write_bytes(path.read_bytes()[:-99])
        case "compressed":  # by another program, and damaged
            settings, _ = read_engines(path)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("settings.json", settings)
            content = path.read_bytes()
            start = content.index(b"settings.json") + len("settings.json")
            path.write_bytes(content[:start] + b"\xff\xff" + content[start + 2 :])
        case "encrypted":
            content = bytearray(path.read_bytes())
            content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag of the first file
            content[6] |= 1
            path.write_bytes(content)
        case "one part":
            write_engines(path, "{}", {"encode": b""})
        case "foreign":
            write_engines(path, "{}", dict.fromkeys(INPUTS, b""))
        case "third GPU":
            options["device"] = "cuda:2"
        case "cpu":
            options["device"] = "cpu"
        case "no CUDA":
            gpu.cuda.fails = "cudaGetDeviceCount"
        case "not installed":
            monkeypatch.setitem(sys.modules, "tensorrt", None)
        case "onnxruntime":
            options["runtime"] = "onnxruntime"
        case "precision":
            options["precision"] = "float16"
    with pytest.raises(error, match=match) as caught:
        load_tracker(path, **options)
    assert "\n" not in str(caught.value)


def test_a_pass_that_fails_is_an_error(network, gpu):
    gpu.tensorrt.fails = "pass"
    model = TensorRtSPMTrack(network.with_suffix(".engine"))
    with pytest.raises(RuntimeError, match="TensorRT could not compute the network"):
        model(*arrays(1)[1])


def test_an_input_of_another_shape_is_refused(network, gpu):
    """Its bytes would overflow the memory of the GPU."""
    model, (search, *others) = TensorRtSPMTrack(network.with_suffix(".engine")), arrays(1)[1]
    wide = np.zeros((1, 3, 99, 99), np.float32)
    with pytest.raises(ValueError, match=r"search has the shape \(1, 3, 99, 99\), expected"):
        model(wide, *others)
    with pytest.raises(ValueError, match="references has the shape"):
        model(np.concatenate((search, search)), *others)


def test_the_calls_are_those_of_nvidia():
    runtime = pytest.importorskip(
        "cuda.bindings.runtime", reason="PyTorch brings cuda-bindings on Linux alone"
    )
    assert [name for name in CALLS if not hasattr(runtime, name)] == []
    assert runtime.cudaError_t.cudaSuccess == 0
    kinds = runtime.cudaMemcpyKind
    assert int(kinds.cudaMemcpyHostToDevice) == 1 and int(kinds.cudaMemcpyDeviceToHost) == 2


def test_an_engine_file_is_a_zip_that_other_programs_can_read(network):
    with zipfile.ZipFile(network.with_suffix(".engine")) as archive:
        assert archive.namelist() == ["settings.json", "encode.engine", "locate.engine"]
        assert archive.read("locate.engine") == network.read_bytes()


@pytest.mark.gpu
def test_an_engine_on_a_gpu_gives_the_numbers_of_onnx_runtime(tiny_checkpoint, tmp_path):
    pytest.importorskip("tensorrt", reason="NVIDIA's tensorrt is not installed")
    export = pytest.importorskip("spmtrack_core.export")
    checkpoint = load_checkpoint(tiny_checkpoint)
    for name, write in (("x.onnx", export.export_onnx), ("x.engine", export.export_tensorrt)):
        write(checkpoint, tmp_path / name, export.torch.float32)
    by_tensorrt = TensorRtSPMTrack(tmp_path / "x.engine")
    expected = OnnxSPMTrack(tmp_path / "x.onnx")
    config, rng = checkpoint.model_config, np.random.default_rng(0)
    for targets in (1, LARGEST_BATCH + 1):

        def normal(*shape, targets=targets):
            return rng.standard_normal((targets, *shape)).astype(np.float32)

        mask = (normal(*config.template_grid_hw) > 0).astype(np.float32)
        reference = normal(3, *config.template_hw), mask
        references = (normal(3, *shape) for shape in expected.reference_shapes)
        located = normal(3, *config.search_hw), *references, normal(1, config.embed_dim)
        ours = *by_tensorrt.encode_reference(*reference), *by_tensorrt(*located)
        theirs = *expected.encode_reference(*reference), *expected(*located)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)
