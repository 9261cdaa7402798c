"""``spmtrack benchmark``: time of a frame, for all given weights and precisions."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from spmtrack_core import TrackState
from spmtrack_core.evaluation.speed import PARTS, box_in, drifting_target, machine
from spmtrack_core.tracking.loading import load_tracker


def test_all_weights_and_precisions_are_rows(spmtrack, tiny_checkpoint, tmp_path):
    code, out, err = spmtrack(
        "benchmark",
        "--weights",
        tiny_checkpoint,
        "--precision",
        "float32",
        "--precision",
        "bfloat16",
        "--device",
        "cpu",
        "--seconds",
        "0.01",
        "-o",
        tmp_path / "b.json",
    )
    assert code == 0, err
    assert "frames/s" in out
    report = json.loads((tmp_path / "b.json").read_text())
    assert [row["precision"] for row in report["rows"]] == ["float32", "bfloat16"]
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in report["rows"])
    assert report["torch"] == torch.__version__
    assert "network" in out
    assert all(row[f"{part}_ms"] > 0 for row in report["rows"] for part in PARTS)


def test_nano_follows_the_target_that_is_measured():
    """Where it is lost, the search for it would be measured."""
    tracker = load_tracker("nano", "cpu", threads=1)
    for frame_hw in ((480, 640), (200, 320), (1080, 1920)):
        frames = drifting_target(frame_hw)
        assert {frame.shape for frame in frames} == {(*frame_hw, 3)}
        target = tracker.start(frames[-1], box_in(frame_hw))
        states = [tracker.follow(frame, [target])[0].state for frame in frames * 2]
        assert set(states) == {TrackState.TRACKING}, frame_hw


def test_sizes_targets_threads_and_load_are_rows(spmtrack, tiny_checkpoint, tmp_path):
    code, _, err = spmtrack(
        *("benchmark", "--weights", tiny_checkpoint, "--device", "cpu", "--seconds", "0.01"),
        *("--size", 320, 200, "--targets", 3, "--threads", 1, "--threads", 2, "--busy"),
        *("--runtime", "torch", "--rate", 500),
        *("-o", tmp_path / "b.json"),
    )
    assert code == 0, err
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    told = [(row["threads"], row["load"], row["batch"], row["size"]) for row in rows]
    assert told == [(n, load, 3, [320, 200]) for n in (1, 2) for load in ("quiet", "busy")]


def test_a_gpu_of_another_runtime_needs_no_pytorch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    assert machine("cuda:1")["device"] == "cuda:1"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--targets", "0"], "targets at least 1"),
        (["--threads", "-1"], "threads must be 0, which chooses, to 256; got -1"),
        (["--threads", "10000"], "threads must be 0, which chooses, to 256; got 10000"),
        (["--rate", "-1"], "rate at least 0"),
        (["--rate", "inf"], "and seconds above 0; got (640, 480), 1, inf and 0.01"),
        (["--seconds", "0"], "seconds above 0"),
        (["--seconds", "nan"], "1, 0 and nan"),
        (["--runtime", "tpu"], "runtime must be one of"),
        (["--precision", "int4"], "precision must be one of"),
        (["--weights", "nothing"], "no weights 'nothing'"),
        (["--device", "cuda:99"], "cuda:99 not found"),
    ],
)
def test_errors_are_one_line(spmtrack, arguments, match):
    code, _, err = spmtrack("benchmark", "--seconds", "0.01", *arguments)
    assert (code, match in err) == (2, True)
