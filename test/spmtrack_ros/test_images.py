"""Arrays to image messages, and encodings that only cv_bridge knows."""

from __future__ import annotations

import array
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spmtrack_ros import images
from spmtrack_ros.conversions import fill_image
from spmtrack_ros.images import check_image, image_to_array


def image_message(encoding):
    data = array.array("B", [1, 2, 3])
    return SimpleNamespace(height=1, width=1, encoding=encoding, step=3, data=data, is_bigendian=0)


def test_other_encodings_are_left_to_cv_bridge(monkeypatch):
    class Bridge:
        def imgmsg_to_cv2(self, message, encoding):
            assert encoding == "rgb8"
            if message.encoding == "broken":
                raise RuntimeError("no such conversion")
            return np.full((1, 1, 3), 7, np.uint8)

    monkeypatch.setattr(images, "CvBridge", Bridge)
    message = image_message("yuv411")
    assert check_image(message) is None and image_to_array(message).tolist() == [[[7, 7, 7]]]
    message.encoding = "broken"
    with pytest.raises(ValueError, match="cv_bridge cannot read 'broken': no such conversion"):
        image_to_array(message)


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
