"""Frames: normalization, mean color, and the check of arrays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from spmtrack_core.geometry.image import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_frame,
    encode_image,
    mean_color,
    normalize,
)


def test_normalize_is_undone_by_the_imagenet_statistics():
    image = np.random.default_rng(0).uniform(0, 255, (5, 7, 3)).astype(np.float32)
    back = (normalize(image).transpose(1, 2, 0) * IMAGENET_STD + IMAGENET_MEAN) * 255
    np.testing.assert_allclose(back, image, atol=1e-3)


def test_an_encoded_image_is_rgb():
    frame = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    decoded = cv2.imdecode(np.frombuffer(encode_image(frame, ".png"), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], frame)


@pytest.mark.parametrize(("suffix", "size_hw"), [(".jpg", (1, 65_501)), (".pgm", (8, 8))])
def test_an_image_that_a_format_cannot_hold_is_refused(suffix, size_hw):
    with pytest.raises(ValueError, match=f"a {suffix} file cannot hold an image of shape"):
        encode_image(np.zeros((*size_hw, 3), np.uint8), suffix)


def test_the_mean_color_is_per_channel():
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 0] = (4, 8, 12)
    assert mean_color(frame).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), [[0]], None],
)
def test_arrays_that_are_no_frame_are_rejected(frame):
    with pytest.raises(ValueError, match="RGB uint8"):
        check_frame(frame)
