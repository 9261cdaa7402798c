"""What ONNX Runtime is asked to compute a network with, and what follows where it cannot.

No GPU is needed: ``Gpu`` stands for the sessions of onnxruntime-gpu, and the CPU computes.
"""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import TINY

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from spmtrack_core.config import TrackerConfig
from spmtrack_core.files import cache_folder
from spmtrack_core.runtimes.description import describe
from spmtrack_core.runtimes.onnx_model import LARGEST_BATCH, ONNX_FORMAT, OnnxSPMTrack
from spmtrack_core.tracking import host_engine
from spmtrack_core.tracking.loading import load_tracker

CPU, CUDA, TENSORRT = (f"{each}ExecutionProvider" for each in ("CPU", "CUDA", "Tensorrt"))
NETWORK = """
<ir_version: 8, opset_import: ["": 18]>
step (float[batch,3,64,64] search, float[batch,3,3,32,32] references, float[batch,3,2,2] masks,
      float[batch,1,32] state_token)
  => (float[batch,4,4] score_map, float[batch,4,4,4] boxes, float[batch,1,32] next_state_token)
{
  one = Constant <value_ints = [1]> ()
  all = Constant <value_ints = [1, 2, 3, 4]> ()
  pixels = Constant <value_ints = [2, 3]> ()
  last = Constant <value_ints = [-1]> ()
  cells = AveragePool <kernel_shape = [16, 16], strides = [16, 16]> (search)
  seen = ReduceMean <keepdims = 0> (cells, one)
  mean = ReduceMean (references, all)
  template = Squeeze (mean, pixels)
  marks = ReduceMean (masks, pixels)
  mark = ReduceMean (marks, one)
  part = Squeeze (mark, last)
  both = Mul (template, part)
  sum = Add (seen, both)
  score_map = Mul (sum, weight)
  corner = Unsqueeze (score_map, last)
  boxes = Concat <axis = -1> (corner, corner, corner, corner)
  next_state_token = Mul (state_token, weight)
}
"""
"""Not SPMTrack, but with its inputs and outputs; each output depends on its own target alone."""


def write_network(path, weight=1.0, tensors=None):
    """``NETWORK`` as a file of ``spmtrack export``; ``tensors`` names the file of its weight."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = onnx.parser.parse_model(NETWORK)
    array = np.full(1, weight, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, "weight"))
    about = SimpleNamespace(
        model_config=TINY, tracker_config=TrackerConfig(lost_threshold=0.0), provenance={}
    )
    onnx.helper.set_model_props(model, describe(ONNX_FORMAT, about))
    outside = {"save_as_external_data": True, "location": tensors, "size_threshold": 0}
    onnx.save(model, path, **(outside if tensors else {}))
    return path


class Gpu:
    """Stands for ``onnxruntime.InferenceSession`` of onnxruntime-gpu, with a GPU in a ``state``.

    ``works``: the session has the providers that it was asked for. ``without CUDA``, ``without
    TensorRT``: libraries are missing, and ONNX Runtime leaves out the provider without an error.
    ``without driver``: CUDA raises, and ONNX Runtime takes the CPU unless ``enable_fallback=0``.
    """

    def __init__(self, state):
        self.state, self.opened, self.on_cpu = state, [], onnxruntime.InferenceSession

    def __call__(self, path, options, providers, enable_fallback=1):
        asked = dict(each if isinstance(each, tuple) else (each, {}) for each in providers)
        self.opened.append((asked, options.intra_op_num_threads))
        names = list(asked)
        if self.state == "without driver" and names != [CPU]:
            if not enable_fallback:
                raise RuntimeError("CUDA failure 35: driver version is insufficient")
            names = [CPU]
        missing = {"without CUDA": {CUDA, TENSORRT}, "without TensorRT": {TENSORRT}}
        session = self.on_cpu(path, options, [CPU])
        names = [name for name in names if name not in missing.get(self.state, ())]
        session.get_providers = lambda: names
        return session


@pytest.fixture
def gpu(monkeypatch):
    """``onnxruntime`` becomes onnxruntime-gpu, with a GPU in the given state."""

    def install(state="works"):
        sessions = Gpu(state)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "InferenceSession", sessions)
        return sessions

    return install


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A network, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_network(tmp_path / "tiny.onnx")


def arrays(targets):
    """Inputs of ``NETWORK``, different for each target."""
    rng = np.random.default_rng(0)
    shapes = (3, 64, 64), (3, 3, 32, 32), (3, 2, 2), (1, 32)
    return [rng.random((targets, *shape)).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(
    ("device", "tensorrt", "providers", "computes"),
    [
        ("cpu", False, [CPU], "cpu"),
        ("auto", False, [CUDA, CPU], "cuda:0"),
        ("cuda", False, [CUDA, CPU], "cuda:0"),
        ("cuda:1", False, [CUDA, CPU], "cuda:1"),
        ("auto", True, [TENSORRT, CUDA, CPU], "cuda:0"),
        ("cuda:1", True, [TENSORRT, CUDA, CPU], "cuda:1"),  # CUDA for what TensorRT lacks
    ],
)
def test_the_device_of_a_network_is_the_one_that_was_asked_for(
    network, gpu, device, tensorrt, providers, computes
):
    sessions = gpu()
    model = OnnxSPMTrack(network, device, tensorrt=tensorrt)
    asked = sessions.opened[-1][0]
    assert (list(asked), model.device) == (providers, computes)
    assert {asked[each]["device_id"] for each in providers[:-1]} <= {computes[-1]}


MISSING = "libraries cannot be loaded; check the device, NVIDIA's driver.* device cpu"


@pytest.mark.parametrize(
    ("state", "device", "tensorrt", "error"),
    [
        ("without CUDA", "cuda", False, f"CUDA cannot run .*tiny.onnx on cuda:0: .*{MISSING}"),
        ("without CUDA", "cuda:1", False, f"CUDA cannot run .*tiny.onnx on cuda:1: .*{MISSING}"),
        ("without driver", "cuda", False, "CUDA cannot run .*on cuda:0: CUDA failure 35: driver"),
        ("without CUDA", "cuda", True, f"TensorRT cannot run .*{MISSING}"),
        ("without driver", "cuda", True, "TensorRT cannot run .*CUDA failure 35: driver"),
        # CUDA would compute, but not as was asked
        ("without TensorRT", "cuda", True, f"TensorRT cannot run .*{MISSING}"),
        # auto chooses a device, not a runtime
        ("without TensorRT", "auto", True, f"TensorRT cannot run .*{MISSING}"),
    ],
)
def test_a_gpu_that_cannot_compute_is_an_error(network, gpu, state, device, tensorrt, error):
    gpu(state)
    with pytest.raises(ValueError, match=error) as caught:
        OnnxSPMTrack(network, device, tensorrt=tensorrt)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "reason"),
    [("without CUDA", "libraries cannot be loaded"), ("without driver", "CUDA failure 35")],
)
def test_auto_takes_the_cpu_with_one_warning_where_the_gpu_cannot_compute(
    network, gpu, caplog, state, reason
):
    sessions = gpu(state)
    model = OnnxSPMTrack(network, "auto")
    model.threads = 2
    assert (model.device, model.threads) == ("cpu", 2)
    assert [list(asked) for asked, _ in sessions.opened] == [[CUDA, CPU], [CPU], [CPU]]
    (warning,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert reason in warning.message
    assert warning.message.endswith("; until then the CPU computes it")


def test_onnx_runtime_itself_is_not_believed(network, monkeypatch, caplog):
    """The real sessions of this ONNX Runtime, which claims to have CUDA and has none."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="CUDA cannot run"):
        OnnxSPMTrack(network, "cuda")
    with pytest.warns(UserWarning):
        assert OnnxSPMTrack(network, "auto").device == "cpu"
    assert "until then the CPU computes it" in caplog.text


@pytest.mark.parametrize(
    ("device", "tensorrt", "match"),
    [
        ("auto", False, "ONNX Runtime cannot read .*bad.onnx"),
        ("auto", True, "ONNX Runtime cannot read .*bad.onnx"),  # and no engine was begun
        ("cuda", False, "CUDA cannot run .*bad.onnx"),
    ],
)
def test_a_broken_file_is_not_taken_for_a_broken_gpu(
    tmp_path, gpu, caplog, device, tensorrt, match
):
    gpu()
    (tmp_path / "bad.onnx").write_text("no network")
    with pytest.raises(ValueError, match=match):
        OnnxSPMTrack(tmp_path / "bad.onnx", device, tensorrt=tensorrt)
    assert not caplog.records


def test_a_gpu_without_onnx_runtime_for_it_is_an_error_but_auto_is_not(
    network, monkeypatch, caplog
):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    for runtime, title in (("onnxruntime", "CUDA"), ("tensorrt", "TensorRT")):
        with pytest.raises(ValueError, match=f"no {title} in .*onnxruntime-gpu"):
            load_tracker(network, "cuda", runtime=runtime)
    with pytest.raises(ValueError, match="tensorrt runs on a GPU; got device 'cpu'"):
        load_tracker(network, "cpu", runtime="tensorrt")
    assert OnnxSPMTrack(network, "auto").session.get_providers() == [CPU]
    assert not caplog.records


@pytest.mark.parametrize(
    ("device", "runtime", "given", "sessions"),
    [
        ("cpu", "auto", 0, [0, 1, 2]),
        ("cpu", "auto", 2, [2]),
        ("cuda", "auto", 0, [0]),
        ("cuda", "tensorrt", 0, [0, 0]),  # the first reads the file on the CPU
    ],
)
def test_a_session_is_made_for_each_number_of_threads_on_the_cpu_alone(
    network, gpu, monkeypatch, device, runtime, given, sessions
):
    """On a GPU a session takes seconds, with TensorRT minutes, and its threads do nothing."""
    made = gpu().opened
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(host_engine, "WORTH", -1.0)  # two are always worth it
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    tracker = load_tracker(network, device, threads=given, runtime=runtime)
    tracker.warm_up()
    assert ([threads for _, threads in made], tracker.threads) == (sessions, sessions[-1])


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        # path below the folder, weight, file of its tensor
        (("a/x.onnx", 1.0, None), ("b/x.onnx", 1.0, None), True),  # a copy
        (("a/x.onnx", 1.0, None), ("b/x.onnx", 2.0, None), False),
        (("a/x.onnx", 1.0, None), ("a/x.onnx", 2.0, None), False),  # exported once more
        (("a/x.onnx", 1.0, "x.onnx.data"), ("b/x.onnx", 2.0, "x.onnx.data"), False),
        (("a/x.onnx", 1.0, "old.onnx.data"), ("b/x.onnx", 2.0, "old.onnx.data"), False),  # renamed
        (("a/x.onnx", 1.0, None), ("a/y.onnx", 2.0, "y.onnx.data"), False),
    ],
)
def test_networks_of_other_weights_have_other_engines(
    tmp_path, network, gpu, first, second, shared
):
    """ONNX Runtime takes an engine for that of any file with its name and its names of tensors."""
    sessions, folders = gpu(), []
    for path, *about in (first, second):
        OnnxSPMTrack(write_network(tmp_path / path, *about), "cuda", tensorrt=True)
        options = sessions.opened[-1][0][TENSORRT]
        assert options["trt_engine_cache_enable"]
        folders.append(options["trt_engine_cache_path"])
    assert (folders[0] == folders[1]) is shared
    assert all(os.path.dirname(each) == str(cache_folder() / "tensorrt") for each in folders)
    assert all(map(os.path.isdir, folders))


def test_an_engine_stays_when_another_export_is_put_beside_its_file(tmp_path, network, gpu):
    sessions = gpu()
    OnnxSPMTrack(network, "cuda", tensorrt=True)
    write_network(tmp_path / "large.onnx", 2.0, "large.onnx.data")
    OnnxSPMTrack(network, "cuda", tensorrt=True)
    first, second = (asked for asked, _ in sessions.opened if TENSORRT in asked)
    assert first == second


@pytest.mark.parametrize("fault", ["no folder", "no file", "half a cache"])
def test_without_a_cache_an_engine_is_built_each_time_with_one_warning(
    network, gpu, monkeypatch, caplog, fault
):
    home = network.parent / "cache"
    match fault:
        case "no folder":
            home.write_text("a file")
        case "half a cache":
            (home / "spmtrack").mkdir(parents=True)
            (home / "spmtrack" / "tensorrt").write_text("a file")
        case "no file":  # as in a folder of another user
            monkeypatch.setattr("tempfile._os.open", no_file)
    sessions = gpu()
    OnnxSPMTrack(network, "cuda", tensorrt=True)
    options = sessions.opened[-1][0][TENSORRT]
    assert not [key for key in options if "cache" in key]
    (warning,) = caplog.records
    assert "builds an engine at every start: cannot write" in warning.message


def no_file(*_, **__):
    raise PermissionError(13, "Permission denied")


def test_the_minutes_of_the_first_engine_are_announced(network, gpu, caplog):
    sessions = gpu()
    OnnxSPMTrack(network, "cuda", tensorrt=True)
    assert "once; this takes minutes" in caplog.text
    caplog.clear()
    folder = sessions.opened[-1][0][TENSORRT]["trt_engine_cache_path"]
    open(f"{folder}/graph_sm87.engine", "wb").close()
    OnnxSPMTrack(network, "cuda", tensorrt=True)
    assert not caplog.records


def test_one_engine_is_for_all_numbers_of_targets(network, gpu):
    sessions = gpu()
    model = OnnxSPMTrack(network, "cuda", tensorrt=True)
    options = sessions.opened[-1][0][TENSORRT]

    def shapes(n):
        return f"search:{n}x3x64x64,references:{n}x3x3x32x32,masks:{n}x3x2x2,state_token:{n}x1x32"

    assert options["trt_profile_min_shapes"] == options["trt_profile_opt_shapes"] == shapes(1)
    assert options["trt_profile_max_shapes"] == shapes(LARGEST_BATCH)
    assert model.largest_batch == LARGEST_BATCH


@pytest.mark.parametrize(
    ("targets", "passes"),
    [
        (1, [1]),
        (LARGEST_BATCH, [LARGEST_BATCH]),
        (LARGEST_BATCH + 1, [LARGEST_BATCH, 1]),
        (2 * LARGEST_BATCH, [LARGEST_BATCH, LARGEST_BATCH]),
        (20, [LARGEST_BATCH, LARGEST_BATCH, 4]),
    ],
)
def test_more_targets_than_an_engine_takes_are_found_in_several_passes(
    network, gpu, targets, passes
):
    gpu()
    inputs = arrays(targets)
    expected = OnnxSPMTrack(network)(*inputs)
    model, sizes = OnnxSPMTrack(network, "cuda", tensorrt=True), []
    run = model.session.run
    model.session.run = lambda names, feed: sizes.append(len(feed["search"])) or run(names, feed)
    found = model(*inputs)
    assert sizes == passes
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(np.unique(found[0].mean((1, 2)))) == targets  # each target has a result of its own


def test_the_cpu_takes_any_number_of_targets_in_one_pass(network):
    model = OnnxSPMTrack(network)
    assert model.largest_batch is None
    assert [len(each) for each in model(*arrays(2 * LARGEST_BATCH + 1))] == [17, 17, 17]
