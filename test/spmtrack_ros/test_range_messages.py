"""Messages of range sensors as arrays: well formed, odd and broken ones."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_ros.range_messages import Recent, cloud_to_points, depth_to_array, scan_to_points


def depth_message(array, encoding, padding=0, big=False):
    kind = array.dtype.newbyteorder(">" if big else "<")
    rows = [row.astype(kind).tobytes() + bytes(padding) for row in array]
    return SimpleNamespace(
        encoding=encoding,
        is_bigendian=int(big),
        height=array.shape[0],
        width=array.shape[1],
        step=array.shape[1] * array.itemsize + padding,
        data=b"".join(rows),
    )


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("big", [False, True])
def test_depth_in_both_encodings(padding, big):
    meters = np.array([[1.5, np.nan, 0.0], [2.25, np.inf, 60.0]], np.float32)
    message = depth_message(meters, "32FC1", padding, big)
    np.testing.assert_array_equal(depth_to_array(message), meters)
    millimeters = np.array([[1500, 0, 65535]], np.uint16)
    found = depth_to_array(depth_message(millimeters, "16UC1", padding, big))
    np.testing.assert_allclose(found, [[1.5, 0, 65.535]], rtol=1e-6)


def test_the_padding_of_the_last_row_may_be_absent():
    meters = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    message = depth_message(meters, "32FC1", padding=4)
    message.data = message.data[:-4]
    np.testing.assert_array_equal(depth_to_array(message), meters)


BROKEN_DEPTH = [
    ({"encoding": "rgb8"}, "depth image is rgb8: expected 16UC1 or 32FC1"),
    ({"data": b"1234"}, "have 4 bytes: expected 2 rows of 12"),
    ({"step": 1}, "step of 1 bytes is shorter than a row"),
    ({"height": 0, "data": b""}, "3 x 0 px"),
    ({"height": 10**6}, "expected 1000000 rows"),
]


@pytest.mark.parametrize(("changes", "words"), BROKEN_DEPTH)
def test_broken_depth_images_are_refused(changes, words):
    message = depth_message(np.ones((2, 3), np.float32), "32FC1")
    with pytest.raises(ValueError, match=words):
        depth_to_array(SimpleNamespace(**{**vars(message), **changes}))


@given(st.lists(st.floats(width=32), max_size=20))
def test_scans_give_finite_points_within_their_range(ranges):
    message = SimpleNamespace(
        ranges=ranges, angle_min=-1.0, angle_increment=0.1, range_min=0.1, range_max=30.0
    )
    points = scan_to_points(message)
    assert points.shape[1] == 2 and np.isfinite(points).all()
    away = np.hypot(*points.T)
    assert (away >= 0.0999).all() and (away <= 30.001).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 10.0), (0.1, 10.0), (0.0, np.inf)])
def test_a_ray_of_a_scan_that_met_nothing_is_no_point(low, high):
    ranges = [0.0, 3.0, high, np.inf, np.nan]
    message = SimpleNamespace(
        ranges=ranges, angle_min=0.0, angle_increment=0.1, range_min=low, range_max=high
    )
    assert np.hypot(*scan_to_points(message).T) == pytest.approx([3.0])


def cloud_message(points, kind="<f4", extra=4, height=1, **changes):
    """Points with further bytes after x, y and z."""
    size = np.dtype(kind).itemsize
    rows = [row.astype(kind).tobytes() + bytes(extra) for row in points]
    step, width = 3 * size + extra, len(points) // height
    fields = [
        SimpleNamespace(name=name, offset=index * size, datatype=7 if size == 4 else 8)
        for index, name in enumerate("xyz")
    ]
    return SimpleNamespace(
        **{
            "fields": fields,
            "is_bigendian": kind[0] == ">",
            "point_step": step,
            "row_step": step * width,
            "height": height,
            "width": width,
            "data": b"".join(rows),
        }
        | changes
    )


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8"])
@pytest.mark.parametrize("height", [1, 2])
def test_clouds_without_their_gaps(kind, height):
    gaps = [(np.nan, 0, 1), (7, 8, np.inf), (0, 0, 0), (-0.0, 0, 0)]
    points = np.array([(1, 2, 3), *gaps, (4, 0, 0)], np.float64)
    found = cloud_to_points(cloud_message(points, kind, height=height))
    np.testing.assert_array_equal(found, points[[0, -1]])
    assert cloud_to_points(cloud_message(points[:0], kind)).shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fields": []}, "expected real x, y and z"),
        ({"data": b"12"}, "has 2 bytes"),
        ({"row_step": 3}, "expected 32 or more"),
        ({"width": 10**6}, "1000000 x 1"),
    ],
)
def test_broken_clouds_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        cloud_to_points(cloud_message(np.ones((2, 3)), **changes))


def test_a_field_of_whole_numbers_is_refused():
    message = cloud_message(np.ones((2, 3)))
    message.fields[1].datatype = 5
    with pytest.raises(ValueError, match="expected real x, y and z"):
        cloud_to_points(message)


@pytest.mark.parametrize("offset", [13, 2**31 - 1, 2**32 - 4])  # to numpy they end below 0
def test_a_field_outside_its_point_is_refused(offset):
    message = cloud_message(np.ones((2, 3)))
    message.fields[1].offset = offset
    with pytest.raises(ValueError, match="points of 16 bytes, but x, y and z end at"):
        cloud_to_points(message)


def message_at(seconds, **fields):
    stamp = SimpleNamespace(sec=seconds, nanosec=0)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), **fields)


def test_the_closest_message_within_the_tolerance():
    recent = Recent("scan", tolerance=0.1, count=3)
    with pytest.raises(ValueError, match="no scan has arrived"):
        recent.at(0)
    for seconds in range(5):
        recent.add(message_at(seconds))
    assert recent.at(3_060_000_000).header.stamp.sec == 3
    with pytest.raises(ValueError, match=r"the closest scan is 0\.400 s away, expected 0\.1 s"):
        recent.at(3_400_000_000)
    with pytest.raises(ValueError, match=r"1\.000 s away"):  # only three are kept
        recent.at(1_000_000_000)


@pytest.mark.parametrize(("size", "kept"), [(30_000_000, 3), (200_000_000, 1)])
def test_large_messages_are_kept_up_to_100_mb_and_the_last_one_always(size, kept):
    recent, data = Recent("point cloud", tolerance=0.1, count=30), bytes(size)
    for seconds in range(10):
        recent.add(message_at(seconds, data=data))
    assert recent.at((10 - kept) * 10**9)
    with pytest.raises(ValueError, match=r"1\.000 s away"):
        recent.at((9 - kept) * 10**9)


# Each row: whether the message of that time in ms is expected after one of 1000, and why.
EXPECTED = [
    (True, 1200, "the next one may be that"),
    (True, 2000, "just within the time after which nobody waits"),
    (False, 2001, "the sensor has ended"),
    (False, 1100, "within the tolerance: it has come"),
    (False, 900, "too late"),
]


@pytest.mark.parametrize(("expected", "milliseconds", "_why"), EXPECTED)
def test_a_message_is_expected_while_the_sensor_sends(expected, milliseconds, _why):
    recent = Recent("scan", tolerance=0.1, count=3)
    assert not recent.expects(milliseconds * 10**6)
    recent.add(message_at(1))
    assert recent.expects(milliseconds * 10**6) == expected
