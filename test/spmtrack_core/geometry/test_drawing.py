"""Boxes drawn into a frame, inside and outside of it."""

from __future__ import annotations

import numpy as np
import pytest

from spmtrack_core.geometry.drawing import DASHED, DOTTED, draw_box

FRAME = np.random.default_rng(0).integers(0, 255, (47, 65, 3), np.uint8)


@pytest.mark.parametrize(
    "box",
    [
        (5, 5, 20, 20),
        (-9, -9, 200, 200),
        (60, 40, 50, 50),
        (1e6, 0, 5, 5),
        (-1e12, 5, 2e12, 5),
        (np.nan,) * 4,
        None,
    ],
)
def test_any_box_can_be_drawn_and_the_frame_is_unchanged(box):
    before = FRAME.copy()
    drawn = draw_box(FRAME, box, "0.93")
    assert drawn.shape == FRAME.shape
    assert not np.array_equal(drawn, FRAME)
    np.testing.assert_array_equal(before, FRAME)


def edge(dash, box=(10, 10, 60, 40), hw=(70, 90)):
    """Which pixels of the upper and of the left edge of a box are drawn on black."""
    drawn = draw_box(np.zeros((*hw, 3), np.uint8), box, color=(255, 255, 255), dash=dash)
    x, y, w, h = box
    return drawn[y, x : x + w, 0] > 100, drawn[y : y + h, x, 0] > 100


@pytest.mark.parametrize(
    ("dash", "low", "high", "runs"),
    [
        (None, 1.0, 1.0, 1),
        (DASHED, 0.55, 0.85, 3),
        (DOTTED, 0.1, 0.5, 5),
    ],
)
def test_outlines_are_told_apart_by_their_dashes(dash, low, high, runs):
    for side in edge(dash):
        assert low <= side.mean() <= high
        assert np.count_nonzero(np.diff(side.astype(int)) > 0) + side[0] >= runs


def test_a_dashed_outline_that_is_far_outside_ends_soon():
    far = draw_box(FRAME, (-1e12, 5, 2e12, 5), dash=DOTTED)
    assert not np.array_equal(far, FRAME)
