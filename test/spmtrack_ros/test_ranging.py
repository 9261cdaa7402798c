"""Ranges and positions of boxes whose true place is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spmtrack_ros.camera import direction, image_size, project
from spmtrack_ros.ranging import (
    Range,
    cloud_range,
    depth_range,
    foreground,
    ground_range,
    position,
    scan_range,
    size_range,
    tilted_up,
    view_bearing,
    view_box,
)
from test.spmtrack_ros.test_camera import LENSES, make_info

INFO = make_info()
HW = image_size(INFO)
SHARE = 0.25
PLACES = st.tuples(st.floats(-1.5, 1.5), st.floats(-1.0, 1.0), st.floats(2.5, 10.0))


def view_of(box, info=INFO, jitter=2.0):
    return view_box(partial(direction, info, image_size(info)), box, image_size(info), jitter)


def box_around(center, width, height, info=INFO):
    """The box of a flat target that faces the camera, by projection of its corners."""
    half = np.array((width / 2, height / 2, 0))
    corners = np.array((center - half, center + half))
    (x, y), (right, bottom) = project(info, corners)
    return float(x), float(y), float(right - x), float(bottom - y)


@given(st.sampled_from([*LENSES, ("plumb_bob", ())]), PLACES)
def test_projection_and_direction_are_inverse(lens, place):
    model, coefficients = lens
    info = make_info(model, coefficients, binning=2, roi=(40, 20, 560, 440))
    ((x, y),) = project(info, np.array([place]))
    assume(0 < x < 280 and 0 < y < 220)
    ray = np.array(direction(info, image_size(info), (x, y)))
    assert ray * np.linalg.norm(place) == pytest.approx(place, rel=1e-3, abs=1e-3)


def test_points_behind_the_camera_have_no_pixel():
    pixels = project(INFO, np.array([(0, 0, 1), (0, 0, -1), (0, 0, 0), (np.nan, 0, 1)]))
    assert pixels[0] == pytest.approx((320, 240)) and np.isnan(pixels[1:]).any(axis=1).all()


@given(PLACES, st.floats(0.2, 0.8), st.floats(0.2, 0.8))
def test_size_range_finds_the_place_and_the_view_its_size(place, width, height):
    view = view_of(box_around(place, width, height))
    assume(not view.cut)
    for known in ((height, 0.0), (0.0, width), (height, width)):
        measured = size_range(view, *known, size_spread=0.05)
        point, _ = position(view, measured, 0.0)
        assert point == pytest.approx(place, abs=0.01)
        assert measured.deviation >= 0.05 * measured.distance
    assert view.size(measured.distance) == pytest.approx((width, height), rel=0.01)


def test_height_and_width_that_disagree_are_less_certain():
    whole = box_around((0.0, 0.0, 3.0), 0.5, 1.6)
    legs_hidden = (*whole[:3], whole[3] / 2)
    for box, low, high in ((whole, 0.15, 0.16), (legs_hidden, 1.0, 2.0)):
        measured = size_range(view_of(box), 1.6, 0.5, size_spread=0.05)
        assert low < measured.deviation < high
        assert measured.distance == pytest.approx(3.0, abs=measured.deviation)


@given(st.floats(0.3, 2.0), st.floats(-0.2, 0.9), st.floats(1.0, 8.0), st.floats(-0.5, 0.5))
def test_ground_range_finds_the_place(camera_height, pitch, away, aside):
    """A target 0.5 m high on the ground, by a camera that looks down."""
    up = tilted_up(pitch)
    forward = np.array((0.0, -np.sin(pitch), np.cos(pitch)))  # along the ground
    foot = away * forward - camera_height * up + np.array((aside, 0.0, 0.0))
    middle = foot + 0.25 * up
    ((_, bottom),) = project(INFO, foot)
    ((x, y),) = project(INFO, middle)
    box = (x - 20, y - (bottom - y), 40.0, 2 * (bottom - y))
    assume(np.isfinite(box).all() and bottom < 470 and box[3] > 4)
    try:
        view = view_of(box, jitter=1.0)
        measured = ground_range(view, camera_height, up, 0.02)
    except ValueError:
        return  # at the horizon, or out of the image
    point, _ = position(view, measured, 0.0)
    # the box is upright and the target leans in a tilted camera: at most 5 % in these ranges
    assert point == pytest.approx(middle, abs=0.05 * away)
    assert measured.deviation > 0.019 * away


@pytest.mark.parametrize(("left", "focal"), [(300.0, 500.0), (20.0, 250.0)])  # 50° off the axis
def test_the_spread_of_a_ground_range_is_that_of_jittering_boxes(left, focal):
    random, up = np.random.default_rng(0), tilted_up(0.1)
    info = make_info(k=(focal, 0, 319.5, 0, focal, 239.5, 0, 0, 1))
    boxes = [
        (left, 260.0, 40.0, 80.0 + change) for change in (0, *random.normal(0, 2.0 * 2**0.5, 500))
    ]
    expected, *jittered = (ground_range(view_of(box, info), 0.6, up) for box in boxes)
    assert np.std([each.distance for each in jittered]) == pytest.approx(
        expected.deviation, rel=0.15
    )


@pytest.mark.parametrize(
    ("box", "height", "pitch", "words"),
    [
        ((300, 200, 40, 30), 0.5, 0.0, "horizon"),  # ends above the middle of the image
        ((300, 200, 40, 41), 0.5, 0.0, "horizon"),  # a pixel below it: as good as infinite
        ((300, 300, 40, 177), 0.5, 0.0, "cuts the lower side"),
        ((300, 200, 40, 80), 5.0, np.pi / 2, "straight below"),  # a flying camera
        ((300, 200, 40, 100), 0.0, 0.0, "expected more than 0"),
        ((300, 200, 40, 100), float("nan"), 0.0, "expected more than 0"),
    ],
)
def test_ground_ranges_that_are_refused(box, height, pitch, words):
    with pytest.raises(ValueError, match=words):
        ground_range(view_of(box), height, tilted_up(pitch))


def test_sizes_that_are_refused():
    with pytest.raises(ValueError, match="neither height nor width"):
        size_range(view_of((300, 200, 40, 30)), 0.0, 0.0, 0.05)
    for top in (0, 3):  # px; the box of a cut target may end a little before the border
        cut = view_of((300, top, 40, 30))
        with pytest.raises(ValueError, match="cuts the height"):
            size_range(cut, 1.0, 0.0, 0.05)
    assert size_range(view_of((300, 4, 40, 30)), 1.0, 0.0, 0.05).distance > 0
    assert size_range(cut, 1.0, 0.5, 0.05).distance > 0  # by the width alone


@pytest.mark.parametrize(
    "box", [(1, 1, 0, 5), (1, 1, 5, -1), (np.nan, 1, 5, 5), (1, 1, np.inf, 5)]
)
def test_boxes_without_area_are_refused(box):
    with pytest.raises(ValueError, match="positive size"):
        view_of(box)


@pytest.mark.parametrize("ray", [(0, 0, 0), (0, 0, -1), (np.nan, 0, 1), (np.inf, 0, 1)])
def test_bearings_that_do_not_look_forward_are_refused(ray):
    with pytest.raises(ValueError, match="bearing"):
        view_bearing(ray, 0.1, 0.01)


@given(st.floats(-0.8, 0.8), st.floats(-0.5, 0.5), st.floats(0.01, 0.3))
def test_a_bearing_looks_as_a_square_of_its_angle(x, y, angle):
    view = view_bearing((3 * x, 3 * y, 3.0), angle, 0.01)
    for side in (view.left, view.right, view.top, view.bottom):
        assert np.arccos(side @ view.center) == pytest.approx(angle, abs=1e-6)


SURFACES = [
    # nearest surface with a share of 0.25: reason
    ([2.0] * 50 + [6.0] * 50, 2.0),  # target before a wall
    ([2.0] * 30 + [6.0] * 70, 2.0),  # a thin target
    ([0.5] * 10 + [2.0] * 40 + [6.0] * 50, 2.0),  # a branch before the target
    ([2.0] * 5 + [6.0] * 95, 6.0),  # noise before a wall
    ([2.0, 2.02, 1.98] * 20 + [np.nan, 0.0, np.inf, -1.0] * 50, 2.0),  # half invalid
    (list(np.linspace(1.8, 2.2, 60)) + [9.0] * 40, 2.0),  # a round target
    ([1.0] * 20 + [2.0] * 21 + [3.0] * 20 + [4.0] * 20 + [5.0] * 19, 2.0),  # none has the share
]


@pytest.mark.parametrize(("values", "expected"), SURFACES)
def test_the_nearest_surface_counts(values, expected):
    values = np.random.default_rng(0).permutation(values)
    assert foreground(values, 0.25)[0] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("values", "others"),
    [
        ([1.0] * 20 + [2.0] * 20 + [3.0] * 20 + [4.0] * 20 + [5.0] * 20, 2.0),  # leaves
        ([3.0, 8.0, 8.0], 2.5),  # few points of a cloud: on the target, and on the wall behind
        ([3.0, 3.0, 8.0, 8.0, 8.0], 2.5),
    ],
)
def test_where_no_surface_counts_the_spread_is_that_of_all(values, others):
    assert foreground(np.array(values), 0.25)[1] > others
    assert foreground(np.array(values * 4), 0.1)[1] < 0.01  # now the nearest one counts


@given(st.lists(st.floats(width=32), max_size=40))
def test_foreground_is_finite_or_refused(values):
    try:
        median, spread = foreground(np.array(values), 0.25)
    except ValueError:
        return
    assert np.isfinite((median, spread)).all() and median > 0 <= spread


def test_depth_range_of_a_target_before_a_wall_within_the_box_only():
    depth = np.full((480, 640), 6.0, np.float32)
    depth[200:300, 300:340] = 2.0
    depth[:, :290] = 0.5  # something near, beside the box
    depth[220:260:2, 300:340] = np.nan
    box = (300.0, 200.0, 40.0, 100.0)
    view = view_of(box)
    measured = depth_range(depth, box, view, SHARE)
    assert measured.distance * view.center[2] == pytest.approx(2.0)
    assert 0 < measured.deviation < 0.1
    with pytest.raises(ValueError, match="valid distances"):
        depth_range(np.zeros_like(depth), box, view, SHARE)
    for outside in ((-90.0, 200.0, 40.0, 50.0), (700.0, 500.0, 40.0, 50.0)):
        with pytest.raises(ValueError, match="0 valid distances"):
            depth_range(depth, outside, view, SHARE)


def test_a_target_without_depth_is_not_the_wall_at_its_edge():
    box, wall = (270.0, 120.0, 100.0, 240.0), np.full((480, 640), 6.0, np.float32)
    black = wall.copy()
    black[130:350, 275:365] = 0.0
    black[170:190, 310:316] = 6.0  # a gap between arm and body
    with pytest.raises(ValueError, match="1% of the depth in the box is valid, 94%"):
        depth_range(black, box, view_of(box), SHARE)
    for first in (0, 1):  # one pixel of 16, as where a small depth image is registered to a large
        sparse = np.zeros_like(wall)
        sparse[first::4, first::4] = 3.0
        large = (100.0, 100.0, 400.0, 300.0)
        measured = depth_range(sparse, large, view_of(large), SHARE)
        assert measured.distance * view_of(large).center[2] == pytest.approx(3.0)


@given(PLACES)
def test_cloud_range_takes_the_points_in_the_box(place):
    random = np.random.default_rng(0)
    target = np.array(place) + random.uniform(-0.2, 0.2, (200, 3)) * (1, 1, 0)
    wall = random.uniform((-8, -8, 15), (8, 8, 15.1), (2000, 3))
    behind = -target
    view = view_of(box_around(place, 0.4, 0.4))
    measured = cloud_range(np.concatenate((wall, behind, target)), view, SHARE)
    point, covariance = position(view, measured, 0.01)
    assert point == pytest.approx(place, abs=0.02)
    assert (np.linalg.eigvalsh(covariance) > 0).all()


@given(st.floats(-0.6, 0.6), st.floats(1.5, 6.0), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_scan_range_of_a_post(heading, away, shift_x, shift_y):
    """A scanner beside the camera: x forward, y left, z up; the post stands in both views."""
    # from camera (x right, y down, z forward) to scanner
    rotation = np.array(((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)))
    origin = np.array((shift_x, shift_y, 0.4))
    place = away * np.array((np.sin(heading), 0.0, np.cos(heading)))
    assume(abs(project(INFO, place[None])[0, 0] - 320) < 250)
    center = (rotation @ place + origin)[:2]
    post = center + np.stack([np.zeros(9), np.linspace(-0.15, 0.15, 9)], axis=1)
    wall = np.stack([np.full(60, 12.0), np.linspace(-9, 9, 60)], axis=1)
    view = view_of(box_around(place, 0.3, 0.5))
    measured = scan_range(np.concatenate((post, wall)), view, rotation, origin, SHARE)
    assert measured.distance == pytest.approx(away, rel=0.05)


def test_scans_that_are_refused():
    view = view_of((300, 200, 40, 30))
    rotation = np.array(((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)))
    with pytest.raises(ValueError, match="0 valid distances"):
        scan_range(np.zeros((0, 2)), view, rotation, np.zeros(3), SHARE)
    with pytest.raises(ValueError, match="above or below"):
        scan_range(np.ones((9, 2)), view, np.eye(3), np.zeros(3), SHARE)  # looks along its axis


@given(PLACES, st.floats(0.01, 0.5), st.floats(0.0, 0.05))
def test_covariances_are_symmetric_and_positive(place, deviation, focal_spread):
    view = view_of(box_around(place, 0.4, 0.4))
    _, covariance = position(view, Range(4.0, deviation), focal_spread)
    assert covariance == pytest.approx(covariance.T)
    assert (np.linalg.eigvalsh(covariance) > 0).all()


@pytest.mark.parametrize("source", ["depth", "size", "ground"])
def test_the_covariance_is_honest(source):
    """The normalized error is that of chi-square, for boxes each side of which errs on its own."""
    random, place = np.random.default_rng(0), np.array((0.8, 0.3, 4.0))
    x, y, w, h = box_around(place, 0.4, 0.6)
    errors = []
    for _ in range(400):
        left, top, right, bottom = random.normal(0, 2.0 * 2**0.5, 4)
        view = view_of((x + left, y + top, w + right - left, h + bottom - top), jitter=2.0)
        noise, pitch = random.normal(0, 0.03), random.normal(0, 0.01)
        if source == "depth":
            measured = Range((1 + noise) * np.linalg.norm(place), 0.03 * np.linalg.norm(place))
        elif source == "size":
            measured = size_range(view, (1 + noise) * 0.6, 0.0, 0.03)
        else:
            measured = ground_range(view, (1 + noise) * 0.6, tilted_up(pitch), 0.03, 0.01)
        point, covariance = position(view, measured, 0.0)
        error = point - place
        errors.append(error @ np.linalg.solve(covariance, error))
    assert np.mean(errors) == pytest.approx(3.0, abs=0.4)
