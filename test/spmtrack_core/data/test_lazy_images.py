"""Parts of an image message are those of the whole image, bit by bit, in every encoding."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spmtrack_core.data.image_messages import ENCODINGS, image_to_array, lazy_image
from spmtrack_core.geometry.crop import context_crop
from spmtrack_core.geometry.image import check_frame, crop_image
from spmtrack_core.geometry.lazy_image import LazyImage


def noise(name, height, width, seed=0, padding=0, big=0):
    """A message of random bytes; of an odd size only where the encoding allows it."""
    encoding = ENCODINGS[name]
    height -= height % encoding.cell[0] if not encoding.margin else 0
    width -= width % encoding.cell[1] if not encoding.margin else 0
    step = width * encoding.channels * np.dtype(encoding.bits).itemsize + padding
    data = np.random.default_rng(seed).bytes(round(height * encoding.rows) * step)
    return SimpleNamespace(
        encoding=name, height=height, width=width, step=step, data=data, is_bigendian=big
    )


@pytest.mark.parametrize("name", ENCODINGS)
@settings(max_examples=25)
@given(
    size_hw=st.tuples(st.integers(16, 70), st.integers(16, 140)),
    part=st.tuples(*[st.floats(0, 1)] * 4),
    seed=st.integers(0, 99),
    padding=st.sampled_from([0, 3, 8]),
    big=st.sampled_from([0, 1]),
)
def test_a_part_is_that_of_the_whole(name, size_hw, part, seed, padding, big):
    message = noise(name, *size_hw, seed, padding, big)
    whole, lazy = image_to_array(message), lazy_image(message)
    height, width = whole.shape[:2]
    y1, y2 = sorted(round(each * height) for each in part[:2])
    x1, x2 = sorted(round(each * width) for each in part[2:])
    if name == "rgb8":  # is used in place
        assert lazy.base is not None and np.array_equal(lazy, whole)
        return
    assert (lazy.shape, lazy.size, lazy.dtype) == (whole.shape, whole.size, whole.dtype)
    y2, x2 = max(y2, min(y1 + 1, height)), max(x2, min(x1 + 1, width))
    if y1 < y2 and x1 < x2:
        lazy._pixels_read = -(10**9)  # else large parts convert all
        assert np.array_equal(lazy[y1:y2, x1:x2], whole[y1:y2, x1:x2])


@pytest.mark.parametrize("name", ENCODINGS)
def test_images_too_small_for_parts(name):
    for side in range(1, 15):
        message = noise(name, side + 1, side + 1)
        if side > 2:
            assert isinstance(lazy_image(message), np.ndarray)
        else:  # OpenCV cannot convert some of them
            try:
                assert image_to_array(message).shape == (message.height, message.width, 3)
            except ValueError as error:
                assert "cannot have" in str(error)


def counting(height=100, width=200):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    read = []

    def convert(x1, y1, x2, y2):
        read.append((x1, y1, x2, y2))
        return image[y1:y2, x1:x2]

    return image, LazyImage((height, width), convert), read


def test_only_what_a_crop_needs_is_converted():
    image, lazy, read = counting()
    crop = context_crop((90, 40, 110, 60), 2.0, (100, 200), (64, 64))
    assert np.array_equal(crop_image(lazy, crop, (64, 64)), crop_image(image, crop, (64, 64)))
    assert read == [tuple(crop.source_xyxy.tolist())]


def test_the_whole_is_converted_once():
    image, lazy, read = counting()
    for _ in range(2):
        assert np.array_equal(np.asarray(lazy), image)
    assert np.array_equal(lazy[10:20, :], image[10:20])
    assert read == [(0, 0, 200, 100)]
    copied = np.array(lazy, copy=True)
    copied[:] = 0
    assert np.array_equal(lazy, image)


def test_any_other_index_is_that_of_the_whole():
    image, lazy, _ = counting()
    assert np.array_equal(lazy[3], image[3]) and lazy[0, 1, 2] == image[0, 1, 2]
    assert np.array_equal(lazy[::2], image[::2])


@pytest.mark.parametrize(
    ("rows", "columns", "reason"),
    [
        (slice(0, 20, 2), slice(5, 30, 3), "steps"),
        (slice(20, 0, -1), slice(0, 9), "backwards"),
        (slice(5, 5), slice(0, 9), "no row: OpenCV converts no empty image"),
        (slice(0, 9), slice(9, 5), "no column"),
        (slice(-9, None), slice(190, 999), "from the end, and beyond it"),
    ],
)
def test_any_slices_are_those_of_the_whole(rows, columns, reason):
    image, lazy, _ = counting()
    assert np.array_equal(lazy[rows, columns], image[rows, columns]), reason


def test_many_parts_convert_the_whole_once():
    image, lazy, read = counting()
    for start in range(0, 100, 10):
        part = lazy[start : start + 10, 0:150]
        assert np.array_equal(part, image[start : start + 10, :150])
    assert read.count((0, 0, 200, 100)) == 1 and len(read) == 7


def test_a_crop_beyond_the_image_has_its_mean_color():
    image, lazy, _ = counting()
    crop = context_crop((0, 0, 30, 30), 2.0, (100, 200), (64, 64))
    assert np.array_equal(crop_image(lazy, crop, (64, 64)), crop_image(image, crop, (64, 64)))


def test_it_is_a_frame():
    _, lazy, _ = counting()
    assert check_frame(lazy) is lazy
