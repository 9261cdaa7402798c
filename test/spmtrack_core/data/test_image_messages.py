"""Image messages to arrays and back, on plain objects with the fields of the messages."""

from __future__ import annotations

import array
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spmtrack_core.data.image_messages import (
    ENCODINGS,
    check_compressed,
    compressed_to_array,
    image_to_array,
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
        ({"encoding": "h264"}, "'h264' is not one of rgb8"),
        ({"encoding": "nv12", "width": 1}, "cannot have 1 x 2 px: expected even"),
        ({"encoding": "yuv422", "width": 1, "step": 6}, "yuv422 cannot have 1 x 2 px"),
        ({"encoding": ""}, "is not one of"),
        ({"encoding": "rgb16"}, "shorter than a row"),
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
    encoding=st.sampled_from([*ENCODINGS, "8UC3", "none"]),
)
def test_any_numbers_give_an_image_or_a_value_error(height, width, step, size, encoding):
    message = SimpleNamespace(height=height, width=width, step=step, encoding=encoding)
    message.is_bigendian = 0
    message.data = array.array("B", bytes(size))
    try:
        image = image_to_array(message)
    except ValueError:
        return
    assert image.shape == (height, width, 3) and image.dtype == np.uint8


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


def raw(encoding, values, width, height, step, big_endian=0):
    """A message with these values, an array of the encoding's own type."""
    data = array.array("B", np.ascontiguousarray(values).tobytes())
    return SimpleNamespace(
        encoding=encoding,
        width=width,
        height=height,
        step=step,
        data=data,
        is_bigendian=big_endian,
    )


@pytest.mark.parametrize(("encoding", "order"), [("nv12", "uv"), ("nv21", "vu"), ("nv24", "uv")])
def test_planar_yuv_with_interleaved_chroma(encoding, order):
    y, u, v = 120, 90, 200  # a red
    chroma = [u, v] if order == "uv" else [v, u]
    rows = [[y] * 4] * 4 + [chroma * 2] * (8 if encoding == "nv24" else 2)
    image = image_to_array(raw(encoding, np.array(rows, np.uint8), 4, 4, 4))
    assert image.shape == (4, 4, 3) and (image == image[0, 0]).all()
    assert image[0, 0, 0] > image[0, 0, 1] + 100


@pytest.mark.parametrize("encoding", ["yuv420", "I420"])
def test_planar_yuv_with_three_planes(encoding):
    data = np.array([120] * 16 + [90] * 4 + [200] * 4, np.uint8)
    image = image_to_array(raw(encoding, data, 4, 4, 4))
    assert image[0, 0, 0] > image[0, 0, 1] + 100


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("encoding", "pixel"), [("rgb16", RED), ("bgr16", RED[::-1]), ("rgba16", (*RED, 9))]
)
def test_16_bit_color(encoding, pixel, big):
    values = np.full((2, 2, len(pixel)), pixel).astype(">u2" if big else "<u2") * 256
    values = values.astype(">u2" if big else "<u2")
    image = image_to_array(raw(encoding, values, 2, 2, 4 * len(pixel), int(big)))
    assert image.reshape(-1, 3).tolist() == [list(RED)] * 4


def test_16_bit_gray_and_bayer():
    values = np.full((4, 4), 200 * 256 + 7, "<u2")
    for encoding in ("mono16", "bayer_rggb16", "MONO16"):
        image = image_to_array(raw(encoding, values, 4, 4, 8))
        assert (image == 200).all() and image.shape == (4, 4, 3)


@pytest.mark.parametrize(("encoding", "kind"), [("16UC1", "<u2"), ("32FC1", "<f4")])
def test_values_without_a_range_are_stretched(encoding, kind):
    values = np.linspace(1000, 3000, 64 * 64).reshape(64, 64).astype(kind)
    if kind == "<f4":
        values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    image = image_to_array(raw(encoding, values, 64, 64, 64 * values.itemsize))
    assert int(image[32, 32, 0]) == pytest.approx(127, abs=10)
    assert image[-1, -1, 0] == 255 and image[1, 0, 0] <= 8
    if kind == "<f4":
        assert image[0, :3, 0].tolist() == [0, 255, 0]


def test_an_image_of_nothing_but_nan():
    values = np.full((4, 4), np.nan, "<f4")
    assert not image_to_array(raw("32FC1", values, 4, 4, 16)).any()


def test_names_of_encodings_in_any_case():
    for name in ("RGB8", "Rgb8", "rgb8"):
        assert image_to_array(image_message(name, [[RED]])).tolist() == [[list(RED)]]


@pytest.mark.parametrize("format_", ["png", "jpg", "webp", "bmp", "tiff"])
def test_compressed_images_are_refused_by_their_header(format_):
    image = np.zeros((300, 200, 3), np.uint8)
    data = cv2.imencode(f".{format_}", image)[1].tobytes()
    message = SimpleNamespace(format=format_, data=array.array("B", data))
    check_compressed(message, 60_000)
    with pytest.raises(ValueError, match="has 200 x 300 px: expected at most max_pixels, 59999"):
        compressed_to_array(message, 59_999)


def test_a_small_file_of_a_huge_image_is_not_decoded():
    size = (60_000).to_bytes(4, "big")
    chunk = b"IHDR" + size + size + b"\x08\x02\0\0\0"
    png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    png += b"\0\0\0\0IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
    message = SimpleNamespace(format="png", data=array.array("B", png))
    with pytest.raises(ValueError, match="too large"):
        compressed_to_array(message)
