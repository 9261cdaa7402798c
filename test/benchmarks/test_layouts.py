"""The benchmark of layouts: every layout is a row, and all compute the same."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from golden_model import golden_config, golden_model
from torch.testing import assert_close

import networks
from benchmarks import layouts as module
from benchmarks.layouts import benchmark_layouts, best_rate, stages
from networks import example, flop, layouts
from spmtrack_core.config import ModelConfig
from spmtrack_core.tracking.cuda_engine import CudaEngine
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.torch_engines import emulated

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short_best_rate(monkeypatch):
    """In place of a second of multiplying matrices for each precision."""
    monkeypatch.setattr(module, "best_rate", lambda place, name, _: best_rate(place, name, 0.01))


def measured(model, path, **options):
    """The report on ``model``."""
    options = {"device": "cpu", "seconds": 0.01} | options
    benchmark_layouts([str(model)], output=path, **options)
    return json.loads(path.read_text())


def test_every_layout_is_a_row(capsys, tiny_checkpoint, tmp_path):
    report = measured(tiny_checkpoint, tmp_path / "b.json", batch=[1, 3])
    precisions = ["float32"] if emulated("bfloat16", CPU) else ["float32", "bfloat16"]
    assert f"a matrix multiplication in {precisions[-1]}" in capsys.readouterr().out
    rows = [(row["layout"], row["precision"], row["batch"]) for row in report["rows"]]
    assert {row["precision"] for row in report["rows"]} == set(precisions)
    for precision in precisions:
        assert ("fused", precision, 3) in rows
        for layout in ("fused", "plain", "published", "vit", "tracker"):
            assert (layout, precision, 1) in rows
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in report["rows"])
    assert report["torch"] == torch.__version__
    assert cv2.imread(str(tmp_path / "b.png")) is not None


@pytest.mark.gpu
def test_every_layout_is_a_row_on_cuda(caplog, tiny_checkpoint, tmp_path):
    report = measured(tiny_checkpoint, tmp_path / "b.json", device="cuda", batch=[1, 3])
    assert not caplog.records  # no line was left out
    rows = {(row["layout"], row["precision"], row["batch"]): row for row in report["rows"]}
    for precision in ("bfloat16", "float16"):
        for layout in ("fused", "graph"):
            assert (layout, precision, 3) in rows
        for layout in ("plain", "published", "vit", "tracker"):
            assert rows[layout, precision, 1]["memory_bytes"] > 0
        assert rows["tracker", precision, 1]["upload_ms"] > 0


def test_measured_rows_are_kept_after_errors_and_ctrl_c(tiny_checkpoint, tmp_path, monkeypatch):
    """Without memory for one layout, the other rows come; Ctrl-C keeps the rows before it."""

    def no_memory(*_):
        raise RuntimeError("out of memory")

    def rows_of(name):
        report = json.loads((tmp_path / name).read_text())
        return [row["layout"] for row in report["rows"]]

    with monkeypatch.context() as patch:
        patch.setattr(networks, "PlainViT", no_memory)
        measured(tiny_checkpoint, tmp_path / "a.json", precision=["float32"])
    without_openvino = [layout for layout in rows_of("a.json") if layout != "openvino"]
    assert without_openvino == ["fused", "plain", "published"]

    with monkeypatch.context() as patch:
        patch.setattr(module, "layouts", no_memory)
        with pytest.raises(ValueError, match="nothing could be measured"):
            measured(tiny_checkpoint, tmp_path / "none.json", precision=["float32"])
    assert not (tmp_path / "none.json").exists()

    def broken_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "frame_times", broken_off)
    with pytest.raises(KeyboardInterrupt):
        measured(tiny_checkpoint, tmp_path / "b.json", precision=["float32"])
    without_openvino = [layout for layout in rows_of("b.json") if layout != "openvino"]
    assert without_openvino == ["fused", "plain", "published", "vit"]


@pytest.mark.parametrize("variant", ["default", "shared_expert", "route_compression"])
@torch.no_grad()
def test_all_layouts_compute_the_same(variant):
    name = f"model_{variant}_params"
    model, config = golden_model(name), golden_config(name)
    search, references, masks, state = example(config, 1, CPU)
    # the fused layout is measured on the first of sixteen targets, which are other images
    references = example(config, 16, CPU)[1][:1]
    results = {}
    for layout, run in layouts(model, config, torch.float32, CPU):
        results[layout] = run(search, references, masks, state)
    for layout in {"fused", "published", "openvino"} & results.keys():
        for ours, plain in zip(results[layout], results["plain"], strict=True):
            assert_close(ours, plain, atol=1e-5, rtol=0, msg=layout)
    assert results["vit"].shape[1] == 1 + 3 * 16 + 49


@torch.inference_mode()
def test_both_engines_have_the_same_stages(tiny_checkpoint):
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    found = []
    for place in ("host", "device"):
        tracker = load_tracker(tiny_checkpoint, "cpu")
        if place == "device":  # without a graph
            network = tracker.engine.model.network
            tracker.engine = CudaEngine(network, tracker.model_config, CPU)
        tracker.init(frame, (300, 200, 60, 80))
        found.append({name: stage() for name, stage in stages(tracker, frame).items()})
    host, device = found
    assert list(device) == ["upload", *host] == ["upload", "crop", "network", "choice"]
    assert_close(device["crop"][0][0], torch.from_numpy(host["crop"]), atol=1e-3, rtol=0)
    for name in ("network", "choice"):
        ours = tuple(map(torch.from_numpy, host[name]))
        assert_close(tuple(device[name]), ours, atol=1e-3, rtol=0)


def test_flop_counts_the_operations_of_the_paper():
    """363 GFLOP a frame for B, nearly all of them in matrix multiplications."""
    assert flop(ModelConfig()) == pytest.approx(363e9, rel=0.01)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"precision": ["int4"]}, ValueError, "precision must be one of"),
        ({"batch": [17]}, ValueError, "batch must be 1 to 16"),
        ({"model": ["nothing"]}, FileNotFoundError, "no weights 'nothing'"),
    ],
)
def test_wrong_options_raise_an_error_that_names_them(options, error, match):
    with pytest.raises(error, match=match):
        benchmark_layouts(**{"device": "cpu", "seconds": 0.01} | options)
