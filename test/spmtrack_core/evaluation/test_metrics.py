"""Metrics: known values, and the rules for invalid frames and predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.evaluation.metrics import (
    confidence_auc,
    good_boxes,
    mean_iou,
    overlaps,
    success_auc,
    success_curve,
)

nan = [np.nan] * 4
BOX = [10.0, 10.0, 20.0, 20.0]
AWAY = [200.0, 200.0, 20.0, 20.0]


@pytest.mark.parametrize(
    ("predicted", "truth", "expected", "reason"),
    [
        ([AWAY, BOX], [BOX, BOX], [1, 1], "the first frame counts as truth"),
        ([BOX, AWAY], [BOX, BOX], [1, 0], "nothing shared"),
        ([BOX, BOX], [BOX, nan], [1, -1], "an absent target is a failure"),
        ([BOX, BOX], [BOX, [5, 5, 0, 9]], [1, -1], "so is a truth without width"),
        ([BOX, [3, 3, 0, 5]], [BOX, BOX], [1, 1], "an empty box becomes the one before it"),
        ([BOX, [10, 10, 20, 10]], [BOX, BOX], [1, 0.5], "half of it"),
    ],
)
def test_overlaps_follow_the_rules(predicted, truth, expected, reason):
    np.testing.assert_allclose(overlaps(predicted, truth), expected, err_msg=reason)


@pytest.mark.parametrize(
    ("predicted", "match"),
    [
        ([BOX], "1 predicted boxes for 2"),
        ([BOX, nan], "not finite"),
        ([BOX, [0, 0, -1, 5]], "negative"),
    ],
)
def test_predictions_that_cannot_be_scored_are_rejected(predicted, match):
    with pytest.raises(ValueError, match=match):
        overlaps(predicted, [BOX, BOX])


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


def test_a_perfect_run_scores_20_of_21():
    truth = np.tile(BOX, (9, 1))
    assert success_auc(truth, truth) == pytest.approx(20 / 21)  # 1 > 1 is false
    assert mean_iou(truth, truth) == 1


def test_mean_iou_counts_visible_frames_only():
    assert mean_iou([BOX, AWAY, BOX], [BOX, nan, BOX]) == 1
    assert np.isnan(mean_iou([BOX], [nan]))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50))
def test_success_falls_with_the_threshold(values):
    curve = success_curve(values)
    assert (np.diff(curve) <= 0).all()
    assert curve.min() >= 0
    assert curve.max() <= 1


def test_rounding_does_not_lift_a_perfect_run_above_20_of_21():
    truth = np.random.default_rng(0).uniform(1, 300, (500, 4))
    assert success_auc(truth, truth) <= 20 / 21 + 1e-12
