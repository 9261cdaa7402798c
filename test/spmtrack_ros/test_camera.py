"""Directions of pixels, against OpenCV's projection of the same directions and by hand."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_ros.camera import direction, frame_problem

LENSES = [  # model, coefficients: typical calibrations
    ("plumb_bob", (-0.3, 0.1, 0.001, -0.002, 0.0)),
    ("plumb_bob", (-0.4, 0.2, 0.0, 0.0)),
    ("rational_polynomial", (-0.3, 0.1, 0.001, 0.001, 0.0, 0.1, 0.02, 0.01)),
    ("equidistant", (0.05, -0.01, 0.002, -0.001)),
]


def make_info(model="plumb_bob", d=(), binning=0, roi=(0, 0, 0, 0), **changes):
    """A camera of 640 x 480 px, focal length 500 px, principal point in the center."""
    fields = {
        "width": 640,
        "height": 480,
        "distortion_model": model,
        "d": d,
        "k": (500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0),
        "p": (250.0, 0.0, 319.5, -25.0, 0.0, 250.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0),
        "binning_x": binning,
        "binning_y": binning,
    }
    x, y, w, h = roi
    window = SimpleNamespace(x_offset=x, y_offset=y, width=w, height=h)
    return SimpleNamespace(roi=window, **fields | changes)


@pytest.mark.parametrize(
    ("info", "image_hw", "point", "rectified", "slopes"),
    [
        (make_info(), (480, 640), (320, 240), False, (0, 0)),  # the center of an even image
        (make_info(), (480, 640), (570, 140), False, (0.5, -0.2)),  # right of it, and above
        (make_info(d=(0.0,) * 5), (480, 640), (570, 140), False, (0.5, -0.2)),
        (
            make_info("made up", (0.0,) * 3),
            (480, 640),
            (320, 240),
            False,
            (0, 0),
        ),  # all coefficients 0: no distortion
        (make_info(binning=2), (240, 320), (285, 70), False, (0.5, -0.2)),  # half the pixels
        (make_info(roi=(100, 50, 200, 100)), (100, 200), (220, 190), False, (0, 0)),
        (make_info(roi=(100, 50, 200, 100), binning=2), (50, 100), (110, 95), False, (0, 0)),
        (make_info(d=(-0.3, 0.1, 0, 0)), (480, 640), (570, 140), True, (1, -0.4)),  # P, no lens
    ],
)
def test_by_hand(info, image_hw, point, rectified, slopes):
    x, y, z = direction(info, image_hw, point, rectified)
    assert (x / z, y / z) == pytest.approx(slopes)
    assert x * x + y * y + z * z == pytest.approx(1) and z > 0


@given(st.sampled_from(LENSES), st.floats(0, 640), st.floats(0, 480))
def test_directions_are_projected_to_their_points(lens, x, y):
    model, coefficients = lens
    info = make_info(model, coefficients)
    ray = np.array(direction(info, (480, 640), (x, y)))
    opencv = cv2.fisheye if model == "equidistant" else cv2
    rays, zeros = (ray / ray[2]).reshape(1, 1, 3), np.zeros(3)
    matrix = np.reshape(info.k, (3, 3))
    point, _ = opencv.projectPoints(rays, zeros, zeros, matrix, np.array(coefficients))
    assert point.ravel() + 0.5 == pytest.approx((x, y), abs=1e-3)


@pytest.mark.parametrize(
    ("info", "point", "words"),
    [
        (make_info(k=(0.0,) * 9), (1, 1), "no calibration"),  # sent by drivers without calibration
        (make_info(width=1280), (1, 1), "1280 x 480"),
        (make_info(width=0), (1, 1), "0 x 480 px with binning 1 x 1"),  # of some simulators
        (make_info(height=0), (1, 1), "640 x 0 px"),
        (make_info(height=1, binning=2), (1, 1), "640 x 1 px with binning 2 x 2"),
        (make_info(binning=2), (1, 1), "320 x 240"),
        (make_info(roi=(0, 0, 64, 48)), (1, 1), "64 x 48"),
        (make_info("thin_prism", (0.1, 0.2)), (1, 1), "thin_prism"),
        (make_info("plumb_bob", (0.1, 0.2)), (1, 1), "with 2 coefficients"),
        (make_info("plumb_bob", (-9.0, 0.0, 0.0, 0.0)), (1, 1), "cannot be inverted"),
        (make_info(d=(-0.3, 0.1, 0, 0)), (float("nan"), 1), "cannot be inverted"),
        (make_info(k=(500.0, 0, float("nan"), 0, 500.0, 0, 0, 0, 1)), (1, 1), "no direction"),
        (make_info(k=(500.0, 0, 320, 0, 500.0, 240, 0, 0, -1)), (1, 1), "no direction"),
    ],
)
def test_points_without_a_direction_are_rejected(info, point, words):
    with pytest.raises(ValueError, match=words):
        direction(info, (480, 640), point)


@pytest.mark.parametrize(
    ("own", "images", "told"),
    [
        ("left", "left", False),
        ("", "left", False),
        ("left", "", False),
        ("/left", "left", False),
        ("left", "/left", False),
        ("left", "right", True),
    ],
)
def test_frames_that_differ_are_told(own, images, told):
    info = make_info(header=SimpleNamespace(frame_id=own))
    assert bool(frame_problem(info, images)) == told
