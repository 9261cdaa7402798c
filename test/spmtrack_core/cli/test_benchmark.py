"""``spmtrack benchmark`` and ``soak``: every layout is measured, and growth is noticed."""

from __future__ import annotations

import importlib
import json

import cv2
import numpy as np
import pytest
import torch
from golden_model import golden_config, golden_model
from torch.testing import assert_close

from spmtrack_core.config import ModelConfig
from spmtrack_core.evaluation.benchmark import example, flop, layouts, stages
from spmtrack_core.tracking.cuda_engine import CudaEngine
from spmtrack_core.tracking.loading import emulated, load_tracker

CPU = torch.device("cpu")


def test_every_layout_is_a_row(spmtrack, tiny_checkpoint, tmp_path):
    code, out, err = spmtrack(
        "benchmark", "--model", tiny_checkpoint, "--seconds", "0.01", "--device", "cpu",
        "--batch", "1", "--batch", "3", "-o", tmp_path / "b.json",
    )  # fmt: skip
    assert code == 0, err
    precisions = ["float32"] if emulated("bfloat16", CPU) else ["float32", "bfloat16"]
    assert f"a product of matrices in {precisions[-1]}" in out
    report = json.loads((tmp_path / "b.json").read_text())
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
def test_every_layout_is_a_row_on_cuda(spmtrack, tiny_checkpoint, tmp_path):
    code, _, err = spmtrack(
        "benchmark", "--model", tiny_checkpoint, "--seconds", "0.01", "--device", "cuda",
        "--batch", "1", "--batch", "3", "-o", tmp_path / "b.json",
    )  # fmt: skip
    assert code == 0, err
    assert "float16, " not in err  # no warning of a line left out
    report = json.loads((tmp_path / "b.json").read_text())
    rows = {(row["layout"], row["precision"], row["batch"]): row for row in report["rows"]}
    for precision in ("bfloat16", "float16"):
        for layout in ("fused", "graph"):
            assert (layout, precision, 3) in rows
        for layout in ("plain", "published", "vit", "tracker"):
            assert rows[layout, precision, 1]["memory_bytes"] > 0
        assert rows["tracker", precision, 1]["upload_ms"] > 0


def test_what_was_measured_stays_whatever_comes(spmtrack, tiny_checkpoint, tmp_path, monkeypatch):
    """No memory for one part: a warning, and the others. An end by force: what there was."""
    module = importlib.import_module("spmtrack_core.evaluation.benchmark")

    def no_memory(*_):
        raise RuntimeError("out of memory")

    def benchmark(name):
        code, _, err = spmtrack(
            "benchmark", "--model", tiny_checkpoint, "--seconds", "0.01", "--device", "cpu",
            "--precision", "float32", "-o", tmp_path / name,
        )  # fmt: skip
        report = json.loads((tmp_path / name).read_text())
        return code, err, [row["layout"] for row in report["rows"]]

    with monkeypatch.context() as patch:
        patch.setattr(module, "PlainViT", no_memory)
        code, _, rows = benchmark("a.json")
    assert (code, rows) == (0, ["fused", "plain", "published"])

    with monkeypatch.context() as patch:
        patch.setattr(module, "layouts", no_memory)
        code, _, err = spmtrack(
            "benchmark", "--model", tiny_checkpoint, "--seconds", "0.01", "--device", "cpu",
            "--precision", "float32", "-o", tmp_path / "none.json",
        )  # fmt: skip
    assert code == 2 and "nothing could be measured" in err
    assert not (tmp_path / "none.json").exists()

    def broken_off(*_):
        raise ValueError("no more time")

    monkeypatch.setattr(module, "frame_times", broken_off)
    code, err, rows = benchmark("b.json")
    assert code == 2 and "no more time" in err
    assert rows == ["fused", "plain", "published", "vit"]


@pytest.mark.parametrize("variant", ["default", "shared_expert", "route_compression"])
@torch.no_grad()
def test_the_layouts_compared_compute_the_same(variant):
    name = f"model_{variant}_params"
    model, config = golden_model(name), golden_config(name)
    search, references, masks, state = example(config, 1, CPU)
    # the fused layout is measured on the first of sixteen targets, which are other images
    references = example(config, 16, CPU)[1][:1]
    results = {}
    for layout, run in layouts(model, config, torch.float32, CPU):
        results[layout] = run(search, references, masks, state)
    for layout in ("fused", "published"):
        for ours, plain in zip(results[layout], results["plain"], strict=True):
            assert_close(ours, plain, atol=1e-5, rtol=0, msg=layout)
    assert results["vit"].shape[1] == 1 + 3 * 16 + 49


@torch.inference_mode()
def test_the_stages_of_a_device_are_those_of_the_host(tiny_checkpoint):
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    found = []
    for place in ("host", "device"):
        tracker = load_tracker(tiny_checkpoint, "cpu")
        if place == "device":  # without a graph
            tracker.engine = CudaEngine(tracker.model, tracker.model_config, CPU)
        tracker.init(frame, (300, 200, 60, 80))
        found.append({name: stage() for name, stage in stages(tracker, frame).items()})
    host, device = found
    assert list(device) == ["upload", *host] == ["upload", "crop", "network", "choice"]
    assert_close(device["crop"][0][0], torch.from_numpy(host["crop"]), atol=1e-3, rtol=0)
    for name in ("network", "choice"):
        assert_close(tuple(device[name]), tuple(host[name]), atol=1e-3, rtol=0)


def test_the_count_of_operations_is_that_of_the_paper():
    """363 GFLOP a frame for B, and hardly any of them outside of products."""
    assert flop(ModelConfig()) == pytest.approx(363e9, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--precision", "int4"], "precision must be one of"),
        (["--batch", "17"], "batch must be 1 to 16"),
        (["--model", "nothing"], "no weights 'nothing'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(spmtrack, arguments, match):
    code, _, err = spmtrack("benchmark", "--device", "cpu", "--seconds", "0.01", *arguments)
    assert (code, match in err) == (2, True)


def test_a_short_soak_is_flat(spmtrack, tiny_checkpoint):
    code, out, err = spmtrack("soak", "--frames", "200", "--weights", tiny_checkpoint)
    assert code == 0, err
    assert "flat:" in out


def test_growth_is_noticed(spmtrack, tiny_checkpoint, monkeypatch):
    sizes = iter(range(2**30, 2**40, 2**24))
    module = importlib.import_module("spmtrack_core.cli.benchmark")  # the command has its name
    monkeypatch.setattr(module, "_resident", lambda now=False: next(sizes))
    code, _, err = spmtrack("soak", "--frames", "20", "--weights", tiny_checkpoint)
    assert (code, "memory grew by" in err) == (2, True)
