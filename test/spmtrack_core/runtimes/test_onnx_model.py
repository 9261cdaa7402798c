"""What ONNX Runtime is asked to compute a network with, and what follows where it cannot.

No GPU is needed: ``Gpu`` stands for the sessions of onnxruntime-gpu, and the CPU computes.
"""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from exported_network import arrays, write_network

from spmtrack_core.runtimes.exported import second_file
from spmtrack_core.runtimes.onnx_model import CPU, CUDA, OnnxSPMTrack
from spmtrack_core.tracking import host_engine
from spmtrack_core.tracking.loading import load_tracker


class Gpu:
    """Stands for ``onnxruntime.InferenceSession`` of onnxruntime-gpu, with a GPU in a ``state``.

    ``works``: the session has the providers that it was asked for. ``without CUDA``: libraries
    are missing, and ONNX Runtime leaves out the provider without an error. ``without driver``:
    CUDA raises, and ONNX Runtime takes the CPU unless ``enable_fallback=0``.
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
        session = self.on_cpu(path, options, [CPU])
        names = [name for name in names if self.state != "without CUDA" or name == CPU]
        session.get_providers = lambda: names
        return session


@pytest.fixture
def gpu(monkeypatch):
    """``onnxruntime`` becomes onnxruntime-gpu, with a GPU in the given state."""

    def install(state="works"):
        sessions = Gpu(state)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "InferenceSession", sessions)
        return sessions

    return install


@pytest.fixture
def network(tmp_path):
    return write_network(tmp_path / "tiny.onnx")


@pytest.mark.parametrize(
    ("device", "providers", "computes"),
    [
        ("cpu", [CPU], "cpu"),
        ("auto", [CUDA, CPU], "cuda:0"),
        ("cuda", [CUDA, CPU], "cuda:0"),
        ("cuda:1", [CUDA, CPU], "cuda:1"),  # the CPU for what CUDA lacks
    ],
)
def test_the_device_of_a_network_is_the_one_that_was_asked_for(
    network, gpu, device, providers, computes
):
    sessions = gpu()
    model = OnnxSPMTrack(network, device)
    assert model.device == computes
    for asked, _ in sessions.opened:  # of both networks
        assert list(asked) == providers
        assert {asked[each]["device_id"] for each in providers[:-1]} <= {computes[-1]}


@pytest.mark.parametrize(
    ("state", "device", "error"),
    [
        (
            "without CUDA",
            "cuda:1",
            "CUDA cannot run .*tiny.*onnx on cuda:1: .*libraries cannot be loaded; check the "
            "device, NVIDIA's driver.* device cpu",
        ),
        ("without driver", "cuda", "CUDA cannot run .*on cuda:0: CUDA failure 35: driver"),
    ],
)
def test_a_gpu_that_cannot_compute_is_an_error(network, gpu, state, device, error):
    gpu(state)
    with pytest.raises(ValueError, match=error) as caught:
        OnnxSPMTrack(network, device)
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
    asked = [list(asked) for asked, _ in sessions.opened]
    assert asked == [[CUDA, CPU], [CPU], [CPU], [CPU], [CPU]]  # both networks, twice
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


@pytest.mark.parametrize("broken", ["tiny.onnx", "tiny.references.onnx"])
@pytest.mark.parametrize(
    ("device", "match"), [("auto", "ONNX Runtime cannot read"), ("cuda", "CUDA cannot run")]
)
def test_a_broken_file_is_not_taken_for_a_broken_gpu(network, gpu, caplog, device, match, broken):
    gpu()
    network.with_name(broken).write_text("no network")
    with pytest.raises(ValueError, match=f"{match} .*{broken}"):
        OnnxSPMTrack(network, device)
    assert not caplog.records


def test_a_gpu_without_onnx_runtime_for_it_is_an_error_but_auto_is_not(
    network, monkeypatch, caplog
):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(ValueError, match=r"no CUDA in .*onnxruntime-gpu"):
        load_tracker(network, "cuda", runtime="onnxruntime")
    model = OnnxSPMTrack(network, "auto")
    assert {tuple(each.get_providers()) for each in model.sessions.values()} == {(CPU,)}
    assert not caplog.records


@pytest.mark.parametrize(
    ("device", "given", "threads"), [("cpu", 0, [0, 1, 2]), ("cpu", 2, [2]), ("cuda", 0, [0])]
)
def test_sessions_are_made_for_each_number_of_threads_on_the_cpu_alone(
    network, gpu, monkeypatch, device, given, threads
):
    """On a GPU a session takes seconds, and its threads do nothing."""
    made = gpu().opened
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(host_engine, "WORTH", -1.0)  # two are always worth it
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    tracker = load_tracker(network, device, threads=given)
    tracker.warm_up()
    assert [count for _, count in made[::2]] == [count for _, count in made[1::2]] == threads
    assert tracker.threads == threads[-1]


@pytest.mark.parametrize("targets", [1, 17])
def test_the_targets_of_one_pass_are_independent(network, targets):
    model = OnnxSPMTrack(network)
    assert model.reference_shapes == ((4, 32),)
    assert model.no_state.shape == (1, 1, 32)
    reference, located = arrays(targets)
    (encoded,) = model.encode_reference(*reference)
    found = model(*located)
    assert [len(each) for each in (encoded, *found)] == [targets] * 4
    for one in range(targets):
        part = slice(one, one + 1)
        again = (
            *model.encode_reference(*(each[part] for each in reference)),
            *model(*(each[part] for each in located)),
        )
        for ours, whole in zip(again, (encoded, *found), strict=True):
            np.testing.assert_allclose(ours, whole[part], rtol=1e-6)
    assert len(np.unique(found[0].mean((1, 2)))) == targets


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("one file", r"tiny\.onnx has no tiny\.references\.onnx beside it"),
        ("other weights", "its two files are of different weights: export again"),
        ("exchanged", "the file of the network to encode has another: export again"),
        ("the second", r"encodes reference frames: give tiny\.onnx"),
        ("neither", r"no weights at .*absent\.onnx|neither a file nor bundled"),
    ],
)
def test_two_files_that_do_not_belong_together_are_named(network, tmp_path, fault, error, runtime):
    pytest.importorskip(runtime)
    second = second_file(network)
    match fault:
        case "one file":
            second.unlink()
        case "other weights":
            other = write_network(tmp_path / "other" / "tiny.onnx", weight=2.0)
            second_file(other).replace(second)
        case "exchanged":
            second.write_bytes(network.read_bytes())
        case "the second":
            network = second
        case "neither":
            network = tmp_path / "absent.onnx"
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        load_tracker(network, "cpu", runtime=runtime)
