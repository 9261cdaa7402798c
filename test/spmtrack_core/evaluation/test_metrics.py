"""Metrics without a benchmark's rules: known values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.evaluation.metrics import (
    confidence_auc,
    frame_iou,
    good_boxes,
    long_term,
    lost_scores,
    mean_iou,
)

nan = [np.nan] * 4
BOX = [10.0, 10.0, 20.0, 20.0]
AWAY = [200.0, 200.0, 20.0, 20.0]


def test_mean_iou_needs_a_box_for_every_frame():
    with pytest.raises(ValueError, match="1 predicted boxes for 2"):
        mean_iou([BOX], [BOX, BOX])


def test_good_boxes_lie_on_a_visible_target():
    half = [10.0, 10.0, 20.0, 10.0]
    assert good_boxes([BOX, half, AWAY, BOX], [BOX, BOX, BOX, nan]).tolist() == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("confidence", "good", "expected", "reason"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0, "apart"),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0, "apart, but the wrong way round"),
        ([0.5, 0.5, 0.5], [1, 0, 0], 0.5, "ties say nothing"),
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75, "three of four pairs in order"),
        ([np.nan, 0.2, 0.8, np.nan], [1, 0, 1, 0], 1.0, "no confidence, no vote"),
    ],
)
def test_confidence_auc(confidence, good, expected, reason):
    assert confidence_auc(confidence, good) == pytest.approx(expected), reason


def test_confidence_auc_needs_boxes_of_both_kinds():
    assert np.isnan(confidence_auc([0.5, 0.7], [True, True]))
    assert np.isnan(confidence_auc([], []))
    assert np.isnan(confidence_auc([float("nan")] * 2, [True, False]))


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40))
def test_confidence_auc_is_the_share_of_ordered_pairs(rows):
    good = [score for score, is_good in rows if is_good]
    bad = [score for score, is_good in rows if not is_good]
    pairs = [(a > b) + (a == b) / 2 for a in good for b in bad]
    got = confidence_auc(*zip(*rows, strict=True))
    assert got == pytest.approx(np.mean(pairs)) if pairs else np.isnan(got)


@pytest.mark.filterwarnings("error")
def test_mean_iou_counts_visible_frames_only():
    assert mean_iou([BOX, [np.inf, 2, 3, 4], [1e200] * 4], [BOX] * 3) == pytest.approx(1 / 3)
    assert mean_iou([BOX, AWAY, BOX], [BOX, nan, BOX]) == 1
    assert np.isnan(mean_iou([BOX], [nan]))


def test_long_term_scores_are_of_the_best_threshold():
    # the target leaves; the confidence falls with it
    iou = np.array([0.8, 0.8, np.nan, np.nan])
    found = long_term([iou], [np.array([0.9, 0.8, 0.2, 0.1])])
    assert found == pytest.approx(
        {"f_score": 0.8, "precision": 0.8, "recall": 0.8, "threshold": 0.8}
    )
    blind = long_term([iou], [np.full(4, 0.5)])  # a box in every frame
    assert (blind["precision"], blind["recall"]) == pytest.approx((0.4, 0.8))
    assert long_term([iou], [np.full(4, np.nan)]) is None


@pytest.mark.parametrize(
    ("lost", "absent", "expected", "reason"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], (1, 1), "as it is"),
        ([1, 0, 0, 0], [1, 1, 0, 0], (1, 0.5), "noticed late"),
        ([1, 1, 1, 1], [1, 1, 0, 0], (0.5, 1), "always lost"),
        ([0, 0, 0, 0], [1, 1, 0, 0], (1, 0), "never said, never wrong"),
    ],
)
def test_lost_is_scored_as_a_detector_of_absence(lost, absent, expected, reason):
    found = lost_scores(lost, absent)
    assert (found["precision"], found["recall"]) == expected, reason


def test_lost_has_no_score_where_the_target_is_never_absent():
    assert lost_scores([True, False], [False, False]) is None


def test_a_prediction_that_is_no_box_has_no_overlap():
    assert frame_iou([BOX, nan, [0, 0, 0, 5]], [BOX, BOX, nan])[:2].tolist() == [1.0, 0.0]
