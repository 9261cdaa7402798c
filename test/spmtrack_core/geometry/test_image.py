"""Reading images, and frames that are none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from spmtrack_core.geometry.image import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_frame,
    mean_color,
    normalize,
    read_image,
)


def test_an_image_is_read_as_rgb(tmp_path):
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 2] = 255  # BGR at OpenCV
    path = tmp_path / "röt.png"
    path.write_bytes(cv2.imencode(".png", red)[1].tobytes())
    image = read_image(path)
    assert image.shape == (4, 6, 3)
    assert image[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_an_unreadable_image_is_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        read_image(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        read_image(tmp_path / "absent.jpg")


def test_normalising_undoes_the_imagenet_statistics():
    image = np.random.default_rng(0).uniform(0, 255, (5, 7, 3)).astype(np.float32)
    back = (normalize(image).transpose(1, 2, 0) * IMAGENET_STD + IMAGENET_MEAN) * 255
    np.testing.assert_allclose(back, image, atol=1e-3)


def test_the_mean_colour_is_per_channel():
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 0] = (4, 8, 12)
    assert mean_color(frame).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), [[0]], None],
)
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(ValueError, match="RGB uint8"):
        check_frame(frame)
