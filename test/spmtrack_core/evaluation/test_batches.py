"""Several sequences at once: the boxes are those of one after the other, whatever breaks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from spmtrack_core.data.recording import write_image
from spmtrack_core.data.sequence import FrameSequence, read_boxes
from spmtrack_core.evaluation.passes import Passes
from spmtrack_core.evaluation.runner import run
from spmtrack_core.evaluation.workers import batch_for
from spmtrack_core.tracking.loading import load_tracker

CLOSE = 2e-3
"""Pixels: one pass for several targets rounds in another order."""
LENGTHS = {"a": 5, "b": 12, "c": 9, "d": 2}


def clips():
    """Sequences of several lengths and sizes."""
    random = np.random.default_rng(0)
    made = []
    for index, (name, length) in enumerate(LENGTHS.items()):
        frames = random.integers(0, 255, (length, 60 + 8 * index, 80, 3)).astype(np.uint8)
        boxes = np.tile([20.0, 20, 24, 20 + index], (length, 1))
        made.append(FrameSequence(name, lambda f=frames: iter(f), length, None, boxes))
    return made


def evaluate(spmtrack, tmp_path, weights, output, *more):
    return spmtrack(
        *("eval", "folder", "--root", tmp_path / "data", "--weights", weights, "--device", "cpu"),
        *("--output", tmp_path / output, *more),
    )


def make_folder(root, lengths):
    for name, count in lengths.items():
        for index in range(count):
            write_image(root / name / f"{index}.png", np.full((60, 80, 3), 90, np.uint8))
        (root / name / "groundtruth.txt").write_text("9,9,20,20\n" * count)


def columns(folder, name):
    """Boxes and confidence of a sequence."""
    confidence = np.loadtxt(folder / "confidence" / f"{name}.txt")
    return np.column_stack([read_boxes(folder / "boxes" / f"{name}.txt"), confidence])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("rule", ["half_segments", "thirds", "template_twice"])
def test_a_batch_finds_what_single_sequences_do(tmp_path, tiny_checkpoint, rule, exact):
    tracker = load_tracker(tiny_checkpoint, "cpu")
    tracker.config = replace(tracker.config, reference_rule=rule, buffer_frames=8)
    for batch in (1, 3, 8):
        passes = Passes(exact_references=exact, batch=batch)
        report = run(tracker, clips(), tmp_path / str(batch), passes=passes)
        assert report["speed"]["batch"] == [batch]
        assert report["speed"]["median_ms"] > 0
    for name in LENGTHS:
        alone, *others = (columns(tmp_path / str(batch), name) for batch in (1, 3, 8))
        for other in others:
            np.testing.assert_allclose(other, alone, atol=CLOSE, err_msg=name)


def broken_at(index, frame):
    """A clip of twelve frames in which one is broken or of another kind."""
    clip = clips()[1]

    def frames():
        for number, each in enumerate(clip):
            if number == index and frame is None:
                raise ValueError("b/7.png is empty: 0 bytes")
            yield frame if number == index else each

    return replace(clip, open=frames)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (broken_at(7, None), "b: frame 8: b/7.png is empty: 0 bytes"),
        (broken_at(0, None), "b: b/7.png is empty: 0 bytes"),
        (broken_at(7, np.zeros((4, 4), np.uint8)), "b: frame 8: a frame is an RGB uint8 array"),
        (replace(clips()[1], length=11, boxes_xywh=clips()[1].boxes_xywh[:11]), "b: has more"),
        (replace(clips()[1], boxes_xywh=np.tile([900.0, 0, 9, 9], (12, 1))), "b: frame 1: box"),
        (replace(clips()[1], boxes_xywh=None), "b: has no boxes to compare with"),
    ],
)
def test_one_that_breaks_does_not_take_the_others_with_it(
    tmp_path, tiny_checkpoint, broken, reason, exact
):
    tracker = load_tracker(tiny_checkpoint, "cpu")
    passes = Passes(exact_references=exact)
    run(tracker, clips(), tmp_path / "whole", passes=passes)
    sequences = [broken if each.name == "b" else each for each in clips()]
    report = run(tracker, sequences, tmp_path / "three", passes=replace(passes, batch=3))
    (fault,) = report["left_out"]
    assert fault.startswith(reason)
    for name in ("a", "c", "d"):
        alone = columns(tmp_path / "whole", name)
        np.testing.assert_allclose(columns(tmp_path / "three", name), alone, atol=CLOSE)


def test_an_interrupted_batch_goes_on_with_what_is_missing(tmp_path, tiny_checkpoint, monkeypatch):
    tracker = load_tracker(tiny_checkpoint, "cpu")
    follow, seen = tracker.follow_each, []

    def interrupted(frames, targets):
        seen.append(len(targets))
        if len(seen) == 8:
            raise KeyboardInterrupt
        return follow(frames, targets)

    monkeypatch.setattr(tracker, "follow_each", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tracker, clips(), tmp_path, passes=Passes(batch=2))
    assert {path.stem for path in (tmp_path / "boxes").iterdir()} == {"a"}
    report = run(tracker, clips(), tmp_path, passes=Passes(batch=4))
    assert seen[8:] == [3, *[2] * 7, *[1] * 3]  # b, c and d alone
    assert [row["sequence"] for row in report["sequences"]] == list(LENGTHS)
    assert report["speed"]["batch"] == [2, 4]


def test_repetitions_are_a_batch_too(tmp_path, spmtrack, tiny_checkpoint):
    make_folder(tmp_path / "data", {"a": 3, "b": 2})
    for output, more in (("one", ()), ("more", ("repetitions=2", "batch=9"))):
        code, out, err = evaluate(spmtrack, tmp_path, tiny_checkpoint, output, *more)
        assert code == 0, err
    report = json.loads((tmp_path / "more" / "results.json").read_text())
    assert report["speed"]["batch"] == [report["run"]["settings"]["batch"]] == [4]
    table = (tmp_path / "more" / "table.md").read_text()
    assert "a frame's share of batches of 4; without reading the images; on " in table
    assert "changed: repetitions: 2 (instead of 1)" in " ".join(out.split())
    assert "Different from the settings of the weights: repetitions: 2 (instead of 1)." in table
    for name in ("a", "b"):
        alone = columns(tmp_path / "one", name)
        for each in (name, f"{name}_002"):
            np.testing.assert_allclose(columns(tmp_path / "more", each), alone, atol=CLOSE)


@pytest.mark.parametrize(
    ("wanted", "device", "passes", "processes", "expected"),
    [
        (0, "cpu", 100, 1, 1),
        (0, "cuda", 100, 1, 8),
        (0, "cuda", 5, 1, 5),  # no more than there are
        (0, "cuda", 20, 4, 5),  # the other processes have work, too
        (3, "cpu", 100, 1, 3),
        (64, "cuda", 0, 1, 1),
    ],
)
def test_how_many_sequences_are_tracked_at_once(wanted, device, passes, processes, expected):
    assert batch_for(wanted, device, passes, processes) == expected


def test_the_runtime_is_part_of_a_run(tmp_path, spmtrack, tiny_checkpoint):
    pytest.importorskip("openvino", reason="OpenVINO is not installed: the extra openvino")
    make_folder(tmp_path / "data", {"a": 3})
    keys = []
    for runtime in ("torch", "auto"):
        code, _, err = evaluate(spmtrack, tmp_path, tiny_checkpoint, runtime, "--runtime", runtime)
        assert code == 0, err
        keys.append(json.loads((tmp_path / runtime / "done" / "a.json").read_text())["key"])
    assert keys[0] != keys[1]
    run = json.loads((tmp_path / "auto" / "results.json").read_text())["run"]
    assert (run["settings"]["runtime"], "openvino" in run["versions"]) == ("openvino", True)
    assert "runtime: openvino (instead of torch)" in run["from_paper"]
    both = [columns(tmp_path / runtime, "a") for runtime in ("torch", "auto")]
    np.testing.assert_allclose(*both, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--runtime", "tensorrt"], "runtime tensorrt runs .engine files"),
        (["--runtime", "onnxruntime"], "runtime onnxruntime runs .onnx files"),
        (["--runtime", "openvino", "--device", "cuda"], "cuda"),
        (["batch=x"], "batch must be"),
    ],
)
def test_what_cannot_compute_is_one_line(tmp_path, spmtrack, tiny_checkpoint, arguments, match):
    make_folder(tmp_path / "data", {"a": 2})
    code, _, err = evaluate(spmtrack, tmp_path, tiny_checkpoint, "out", *arguments)
    assert (code, match in err) == (2, True), err
