"""The search for a lost target: regions that cover the frame, and what a tracker makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.geometry.crop import crop_transform
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.recovery import CANDIDATE, MOST_REGIONS, WIDE, Recovery
from spmtrack_core.tracking.result import TrackState

FRAME_HW = (240, 320)


@given(
    place=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
    again=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
    sides=st.tuples(st.floats(3, 90), st.floats(3, 90)),
    factor=st.floats(3.5, 6),
    min_side=st.sampled_from([0.0, 10.0]),
    search_hw=st.sampled_from([(208, 208), (128, 256), (256, 128)]),
)
def test_wherever_a_target_returns_a_region_shows_all_of_it(
    place, again, sides, factor, min_side, search_hw
):
    """Within one round."""
    size, frame_wh = np.array(sides), np.array(FRAME_HW[::-1])
    box = np.concatenate((place * frame_wh - size / 2, place * frame_wh + size / 2))
    wanted = np.clip(again * frame_wh, size / 2, np.maximum(frame_wh - size / 2, size / 2))
    search_wh = np.array(search_hw[::-1])
    region = WIDE * search_wh / crop_transform(box, factor, search_hw, min_side).scale
    search = Recovery(box, factor, FRAME_HW, search_hw, min_side)
    cells = np.ceil(frame_wh / (0.6 * region)).prod()
    shown = []
    for _ in range(2 + int(cells) + 1):
        each = search.next_box()
        middle = (each[:2] + each[2:]) / 2
        half = search_wh / 2 / crop_transform(each, factor, search_hw, min_side).scale
        inside = (wanted - size / 2 >= middle - half - 1e-6) & (
            wanted + size / 2 <= middle + half + 1e-6
        )
        shown.append(inside.all())
    if (size <= 0.4 * region).all():  # the overlap of two regions
        assert any(shown)


def test_the_regions_get_wide_and_then_go_outwards_without_an_end():
    search = Recovery(np.array([100.0, 80, 130, 110]), 4.0, (720, 1280), (208, 208))
    boxes = [search.next_box() for _ in range(200)]
    sides = [each[2] - each[0] for each in boxes[:6]]
    assert sides == pytest.approx([30, *[30 * WIDE] * 5])
    distances = [np.hypot(*((b[:2] + b[2:]) / 2 - (115, 95))) for b in boxes[1:6]]
    assert distances == sorted(distances) and distances[0] == 0


@pytest.mark.parametrize("side", [1.0, 0.01, 1e-9])
def test_the_regions_of_a_target_of_no_size_are_not_too_many(side):
    box = np.array([0.0, 0.0, side, side])
    search = Recovery(box, 4.0, (1080, 1920), (208, 208))
    boxes = [search.next_box() for _ in range(3 + MOST_REGIONS**2)]
    assert any((each == boxes[0]).all() for each in boxes[1:])  # all of it again


FOUND = np.array([200.0, 20, 220, 60])
"""A box with its middle at 210, 40."""


@pytest.mark.parametrize(
    ("regions_before", "confidence", "looked_at"),
    [
        (2, CANDIDATE, True),  # the second region is the first wide one
        (2, CANDIDATE - 0.01, False),  # too little to be a candidate
        (2, np.nan, False),  # no number
        (1, 0.9, False),  # the first region is as close as a look can be
    ],
)
def test_what_a_wide_region_shows_is_looked_at_closely(regions_before, confidence, looked_at):
    box = np.array([100.0, 80, 130, 110])
    search, other = (Recovery(box, 4.0, FRAME_HW, (208, 208)) for _ in range(2))
    for _ in range(regions_before):
        search.next_box(), other.next_box()
    search.doubted(FOUND, confidence)
    if looked_at:  # with the sides that the target had, for one frame
        np.testing.assert_allclose(search.next_box(), [195, 25, 225, 55])
        search.doubted(FOUND, 0.9)
    np.testing.assert_array_equal(search.next_box(), other.next_box())


@pytest.fixture
def tracker(tiny_checkpoint):
    tracker = load_tracker(tiny_checkpoint, device="cpu")
    tracker.config = replace(
        tracker.config,
        recovery="scan",
        lost_threshold=0.5,
        confidence_weight=1.0,
        recovery_threshold=0.7,
        found_margin=0.0,
    )
    return tracker


def answers(tracker, monkeypatch, confidence, place=None):
    """Let ``confidence(center, width)`` of its region, in frame pixels, judge every search.

    What is found is a box about ``place`` (2,), if the region shows it, else about its middle.
    Returns the list that centers and widths are added to.
    """
    searched = []

    def locate(places, crops, backgrounds, references, states, window_weights, box_overlap):
        h, w = tracker.model_config.search_hw
        found = []
        for crop in crops:
            x, y = w / 2, h / 2
            if place is not None:
                x, y = crop.transform.to_crop(np.append(place, place))[:2]
            if not (0 < x < w and 0 < y < h):
                x, y = w / 2, h / 2
            corners = crop.transform.to_frame([0, 0, w, h])
            searched.append(((corners[:2] + corners[2:]) / 2, corners[2] - corners[0]))
            box = [x - 0.1 * w, y - 0.1 * h, x + 0.1 * w, y + 0.1 * h]
            found.append([*box, confidence(*searched[-1])])
        assert len(references) == len(states) == len(crops)
        # a target that is lost can be anywhere in its second region
        assert list(window_weights) == [0.45, 0][: len(crops)]
        return found, np.concatenate(states)

    monkeypatch.setattr(tracker.engine, "locate", locate)
    return searched


def test_a_target_that_returns_elsewhere_is_found_again(tracker, monkeypatch):
    """A wide region that shows it makes it a candidate, a region close about it is certain."""
    frame = np.random.default_rng(0).integers(0, 255, (*FRAME_HW, 3), np.uint8)
    place = np.array([40.0, 40.0])

    def confidence(center, width):
        distance = np.abs(center - place).max()
        if width > 150:
            return 0.3 if distance < width / 2 else 0.1
        return 0.9 if distance < 25 else 0.1

    searched = answers(tracker, monkeypatch, confidence, place)
    tracker.init(frame, (30, 30, 20, 20))
    assert tracker.update(frame).state is TrackState.TRACKING
    references = tracker.target.references.frames
    place[:] = (270, 190)
    states = [tracker.update(frame).state for _ in range(60)]
    assert states[0] is TrackState.LOST and states[-1] is TrackState.TRACKING
    lost = states.count(TrackState.LOST)
    assert 1 < lost < 10 and states[lost:] == [TrackState.TRACKING] * (60 - lost)
    x, y, w, h = tracker.update(frame).box_xywh
    assert abs(x + w / 2 - 270) < 2 and abs(y + h / 2 - 190) < 2
    # one search in each of 62 frames, and a second one in those after a loss
    assert len(searched) == 62 + lost
    # the second searches: usual size, wide, wide ... and a close look at what the last one shows
    centers, widths = zip(*searched[3 : 3 + 2 * (lost - 1) : 2], strict=True)
    assert (np.array(widths) > 150).tolist() == [False, *[True] * (lost - 3), False]
    np.testing.assert_allclose(centers[-1], place, atol=2)
    assert tracker.target.recovery is None
    assert references < tracker.target.references.frames <= references + 60 - lost + 2


def test_the_second_search_begins_at_the_given_box_if_none_was_certain(tracker, monkeypatch):
    frame = np.zeros((*FRAME_HW, 3), np.uint8)
    drifted = np.array([55.0, 55.0])
    searched = answers(tracker, monkeypatch, lambda center, width: 0.3, drifted)
    tracker.init(frame, (30, 30, 20, 20))
    for _ in range(2):
        assert tracker.update(frame).state is TrackState.LOST
    (_, first, second) = (center for center, _ in searched)
    np.testing.assert_allclose(first, drifted, atol=1)
    np.testing.assert_allclose(second, (40, 40), atol=1)


def test_the_second_search_goes_on_in_frames_of_another_size(tracker, monkeypatch):
    frame = np.zeros((*FRAME_HW, 3), np.uint8)
    large = np.zeros((2 * FRAME_HW[0], 2 * FRAME_HW[1], 3), np.uint8)
    searched = answers(tracker, monkeypatch, lambda center, width: 0.3)
    tracker.init(frame, (100, 80, 30, 40))
    for each in [frame] * 9:
        tracker.update(each)
    before = searched.copy()
    searched.clear()
    tracker.init(frame, (100, 80, 30, 40))
    for each in [frame] * 4 + [large] * 5:
        tracker.update(each)
    assert len(searched) == len(before) == 17
    scales = [1] * 7 + [2] * 10
    for (center, width), (center_before, width_before), scale in zip(
        searched, before, scales, strict=True
    ):
        np.testing.assert_allclose(center, scale * center_before, atol=2)
        np.testing.assert_allclose(width, scale * width_before, rtol=0.05)


def test_switching_the_recovery_off_ends_the_second_search(tracker, monkeypatch):
    frame = np.zeros((*FRAME_HW, 3), np.uint8)
    searched = answers(tracker, monkeypatch, lambda center, width: 0.3)
    tracker.init(frame, (30, 30, 20, 20))
    for _ in range(3):
        tracker.update(frame)
    tracker.config = replace(tracker.config, recovery="none")
    searched.clear()
    assert tracker.update(frame).state is TrackState.LOST
    assert len(searched) == 1


@pytest.mark.parametrize("recovery", ["none", "scan"])
def test_a_target_that_does_not_return_stays_lost(tracker, monkeypatch, recovery):
    tracker.config = replace(tracker.config, recovery=recovery)
    frame = np.zeros((*FRAME_HW, 3), np.uint8)
    searched = answers(tracker, monkeypatch, lambda center, width: 0.3)
    tracker.init(frame, (30, 30, 20, 20))
    assert {tracker.update(frame).state for _ in range(30)} == {TrackState.LOST}
    assert len(searched) == (30 if recovery == "none" else 59)
