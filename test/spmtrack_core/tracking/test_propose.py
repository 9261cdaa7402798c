"""Boxes proposed for a point: with a tracker that knows its objects, and with real weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spmtrack_core.data.scene import scene
from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.propose import SIZES, find_candidates, propose_box
from spmtrack_core.tracking.result import TrackResult, TrackState

FRAME = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
PLAIN = np.full((120, 160, 3), 90, np.uint8)
OBJECT = np.array([40.0, 30.0, 50.0, 36.0])


def picture():
    frame = PLAIN.copy()
    frame[30:66, 40:90] = (220, 60, 30)
    return frame


class Knowing:
    """Finds its object from any template that overlaps it by a quarter, and else the template."""

    def __init__(self):
        self.sizes = []

    def start(self, frame, box_xywh):
        assert np.isfinite(box_xywh).all() and min(box_xywh[2:]) > 0
        return np.array(box_xywh)

    def follow(self, frame, targets):
        self.sizes.append(len(targets))
        results = []
        for box in targets:
            iou = float(iou_xyxy(*xywh_to_xyxy([box, OBJECT])))
            found, confidence = (OBJECT, iou) if iou > 0.25 else (box, 0.1)
            results.append(TrackResult(tuple(found.tolist()), confidence, TrackState.TRACKING))
        return results


@pytest.mark.parametrize("offset", [(0, 0), (10, 6), (-12, 0), (0, -8)])
def test_the_box_that_the_tracker_finds_again_is_proposed(offset):
    tracker = Knowing()
    middle = OBJECT[:2] + OBJECT[2:] / 2
    box = propose_box(tracker, picture(), tuple(middle + offset))
    assert box == tuple(OBJECT.tolist())
    assert tracker.sizes == [5, 2, 1]  # targets in each pass of the network


class Careless(Knowing):
    """Finds thin boxes at the edge of the image, with no confidence."""

    def follow(self, frame, targets):
        box = (frame.shape[1] - 0.5, 0.0, 0.5, frame.shape[0])
        return [TrackResult(box, 0.0, TrackState.LOST) for _ in targets]


@settings(max_examples=20)
@given(x=st.floats(0, 159.9), y=st.floats(0, 119.9), kind=st.sampled_from([Knowing, Careless]))
def test_any_point_of_the_frame_gives_a_box_inside_of_it(x, y, kind):
    left, top, w, h = propose_box(kind(), FRAME, (x, y))
    found = find_candidates(kind(), FRAME, (x, y), SIZES)
    assert found.quality.shape == SIZES.shape
    assert (found.quality > 0).all() and (found.quality < 1).all()
    assert 0 <= left <= 160 - w and 0 <= top <= 120 - h and min(w, h) >= 3


@pytest.mark.parametrize("point", [(160, 5), (5, 120), (-0.1, 5), (np.nan, 5)])
def test_a_point_outside_of_the_frame_is_an_error(point):
    with pytest.raises(ValueError, match=r"lies outside the image of 160 x 120 px"):
        propose_box(Knowing(), FRAME, point)


def test_an_image_of_one_color_gives_a_box_as_well(tiny_checkpoint):
    x, y, w, h = propose_box(load_tracker(tiny_checkpoint, "cpu"), PLAIN, (80, 60))
    assert 0 <= x < x + w <= 160 and 0 <= y < y + h <= 120


def test_the_bundled_weights_propose_the_target_of_the_scene():
    pytest.importorskip("skimage", reason="the scene needs scikit-image")
    sequence = scene()
    frame, truth = next(iter(sequence)), sequence.boxes_xywh[0]
    tracker = load_tracker("nano", "cpu")
    tracker.init(frame, truth)
    before = tracker.target.references.entries
    box = propose_box(tracker, frame, tuple(truth[:2] + truth[2:] / 2))
    assert iou_xyxy(*xywh_to_xyxy([box, truth])) > 0.5
    assert tracker.target.references.entries == before
