"""The tracker from frame to box, against the end-to-end fixture and against bad days."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_model import GOLDEN, golden_config, golden_model

from spmtrack_core.config import TrackerConfig
from spmtrack_core.geometry.boxes import xyxy_to_xywh
from spmtrack_core.model.spmtrack import Prediction
from spmtrack_core.tracking import tracker as module
from spmtrack_core.tracking.state import TrackState
from spmtrack_core.tracking.tracker import Tracker, choose_device, load_tracker

E2E = json.loads((GOLDEN / "e2e_tracking.json").read_text())
FRAMES = np.load(GOLDEN / "e2e_frames.npz")["frames"]


@pytest.fixture
def tracker(tiny_checkpoint):
    return load_tracker(tiny_checkpoint, device="cpu")


@pytest.mark.golden
@pytest.mark.parametrize("rule", ["half_segments", "thirds"])
def test_a_whole_clip_is_tracked_as_published(rule, monkeypatch):
    config = TrackerConfig(reference_rule=rule, lost_threshold=0.0)
    tracker = Tracker(golden_model("e2e_params"), golden_config("e2e_params"), config)
    seen = {}
    forward, select = tracker.model.forward, module.select_box

    def spy_forward(search, references, *others):
        # which frames the three slots hold, by their crops
        crops = tracker.target.references.crops
        seen["memory_index"] = [
            next(i for i, crop in enumerate(crops) if torch.equal(crop, slot))
            for slot in references[0]
        ]
        prediction = forward(search, references, *others)
        seen["score_map_mean"] = prediction.score_map.mean().item()
        return prediction

    def spy_select(*inputs):
        seen["crop_box"], _, seen["best_cell"] = chosen = select(*inputs)
        return chosen

    monkeypatch.setattr(tracker.model, "forward", spy_forward)
    monkeypatch.setattr(module, "select_box", spy_select)
    tracker.init(FRAMES[0], xyxy_to_xywh(E2E["initial_box"]))
    target = tracker.target
    np.testing.assert_allclose(target.background, E2E["init"]["template_mean"], atol=1e-3)
    assert target.references.masks[0].sum() == E2E["init"]["mask_cells"]
    for record in E2E["runs"][f"rule_{rule}"]:
        step = record["t"]
        result = tracker.update(FRAMES[step])
        expected_xywh = xyxy_to_xywh(record["image_box"])
        np.testing.assert_allclose(result.box_xywh, expected_xywh, atol=1e-2)
        np.testing.assert_allclose(target.box_xyxy, record["state_box_after"], atol=1e-2)
        assert result.confidence == pytest.approx(record["confidence"], abs=1e-5)
        assert seen["memory_index"] == record["memory_index"]
        assert seen["best_cell"].item() == record["best_cell"]
        np.testing.assert_allclose(seen["crop_box"][0], record["crop_box"], atol=1e-2)
        assert seen["score_map_mean"] == pytest.approx(record["score_map_mean"], abs=1e-5)
        assert target.state_token.norm().item() == pytest.approx(
            record["query_state_l2"], abs=2e-5
        )
        assert target.references.masks[step].sum() == record["new_memory_mask_sum"]


def outcome(tracker, box_in_crop_norm, score=2.0):
    """Make the network say this box for every cell."""
    rows, columns = tracker.model_config.search_grid_hw
    width = tracker.model_config.embed_dim
    prediction = Prediction(
        torch.full((1, rows, columns), score),
        torch.tensor(box_in_crop_norm).expand(1, rows, columns, 4),
        torch.full((1, 1, width), score),
    )
    tracker.model.forward = lambda *_: prediction


@pytest.mark.parametrize(
    ("box", "score", "reason"),
    [
        ((0.5, 0.4, 0.5, 0.6), 2.0, "no width"),
        ((0.5, 0.5, 0.5, 0.5), 2.0, "a point"),
        ((0.6, 0.4, 0.5, 0.6), 2.0, "reversed"),
        ((9.0, 9.0, 9.5, 9.5), 2.0, "beside the frame"),
        ((float("nan"),) * 4, 2.0, "NaN box"),
        ((0.4, 0.4, 0.6, 0.6), float("nan"), "NaN score and state"),
    ],
)
def test_a_degenerate_prediction_keeps_the_last_good_box(tracker, box, score, reason):
    tracker.init(FRAMES[0], (60, 40, 30, 20))
    good = tracker.update(FRAMES[1]).box_xywh
    outcome(tracker, box, score)
    for frame in FRAMES[2:6]:
        result = tracker.update(frame)
        assert result.box_xywh == good, reason
        assert result.state is TrackState.LOST
        assert 0 <= result.confidence <= 1
    del tracker.model.forward
    after = tracker.update(FRAMES[6])
    assert np.isfinite([*after.box_xywh, after.confidence]).all()


def test_an_infinite_side_is_clamped_to_the_frame(tracker):
    tracker.init(FRAMES[0], (60, 40, 30, 20))
    outcome(tracker, (0.5, 0.5, float("inf"), 0.6))
    x, _, width, _ = tracker.update(FRAMES[1]).box_xywh
    assert x + width == FRAMES.shape[2]


@pytest.mark.parametrize(
    "box",
    [(0, 0, 1, 1), (-30, -30, 40, 35), (0, 0, 160, 120), (2, 2, 150, 1), (150, 1, 3, 118),
     (-500, -500, 2000, 2000)],
)  # fmt: skip
def test_unusual_targets_are_tracked_without_a_crash(tracker, box):
    tracker.init(FRAMES[0], box)
    for frame in FRAMES[1:6]:
        result = tracker.update(frame)
        assert np.isfinite(result.box_xywh).all()
        assert min(result.box_xywh[2:]) > 0


def test_the_threshold_decides_what_is_lost(tiny_checkpoint):
    for threshold, state in ((0.0, TrackState.TRACKING), (1.0, TrackState.LOST)):
        tracker = load_tracker(tiny_checkpoint, device="cpu", lost_threshold=threshold)
        tracker.init(FRAMES[0], (60, 40, 30, 20))
        assert tracker.update(FRAMES[1]).state is state


def test_a_frame_of_another_size_does_not_end_the_track(tracker):
    tracker.init(FRAMES[0], (120, 90, 30, 20))
    small = np.ascontiguousarray(FRAMES[1][:40, :50])  # the target lies outside of it
    for frame in (small, small, FRAMES[2]):
        x, y, w, h = tracker.update(frame).box_xywh
        assert 0 <= x <= x + w <= frame.shape[1]
        assert 0 <= y <= y + h <= frame.shape[0]


def test_grids_that_are_not_square_are_tracked():
    tracker = Tracker(
        golden_model("model_swiglu_nonsquare_params"),
        golden_config("model_swiglu_nonsquare_params"),
        TrackerConfig(),
    )
    tracker.init(FRAMES[0], (60, 40, 10, 40))
    assert tracker.target.references.masks[0].tolist() == [[0, 1, 1, 0]] * 3
    for frame in FRAMES[1:]:
        assert np.isfinite(tracker.update(frame).box_xywh).all()


def test_the_same_frames_give_the_same_boxes_after_a_new_init(tracker):
    runs = []
    for _ in range(2):
        tracker.init(FRAMES[0], (60, 40, 30, 20))
        runs.append([tracker.update(frame).box_xywh for frame in FRAMES[1:8]])
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("frame", "box", "match"),
    [
        (FRAMES[0], (10, 10, 0, 5), "no area"),
        (FRAMES[0], (10, 10, -4, 5), "no area"),
        (FRAMES[0], (10, float("nan"), 5, 5), "not finite"),
        (FRAMES[0], (160, 10, 5, 5), "outside the image"),
        (FRAMES[0], (10, 10, 5), "four numbers"),
        (FRAMES[0], "here", "four numbers"),
        (FRAMES[0][..., 0], (10, 10, 5, 5), "RGB uint8"),
        (FRAMES[0].astype(float), (10, 10, 5, 5), "RGB uint8"),
        (FRAMES[0][:0], (10, 10, 5, 5), "RGB uint8"),
        (None, (10, 10, 5, 5), "RGB uint8"),
    ],
)
def test_a_bad_init_is_refused_and_keeps_the_target(tracker, frame, box, match):
    tracker.init(FRAMES[0], (60, 40, 30, 20))
    before = tracker.target
    with pytest.raises(ValueError, match=match):
        tracker.init(frame, box)
    assert tracker.target is before


def test_update_before_init_is_an_error(tracker):
    with pytest.raises(RuntimeError, match="init first"):
        tracker.update(FRAMES[0])


@pytest.mark.parametrize(
    ("weights", "device", "error", "match"),
    [
        ("no_such_name", "cpu", FileNotFoundError, "neither a file nor bundled"),
        (GOLDEN / "manifest.json", "cpu", ValueError, "manifest.json"),
        (None, "tpu", ValueError, "auto, cpu, cuda"),
        (None, "meta", ValueError, "auto, cpu, cuda"),
        (None, "cuda:99", ValueError, "is not there"),
    ],
)
def test_weights_and_devices_that_are_not_there_are_named(
    tiny_checkpoint, weights, device, error, match
):
    with pytest.raises(error, match=match):
        load_tracker(weights or tiny_checkpoint, device)


def test_auto_finds_a_device():
    assert choose_device("auto").type in ("cpu", "cuda")


def test_two_thousand_frames_leave_the_memory_flat(tracker):
    tracker.init(FRAMES[0], (60, 40, 30, 20))

    def run(frames):
        for index in range(frames):
            tracker.update(FRAMES[index % len(FRAMES)])
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    settled = run(400)
    assert run(2000) - settled < 4 * 2**20
