"""Boxes: conversions, clipping, overlap, and the check of a user's box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.geometry import boxes as b

coordinate = st.floats(-1e4, 1e4)
side = st.floats(0.01, 1e4)
box_xywh = st.tuples(coordinate, coordinate, side, side)
nan = float("nan")


@given(box_xywh)
def test_conversions_are_inverse_to_each_other(box):
    for there, back in ((b.xywh_to_xyxy, b.xyxy_to_xywh), (b.xywh_to_cxcywh, b.cxcywh_to_xywh)):
        np.testing.assert_allclose(back(there(box)), box, rtol=1e-9, atol=1e-6)


@given(box_xywh, box_xywh)
def test_iou_is_symmetric_bounded_and_one_for_the_same_box(first, second):
    a, c = b.xywh_to_xyxy(first), b.xywh_to_xyxy(second)
    assert 0 <= b.iou_xyxy(a, c) <= 1 + 1e-9
    np.testing.assert_allclose(b.iou_xyxy(a, c), b.iou_xyxy(c, a))
    np.testing.assert_allclose(b.iou_xyxy(a, a), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "expected", "reason"),
    [
        ([0, 0, 10, 10], [10, 0, 20, 10], 0, "touching edges share nothing"),
        ([0, 0, 10, 10], [0, 0, 5, 10], 0.5, "half covered"),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0, "no area is no overlap"),
        ([5, 5, 1, 1], [0, 0, 9, 9], 0, "a reversed box has no area"),
        ([nan, 0, 10, 10], [0, 0, 10, 10], nan, "absent stays absent"),
    ],
)
def test_iou_of_known_pairs(first, second, expected, reason):
    np.testing.assert_allclose(b.iou_xyxy(first, second), expected, err_msg=reason)


def test_many_boxes_at_once_keep_their_shape_and_input():
    many = np.arange(24.0).reshape(2, 3, 4)
    before = many.copy()
    assert b.xywh_to_xyxy(many).shape == (2, 3, 4)
    assert b.iou_xyxy(many, many[0, 0]).shape == (2, 3)
    b.clip_xyxy(many, (5, 5))
    np.testing.assert_array_equal(many, before)


@pytest.mark.parametrize(
    ("box", "match"),
    [
        ((0, 0, 5, 0), "no area"),
        ((0, 0, -5, 5), "no area"),
        ((0, 0, 5, nan), "not finite"),
        ((0, 0, 5, float("inf")), "not finite"),
        ((100, 0, 5, 5), "outside the image of 100 x 80"),
        ((0, -6, 5, 5), "outside the image"),
        ((0, 0, 1e300, 1e300), "must have sides of"),
        ((9, 9, 1e-300, 5), "must have sides of"),
        ((1, 2, 3), "shape"),
        ("box", "four numbers"),
        (None, "four numbers|shape"),
        ((1, 2, 3, "x"), "four numbers"),
    ],
)
def test_unusable_boxes_are_rejected_with_their_value(box, match):
    with pytest.raises(ValueError, match=match):
        b.check_box_xywh(box, (80, 100))


@pytest.mark.parametrize("box", [(-3, -3, 4, 4), (99, 79, 50, 50), (0.5, 0.25, 0.1, 0.1)])
def test_a_box_that_overlaps_the_image_is_returned_unchanged(box):
    assert b.check_box_xywh(box, (80, 100)).tolist() == list(box)


def test_arrays_of_another_shape_are_rejected():
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        b.xywh_to_xyxy([1, 2, 3])
