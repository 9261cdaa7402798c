"""Boxes drawn into a frame, inside and outside of it."""

from __future__ import annotations

import numpy as np
import pytest

from spmtrack_core.geometry.drawing import draw_box

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
