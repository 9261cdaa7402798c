"""Messages to arrays and back, on plain objects with the fields of the messages."""

from __future__ import annotations

import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spmtrack_ros.conversions import (
    bbox_to_xywh,
    compressed_to_array,
    fill_bbox,
    fill_detection,
    fill_image,
    fill_stamp,
    image_to_array,
    normalized_to_pixels,
    stamp_to_ns,
)

RED, GREEN = (250, 10, 20), (5, 240, 30)


def image_message(encoding, rows, padding=0, data=None, **fields):
    """rows: pixel tuples in the encoding's own order."""
    height, width, channels = len(rows), len(rows[0]), len(rows[0][0])
    step = width * channels + padding
    if data is None:
        data = b"".join(bytes(sum(row, ())) + b"\xaa" * padding for row in rows)
    message = SimpleNamespace(
        height=height, width=width, encoding=encoding, step=step, data=array.array("B", data)
    )
    vars(message).update(fields)
    return message


def bbox(x, y, w, h, theta=0.0):
    position = SimpleNamespace(x=x, y=y)
    center = SimpleNamespace(position=position, theta=theta)
    return SimpleNamespace(center=center, size_x=w, size_y=h)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", [RED, GREEN]),
        ("bgr8", [RED[::-1], GREEN[::-1]]),
        ("8UC3", [RED[::-1], GREEN[::-1]]),
        ("rgba8", [(*RED, 7), (*GREEN, 8)]),
        ("bgra8", [(*RED[::-1], 7), (*GREEN[::-1], 8)]),
        ("8UC4", [(*RED[::-1], 7), (*GREEN[::-1], 8)]),
    ],
)
def test_color_encodings(encoding, pixels, padding):
    image = image_to_array(image_message(encoding, [pixels, pixels[::-1]], padding))
    assert image.dtype == np.uint8
    assert image.tolist() == [[list(RED), list(GREEN)], [list(GREEN), list(RED)]]


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
@pytest.mark.parametrize("padding", [0, 3])
def test_grey_has_three_equal_channels(encoding, padding):
    image = image_to_array(image_message(encoding, [[(9,), (200,)]], padding))
    assert image.tolist() == [[[9, 9, 9], [200, 200, 200]]]


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_named_from_the_first_pixel(order, padding):
    levels = dict(zip("rgb", RED, strict=True))
    rows = [[(levels[order[2 * (y % 2) + x % 2]],) for x in range(6)] for y in range(4)]
    image = image_to_array(image_message(f"bayer_{order}8", rows, padding))
    assert image.reshape(-1, 3).tolist() == 24 * [list(RED)]


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("encoding", ["uyvy", "yuyv", "yuv422", "yuv422_yuy2"])
def test_yuv422(encoding, padding):
    y, u, v = 120, 90, 200  # a red
    pixels = [(y, u), (y, v)] if encoding in ("yuyv", "yuv422_yuy2") else [(u, y), (v, y)]
    image = image_to_array(image_message(encoding, [pixels, pixels], padding))
    expected = cv2.cvtColor(np.full((1, 1, 3), (y, v, u), np.uint8), cv2.COLOR_YCrCb2RGB)[0, 0]
    assert image.shape == (2, 2, 3)
    assert np.abs(image.astype(int) - expected).max() < 30  # the ranges differ a little
    assert image[0, 0, 0] > image[0, 0, 1] + 100


def test_rgb8_is_a_view_of_the_message_also_with_padding():
    for padding in (0, 4):
        message = image_message("rgb8", [[RED, GREEN]] * 2, padding)
        image = image_to_array(message)
        message.data[0] = 99
        assert image[0, 0, 0] == 99


def test_last_row_without_padding_as_some_drivers_send_it():
    message = image_message("rgb8", [[RED], [GREEN]], padding=2)
    del message.data[-2:]
    assert image_to_array(message).tolist() == [[list(RED)], [list(GREEN)]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encoding": "nv21"}, "'nv21' is not one of rgb8"),
        ({"encoding": "yuv422", "width": 1, "step": 6}, "yuv422 cannot have 1 x 2 px"),
        ({"encoding": ""}, "is not one of"),
        ({"encoding": "mono16"}, "is not one of"),
        ({"height": 0}, "is empty"),
        ({"width": 0}, "is empty"),
        ({"step": 5}, "shorter than a row"),
        ({"step": 0}, "shorter than a row"),  # drivers that forget the field
        ({"data": array.array("B", bytes(11))}, "11 bytes"),
        ({"data": array.array("B", bytes(13))}, "13 bytes"),
        ({"data": array.array("B")}, "0 bytes"),
        ({"encoding": "rgba8"}, "shorter than a row"),
    ],
)
def test_inconsistent_images_are_rejected(fields, words):
    with pytest.raises(ValueError, match=words):
        image_to_array(image_message(**{"encoding": "rgb8", "rows": [[RED, GREEN]] * 2, **fields}))


@settings(deadline=None)
@given(
    height=st.integers(0, 5),
    width=st.integers(0, 5),
    step=st.integers(0, 40),
    size=st.integers(0, 200),
    encoding=st.sampled_from(["rgb8", "rgba8", "bgra8", "mono8", "bayer_gbrg8", "8UC3", "none"]),
)
def test_any_numbers_give_an_image_or_a_value_error(height, width, step, size, encoding):
    message = SimpleNamespace(height=height, width=width, step=step, encoding=encoding)
    message.data = array.array("B", bytes(size))
    try:
        image = image_to_array(message)
    except ValueError:
        return
    assert image.shape == (height, width, 3) and not image.any()


@settings(deadline=None)
@given(
    height=st.integers(1, 6), width=st.integers(1, 6), flip=st.booleans(), seed=st.integers(0, 99)
)
def test_array_to_message_and_back(height, width, flip, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = image[::-1, ::-1] if flip else image  # not contiguous
    message = fill_image(SimpleNamespace(), image, "header")
    assert (message.header, message.encoding, message.step) == ("header", "rgb8", 3 * width)
    assert isinstance(message.data, array.array)
    assert np.array_equal(image_to_array(message), image)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)]
)
def test_arrays_that_are_no_rgb_image_are_rejected(image):
    with pytest.raises(ValueError, match="uint8"):
        fill_image(SimpleNamespace(), image, None)


def test_compressed():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = RED
    for format_ in ("png", "jpeg"):
        data = cv2.imencode(f".{format_}", image[..., ::-1])[1].tobytes()
        message = SimpleNamespace(format=format_, data=array.array("B", data))
        decoded = compressed_to_array(message)
        assert decoded.shape == image.shape
        assert np.abs(decoded.astype(int) - image)[:, [0, -1]].max() < 12


def test_a_rotation_in_exif_is_ignored():
    image = np.zeros((20, 30, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08\0\1" + b"\1\x12\0\3\0\0\0\1\0\6\0\0" + bytes(4)  # turn by 90 degrees
    exif = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
    data = jpeg[:2] + exif + jpeg[2:]
    turned = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert turned.shape == (30, 20, 3)
    message = SimpleNamespace(format="jpeg", data=array.array("B", data))
    assert compressed_to_array(message).shape == (20, 30, 3)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0broken"])
def test_undecodable_compressed_images_are_rejected(data):
    message = SimpleNamespace(format="jpeg", data=array.array("B", data))
    with pytest.raises(ValueError, match=f"{len(data)} bytes"):
        compressed_to_array(message)


FINITE = st.floats(-1e6, 1e6)


@settings(deadline=None)
@given(box=st.tuples(FINITE, FINITE, FINITE, FINITE))
def test_box_to_message_and_back(box):
    message = fill_bbox(bbox(0, 0, 0, 0, theta=1.0), box)
    assert bbox_to_xywh(message) == pytest.approx(box, abs=1e-6)


def test_box_is_center_and_full_size():
    assert bbox_to_xywh(bbox(25.5, 40.0, 30.0, 40.0)) == (10.5, 20.0, 30.0, 40.0)
    with pytest.raises(ValueError, match="rotated"):
        bbox_to_xywh(bbox(25.5, 40.0, 30.0, 40.0, theta=0.1))
    with pytest.raises(ValueError, match="rotated"):
        bbox_to_xywh(bbox(25.5, 40.0, 30.0, 40.0, theta=float("nan")))


@settings(deadline=None)
@given(nanoseconds=st.integers(0, 2**31 * 10**9 - 1))
def test_stamps(nanoseconds):
    stamp = fill_stamp(SimpleNamespace(), nanoseconds)
    assert 0 <= stamp.nanosec < 10**9
    assert stamp_to_ns(stamp) == nanoseconds


def test_normalized_box():
    assert normalized_to_pixels((0.0, 0.0, 1.0, 1.0), (480, 640)) == (0.0, 0.0, 640.0, 480.0)


@pytest.mark.parametrize(
    ("score", "published"), [(0.25, 0.25), (1.2, 1.0), (-0.1, 0.0), (float("nan"), 0.0)]
)
def test_detection(score, published):
    detection = SimpleNamespace(bbox=bbox(0, 0, 0, 0))
    hypothesis = SimpleNamespace(hypothesis=SimpleNamespace())
    box = (10.25, 20.0, 30.0, 40.0)
    assert fill_detection(detection, hypothesis, "header", box, "7", "cat", score) is detection
    assert (detection.header, detection.id) == ("header", "7")
    assert bbox_to_xywh(detection.bbox) == box
    assert detection.results == [hypothesis]
    assert vars(hypothesis.hypothesis) == {"class_id": "cat", "score": published}
