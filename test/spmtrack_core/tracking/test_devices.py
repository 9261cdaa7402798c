"""Host and devices, one target and several: the same boxes. What a device can compute."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.torch_engines import choose_device, emulated
from test.spmtrack_core.tracking.engines import FRAMES, network_of, on_device, rows_of


def test_where_nothing_can_be_recorded_tracking_goes_on(tracker, caplog, monkeypatch):
    def refuse(*_):
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        finally:  # as the end of a recording does
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr("spmtrack_core.tracking.cuda_engine.CapturedGraph", refuse)
    on_device(tracker).init(FRAMES[0], (60, 40, 30, 20))
    expected = [tracker.update(frame) for frame in FRAMES[1:4]]
    on_device(tracker).engine.may_capture = True
    tracker.init(FRAMES[0], (60, 40, 30, 20))
    assert [tracker.update(frame) for frame in FRAMES[1:4]] == expected
    (message,) = caplog.messages
    assert "without a CUDA graph" in message and message.endswith("is capturing")


def test_crops_of_a_device_track_as_those_of_the_host(tiny_checkpoint):
    """Frames of several sizes, larger than the memory at first, a view, a target at the border."""
    large = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    frames = [*FRAMES[1:4], large, FRAMES[4][:, ::-1], FRAMES[5][10:70, 20:100]]
    host, device = (load_tracker(tiny_checkpoint, "cpu") for _ in range(2))
    on_device(device)
    for box in ((60, 40, 30, 20), (-10, -5, 30, 40), (1, 1, 4, 3)):
        runs = []
        for tracker in (host, device):
            tracker.init(FRAMES[0], box)
            runs.append(rows_of(map(tracker.update, frames)))
        np.testing.assert_allclose(*runs, atol=2e-3)


@pytest.mark.parametrize("place", ["host", "device"])
def test_several_targets_are_found_as_each_alone(tiny_checkpoint, place):
    boxes = [(60, 40, 30, 20), (20, 30, 25, 40), (90, 10, 12, 18)]
    alone, together = (load_tracker(tiny_checkpoint, "cpu") for _ in range(2))
    if place == "device":
        on_device(alone), on_device(together)
    expected = []
    for start, box in enumerate(boxes):  # one more target with every frame
        alone.init(FRAMES[start], box)
        expected.append(rows_of(map(alone.update, FRAMES[start + 1 : 9])))
    targets, found = [], [[], [], []]
    for index, frame in enumerate(FRAMES[:9]):
        for rows, result in zip(found, together.follow(frame, targets), strict=False):
            rows.append(result)
        if index < len(boxes):
            targets.append(together.start(frame, boxes[index]))
    for rows, expectation in zip(found, expected, strict=True):
        np.testing.assert_allclose(rows_of(rows), expectation, atol=2e-3)
    assert together.target is None
    assert together.follow(FRAMES[0], []) == []
    with pytest.raises(ValueError, match="one of the 3 targets is listed twice"):
        together.follow(FRAMES[0], [*targets[:2], targets[0]])


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize(
    ("rule", "exact", "recovery"),
    [
        ("half_segments", 0, "none"),
        ("thirds", 8, "none"),
        ("half_segments", 8, "none"),
        ("template_twice", 8, "scan"),
    ],
)
def test_targets_of_several_videos_are_found_as_each_alone(
    tiny_checkpoint, place, rule, exact, recovery
):
    """Videos of other sizes that begin one after the other and outgrow the first memory."""
    large = np.random.default_rng(0).integers(0, 256, (8, 700, 1500, 3), np.uint8)
    part = FRAMES[:8, 10:70, 20:100]
    videos = [
        (FRAMES[:8], (60, 40, 30, 20)),
        (FRAMES[1:9, ::-1], (20, 30, 25, 40)),
        (part, (30, 20, 12, 18)),
        (large, (300, 200, 90, 80)),
    ]
    alone, together = (load_tracker(tiny_checkpoint, "cpu") for _ in range(2))
    for tracker in (alone, together):
        changed = {"reference_rule": rule, "exact_frames": exact, "recovery": recovery}
        if recovery == "scan":  # all are lost in every frame, and taken wherever they seem to be
            changed |= {"lost_threshold": 0.99, "recovery_threshold": 0.0}
        tracker.config = dataclasses.replace(tracker.config, **changed)
        if place == "device":
            on_device(tracker)
    targets, found = [], [[], [], [], []]
    for index in range(8):
        now = [frames[index - begun] for begun, (frames, _) in enumerate(videos[: len(targets)])]
        for rows, result in zip(found, together.follow_each(now, targets), strict=False):
            rows.append(result)
        if index < len(videos):
            frames, box = videos[index]
            targets.append(together.start(frames[0], box))
    for begun, (frames, box) in enumerate(videos):
        alone.init(frames[0], box)
        expected = rows_of(map(alone.update, frames[1 : 8 - begun]))
        np.testing.assert_allclose(rows_of(found[begun]), expected, atol=2e-3)
    with pytest.raises(ValueError, match="expected a frame for each target; got 1 frames for 2"):
        together.follow_each([FRAMES[0]], targets[:2])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_recorded_step_tracks_as_the_eager_one(tiny_checkpoint, precision, caplog):
    large = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    runs = []
    for may_capture in (True, False):
        tracker = load_tracker(tiny_checkpoint, "cuda", precision=precision)
        tracker.engine.may_capture = may_capture
        tracker.warm_up()
        assert bool(tracker.engine.graphs) is may_capture
        targets = [tracker.start(FRAMES[0], box) for box in ((60, 40, 30, 20), (20, 30, 25, 40))]
        results = []
        for frame in [*FRAMES[1:5], large, *FRAMES[5:]]:
            results += tracker.follow(frame, targets) + tracker.follow(frame, targets[:1])
        runs.append(rows_of(results))
    np.testing.assert_allclose(*runs, atol=1e-3)
    assert not [each for each in caplog.messages if "graph" in each]


@pytest.mark.gpu
@pytest.mark.parametrize("may_capture", [True, False])
def test_cuda_finds_what_the_cpu_finds(tiny_checkpoint, may_capture):
    """One frame from the same state: over a clip, rounding would lead them apart."""
    found = []
    for device in ("cpu", "cuda"):
        tracker = load_tracker(tiny_checkpoint, device)
        if device == "cuda":
            tracker.engine.may_capture = may_capture
        boxes = (60, 40, 30, 20), (-10, -5, 30, 40), (1, 1, 4, 3)
        targets = [tracker.start(FRAMES[0], box) for box in boxes]
        found.append(rows_of(tracker.follow(FRAMES[1], targets)))
    # convolutions take TF32 on CUDA, which has 10 bits
    np.testing.assert_allclose(*found, atol=0.05)


@pytest.mark.gpu
def test_a_recording_that_fails_leaves_the_device_usable(tiny_checkpoint, caplog):
    runs = []
    for fails in (True, False):
        tracker = load_tracker(tiny_checkpoint, "cuda")
        tracker.engine.may_capture = fails
        forward = network_of(tracker).forward

        def waits(search, *others, forward=forward):
            if torch.cuda.is_current_stream_capturing():
                search.sum().item()  # not allowed there
            return forward(search, *others)

        network_of(tracker).forward = waits
        tracker.init(FRAMES[0], (60, 40, 30, 20))
        runs.append(rows_of([tracker.update(frame) for frame in FRAMES[1:5]]))
        assert tracker.engine.may_capture is False
    np.testing.assert_allclose(*runs, atol=1e-3)
    (message,) = caplog.messages
    assert "without a CUDA graph" in message and "previous error" not in message
    other = load_tracker(tiny_checkpoint, "cuda")
    other.init(FRAMES[0], (60, 40, 30, 20))
    other.update(FRAMES[1])
    assert len(other.engine.graphs) == 2


@pytest.mark.gpu
def test_two_trackers_take_turns(tiny_checkpoint):
    boxes = (60, 40, 30, 20), (20, 30, 25, 40)
    trackers = [load_tracker(tiny_checkpoint, "cuda") for _ in boxes]
    alone, together = [], [[], []]
    for tracker, box in zip(trackers, boxes, strict=True):
        tracker.init(FRAMES[0], box)
        alone.append(rows_of([tracker.update(frame) for frame in FRAMES[1:6]]))
    for tracker, box in zip(trackers, boxes, strict=True):
        tracker.init(FRAMES[0], box)
    for frame in FRAMES[1:6]:
        for rows, tracker in zip(together, trackers, strict=True):
            rows.append(tracker.update(frame))
    for rows, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(rows_of(rows), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("machine", "capability", "precision", "device", "is_emulated"),
    [
        ("x86_64", "AVX2", "bfloat16", "cpu", True),
        ("AMD64", "NO AVX", "float16", "cpu", True),
        ("x86_64", "AVX512", "bfloat16", "cpu", False),
        ("x86_64", "AVX2", "float32", "cpu", False),
        ("x86_64", "AVX2", "bfloat16", "cuda", False),
        ("aarch64", "DEFAULT", "bfloat16", "cpu", False),
    ],
)
def test_precisions_that_a_cpu_has_no_instructions_for(
    machine, capability, precision, device, is_emulated, monkeypatch, tiny_checkpoint, caplog
):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert emulated(precision, torch.device(device)) is is_emulated
    if device == "cpu":
        load_tracker(tiny_checkpoint, "cpu", precision=precision)
        assert [precision in message for message in caplog.messages] == [True] * is_emulated


def test_auto_finds_a_device():
    assert choose_device("auto").type in ("cpu", "cuda")
