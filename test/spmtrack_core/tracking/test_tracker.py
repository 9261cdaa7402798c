"""The tracker from frame to box: what it makes of predictions, frames and requests."""

from __future__ import annotations

import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from golden_model import GOLDEN, golden_config, golden_model

from spmtrack_core.config import TrackerConfig
from spmtrack_core.data.scene import scene
from spmtrack_core.evaluation.metrics import mean_iou
from spmtrack_core.model.spmtrack import Prediction
from spmtrack_core.tracking import tracker as module
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.result import TrackState
from spmtrack_core.tracking.target import Target
from spmtrack_core.tracking.torch_engines import torch_engine
from spmtrack_core.tracking.tracker import Tracker
from test.spmtrack_core.tracking.engines import FRAMES, e2e_tracker, network_of


def outcome(tracker, box_in_crop_norm, score=2.0):
    """Make the network say this box for every cell."""
    rows, columns = tracker.model_config.search_grid_hw
    width = tracker.model_config.embed_dim
    prediction = Prediction(
        torch.full((1, rows, columns), score),
        torch.tensor(box_in_crop_norm).expand(1, rows, columns, 4),
        torch.full((1, 1, width), score),
    )
    network_of(tracker).forward = lambda *_: prediction


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
    del network_of(tracker).forward
    after = tracker.update(FRAMES[6])
    assert np.isfinite([*after.box_xywh, after.confidence]).all()


def test_an_infinite_side_is_clamped_to_the_frame(tracker):
    tracker.init(FRAMES[0], (60, 40, 30, 20))
    outcome(tracker, (0.5, 0.5, float("inf"), 0.6))
    x, _, width, _ = tracker.update(FRAMES[1]).box_xywh
    assert x + width == FRAMES.shape[2]


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 1, 1),
        (-30, -30, 40, 35),
        (0, 0, 160, 120),
        (2, 2, 150, 1),
        (150, 1, 3, 118),
        (-500, -500, 2000, 2000),
    ],
)
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


@pytest.mark.parametrize("scale", [4.0, 2.0, 0.5, 0.34])
def test_the_box_is_scaled_along_with_the_frame(scale):
    """The video of a target that stands still, in two resolutions, tracked by the nano weights."""
    frame = next(iter(scene()))
    box = np.array(scene().boxes_xywh[0])
    scaled = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tracker = load_tracker("nano", device="cpu")
    tracker.init(frame, box)
    for shown, factor in ((frame, 1), (scaled, scale), (scaled, scale), (frame, 1)):
        result = tracker.update(shown)
        assert result.state is TrackState.TRACKING
        assert mean_iou(np.array([result.box_xywh]), box[None] * factor) > 0.7


T, U, L = TrackState.TRACKING, TrackState.UNCERTAIN, TrackState.LOST


@pytest.mark.parametrize(
    ("confidences", "states", "reason"),
    [
        ([0.9, 0.8, 0.9], [T, T, T], "seen all the time"),
        ([0.9, 0.0, 0.9], [T, U, T], "one bad frame is no loss"),
        ([0.9, 0.0, 0.0, 0.0], [T, U, U, L], "three bad frames are one: 0.48, 0.24, 0.12"),
        ([0.0, 0.0, 0.0, 0.3, 0.3], [U, U, L, L, L], "0.24 would do to stay, but not to return"),
        ([0.0, 0.0, 0.0, 0.6], [U, U, L, T], "found again: 0.36"),
        ([0.0, 0.0, 0.0, 0.15, 0.1, 0.15], [U, U, L, L, L, L], "no flicker below the threshold"),
        ([0.9, None, 0.9], [T, L, T], "no box: lost at once"),
    ],
)
def test_the_state_has_hysteresis(tracker, confidences, states, reason):
    config = TrackerConfig(lost_threshold=0.2, found_margin=0.1, confidence_weight=0.5)
    target = tracker.start(FRAMES[0], (60, 40, 30, 20))
    found = [target.judge(each or 0.0, each is not None, config) for each in confidences]
    assert found == states, reason


def test_forgotten_motion_leaves_no_state_token(tracker):
    target = tracker.start(FRAMES[0], (60, 40, 30, 20))
    tracker.follow(FRAMES[1], [target])
    tracker.forget_motion([target])
    assert not target.state_token.any()


def test_without_average_and_margin_the_threshold_alone_decides(tracker):
    config = TrackerConfig(lost_threshold=0.2, found_margin=0, confidence_weight=1)
    target = tracker.start(FRAMES[0], (60, 40, 30, 20))
    assert [target.judge(each, True, config) for each in (0.3, 0.1, 0.2)] == [T, L, T]


def test_a_change_of_aspect_is_lost_and_told_until_it_is_undone(tracker, caplog):
    tracker.init(FRAMES[0], (120, 90, 30, 20))
    other = np.ascontiguousarray(FRAMES[1][:40, :50])
    for frame in (other, other, FRAMES[1], other):  # at the end of two cameras, in turn
        result = tracker.update(frame)
        lost = frame.shape == other.shape
        assert (result.state is TrackState.LOST, result.confidence == 0) == (lost, lost)
        x, y, w, h = result.box_xywh
        assert 0 <= x <= x + w <= frame.shape[1]
        assert 0 <= y <= y + h <= frame.shape[0]
    (text,) = (record.message for record in caplog.records)  # once, not with every frame
    assert text.startswith("frames changed from 160 x 120 to 50 x 40 pixels, which is")
    assert tracker.target.lost_reason == text
    assert tracker.update(FRAMES[2]).state is TrackState.TRACKING
    assert tracker.target.lost_reason == ""


def test_one_target_of_another_aspect_leaves_the_others_alone(tracker):
    wide = np.ascontiguousarray(FRAMES[1][:50])
    first = tracker.start(FRAMES[0], (60, 40, 30, 20))
    second = tracker.start(wide, (60, 20, 30, 20))
    states = [result.state for result in tracker.follow(FRAMES[2], [second, first])]
    assert states == [TrackState.LOST, TrackState.TRACKING]


@pytest.mark.parametrize(
    ("old_wh", "new_wh", "scaled"),
    [
        ((1920, 1080), (1280, 720), True),
        ((1280, 720), (854, 480), True),
        ((854, 480), (426, 240), True),
        ((640, 480), (1280, 720), False),  # 4:3 and 16:9
        ((640, 480), (480, 640), False),  # turned
        ((1920, 1080), (1920, 1200), False),
    ],
)
def test_which_changes_of_size_keep_the_aspect(old_wh, new_wh, scaled):
    box = np.array([10.0, 20, 30, 40])
    target = Target(box, None, None, None, old_wh[::-1])
    text = target.rescale(new_wh[::-1])
    assert text.endswith("scaled along") is scaled
    assert bool(target.lost_reason) is not scaled
    ratio = np.tile(np.divide(new_wh, old_wh), 2) if scaled else 1
    np.testing.assert_allclose(target.box_xyxy, box * ratio)


def test_grids_that_are_not_square_are_tracked(monkeypatch):
    seen, cover = [], module.foreground_mask
    monkeypatch.setattr(
        module, "foreground_mask", lambda *given: seen.append(cover(*given)) or seen[-1]
    )
    name = "model_swiglu_nonsquare_params"
    tracker = Tracker(torch_engine(golden_model(name), golden_config(name)), TrackerConfig())
    tracker.init(FRAMES[0], (60, 40, 10, 40))
    assert seen[0].tolist() == [[0, 1, 1, 0]] * 3
    for frame in FRAMES[1:]:
        assert np.isfinite(tracker.update(frame).box_xywh).all()


def test_the_same_frames_give_the_same_boxes_after_a_new_init(tracker):
    runs = []
    for _ in range(2):
        tracker.init(FRAMES[0], (60, 40, 30, 20))
        runs.append([tracker.update(frame).box_xywh for frame in FRAMES[1:8]])
    assert runs[0] == runs[1]


def test_warming_up_leaves_the_track_alone(tracker):
    runs = []
    for warm in (False, True):
        if warm:
            tracker.target = None
            tracker.warm_up()
            assert tracker.target is None
        tracker.init(FRAMES[0], (60, 40, 30, 20))
        boxes = []
        for frame in FRAMES[1:5]:
            if warm:
                tracker.warm_up()
            boxes.append(tracker.update(frame))
        runs.append(boxes)
    assert runs[0] == runs[1]


def test_the_model_handed_in_is_left_alone():
    model = golden_model("e2e_params")
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learns = [parameter.requires_grad for parameter in model.parameters()]
    tracker = e2e_tracker(model=model.train())
    tracker.init(FRAMES[0], (60, 40, 30, 20))
    tracker.update(FRAMES[1])
    assert model.training and learns == [p.requires_grad for p in model.parameters()]
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())


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
        (None, "cuda:99", ValueError, "device cuda:99 not found"),
    ],
)
def test_weights_and_devices_that_are_not_there_are_named(
    tiny_checkpoint, weights, device, error, match
):
    with pytest.raises(error, match=match):
        load_tracker(weights or tiny_checkpoint, device)


@pytest.mark.slow
def test_two_thousand_frames_leave_the_memory_flat(tracker):
    tracker.init(FRAMES[0], (60, 40, 30, 20))

    def run(frames):
        for index in range(frames):
            tracker.update(FRAMES[index % len(FRAMES)])
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    settled = run(400)
    assert run(2000) - settled < 4 * 2**20
