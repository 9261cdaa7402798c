"""Image files: any depth becomes RGB uint8, what is broken is named, masks are no frames."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from spmtrack_core.data.images import image_levels, image_paths, read_image, to_image
from spmtrack_core.data.sequence import image_folder

RAMP = np.linspace(0, 1, 60 * 80).reshape(60, 80)


def test_an_image_is_read_as_rgb(tmp_path):
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 2] = 255  # BGR at OpenCV
    path = tmp_path / "röt.png"
    path.write_bytes(cv2.imencode(".png", red)[1].tobytes())
    image = read_image(path)
    assert image.shape == (4, 6, 3)
    assert image[0, 0].tolist() == [255, 0, 0]


def cut(tmp_path, suffix):
    content = cv2.imencode(suffix, (255 * RAMP).astype(np.uint8))[1].tobytes()
    (tmp_path / f"broken{suffix}").write_bytes(content[: len(content) // 2])
    return tmp_path / f"broken{suffix}"


def dangling(tmp_path):
    (tmp_path / "link.jpg").symlink_to("moved.jpg")
    return tmp_path / "link.jpg"


def content(name, content):
    def make(tmp_path):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (content("broken.jpg", b""), r"broken\.jpg is empty"),
        (content("broken.jpg", b"not an image"), r"broken\.jpg is not an image"),
        (lambda path: cut(path, ".jpg"), r"broken\.jpg .* cut off"),
        (lambda path: cut(path, ".png"), r"broken\.png .* cut off"),
        (lambda path: path / "absent.jpg", r"no image at .*absent\.jpg"),
        (dangling, r"link\.jpg is a link to moved\.jpg, which is missing"),
    ],
)
def test_an_unreadable_image_is_named(tmp_path, capfd, make, match):
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        read_image(make(tmp_path))
    assert capfd.readouterr() == ("", "")  # OpenCV, libjpeg and libpng print by themselves


def test_words_of_the_decoders_become_one_warning(tmp_path, capfd, caplog, monkeypatch):
    monkeypatch.setattr("spmtrack_core.data.images._TOLD", set())
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(whole[:3000] + bytes(300) + whole[3300:])
    for _ in range(2):
        assert read_image(tmp_path / "a.jpg").shape == (60, 80, 3)
    assert capfd.readouterr() == ("", "")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "a.jpg is damaged" in record.message


@pytest.mark.parametrize(
    ("suffix", "dtype", "low", "high"),
    [
        (".png", np.uint16, 7000, 8200),  # a thermal camera: 1200 of 65536 values are used
        (".png", np.uint16, 0, 4095),  # 12 bits in 16
        (".tiff", np.uint16, 100, 65000),
        (".tiff", np.float32, -3.5, 1.25),
        (".tiff", np.float32, 0, 1),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_more_than_8_bits_keep_their_contrast(
    tmp_path, suffix, dtype, low, high, channels
):
    pixels = (low + (high - low) * RAMP).astype(dtype)
    pixels = np.repeat(pixels[..., None], 3, 2) if channels == 3 else pixels
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())
    image = read_image(path)
    assert (image.dtype, image.shape) == (np.uint8, (60, 80, 3))
    np.testing.assert_allclose(image[..., 0], 255 * RAMP, atol=1.5)


def test_a_sequence_keeps_the_levels_of_its_first_frame(tmp_path):
    for index, gain in enumerate((1, 0.5, 3)):
        pixels = (1000 + 2000 * gain * RAMP).astype(np.uint16)
        cv2.imwrite(str(tmp_path / f"{index}.png"), pixels)
    first, darker, brighter = (frame[..., 0] for frame in image_folder(tmp_path))
    np.testing.assert_allclose(darker, first * 0.5, atol=2)
    np.testing.assert_allclose(brighter, np.minimum(255 * RAMP * 3, 255), atol=3)


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((4, 4, 3), 700, np.uint16),
        np.zeros((4, 4, 3), np.float32),
        np.full((4, 4, 3), np.nan, np.float32),
        np.array([[[np.inf] * 3, [-np.inf] * 3], [[np.nan] * 3, [1] * 3]], np.float32),
    ],
    ids=["one grey", "black", "not a number", "infinite"],
)
def test_images_without_contrast_have_levels_too(pixels):
    image = to_image(pixels, image_levels(pixels))
    assert (image.dtype, image.shape) == (np.uint8, pixels.shape)


def test_a_change_of_type_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((8, 8), np.uint8))
    cv2.imwrite(str(tmp_path / "2.png"), np.zeros((8, 8), np.uint16))
    with pytest.raises(ValueError, match=r"2\.png has 8 x 8 pixels of uint16"):
        list(image_folder(tmp_path))


@pytest.mark.parametrize(
    ("names", "frames", "why"),
    [
        (["10.jpg", "2.jpg"], ["2.jpg", "10.jpg"], "natural order"),
        (["a1.jpg", "._a1.jpg"], ["a1.jpg"], "what macOS leaves beside images"),
        (["1.jpg", "1.png", "2.jpg", "2.png"], ["1.jpg", "2.jpg"], "masks of the same names"),
        (["1.png", "1_mask.png", "2.png"], ["1.png", "2.png"], "masks with a further word"),
        (["1.png", "1.depth.tiff"], ["1.png"], "depth beside colour"),
        (["1.png", "2.jpg"], ["1.png", "2.jpg"], "formats mixed, no mask among them"),
        (["1_mask.png", "2_mask.png"], ["1_mask.png", "2_mask.png"], "masks alone are wanted"),
        (["b.png", "b_1.png"], ["b.png", "b_1.png"], "a number is no further word"),
    ],
)
def test_masks_and_hidden_files_are_no_frames(tmp_path, names, frames, why):
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in image_paths(tmp_path)] == frames, why
