"""Crop geometry against the golden fixtures, and its invariants."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.geometry.crop import align, crop_transform, rasterize
from spmtrack_core.geometry.image import FEW_ROWS, crop_image, mean_color, normalize, resize

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = json.loads((GOLDEN / "crop_cases.json").read_text())["cases"]
RANDOM = json.loads((GOLDEN / "crop_params_random.json").read_text())
FRAME = np.load(GOLDEN / "crop_image.npz")["image"]


def params(transform):
    return np.array([transform.scale, transform.offset])


def made(box, crop):
    output_hw = tuple(np.broadcast_to(crop["output_size"], 2)[::-1].tolist())
    wanted = crop_transform(box, crop["area_factor"], output_hw, crop.get("min_object_size") or 0)
    return wanted, align(wanted, FRAME.shape[:2], output_hw), output_hw


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["template", "search", "nonsquare"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_crop_of_each_box_has_the_published_transform_and_pixels(case, kind, parity):
    crop = case[kind]
    wanted, aligned, output_hw = made(case["box"], crop)

    def compare(quantity, actual, expected, **tolerance):
        parity.close(
            "crop_cases", quantity, actual, expected, **tolerance, about=f"{case['name']}, {kind}"
        )

    compare("crop parameters", params(wanted), crop["params"], rtol=1e-9)
    compare("adjusted parameters", params(aligned.transform), crop["adjusted_params"], rtol=1e-6)
    background = crop.get("background", crop.get("image_mean", FRAME.mean((0, 1))))
    pixels = crop_image(FRAME, aligned, output_hw, background)
    pixels = pixels.astype(np.float64)  # float32 sums would drift
    compare("mean colour in the crop", pixels.mean((0, 1)), crop["crop_mean"], atol=1e-2)
    compare("colour spread in the crop", pixels.std((0, 1)), crop["crop_std"], atol=2e-2)
    if kind != "nonsquare":
        compare(
            "box in the crop",
            aligned.transform.to_crop(case["box"]),
            crop["box_in_crop"],
            atol=1e-4,
        )
    if kind == "template":
        compare("mean colour of the image", mean_color(FRAME), background, atol=1e-3)


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["template", "search"])
def test_crops_have_the_published_pixels(kind, parity):
    fixture = f"crop_{kind}_subsampled"
    stored = np.load(GOLDEN / f"{fixture}.npz")
    rows, columns = {
        "template": (slice(1, None, 3), slice(2, None, 3)),
        "search": (slice(3, None, 6), slice(2, None, 6)),
    }[kind]
    seen = 0
    for case in CASES:
        _, aligned, output_hw = made(case["box"], case[kind])
        background = case[kind].get("background", case[kind].get("image_mean"))
        pixels = crop_image(FRAME, aligned, output_hw, background)
        name = case["name"]
        if name in stored:
            seen += 1
            parity.close(
                fixture,
                "pixels",
                pixels.transpose(2, 0, 1)[:, rows, columns],
                stored[name],
                atol=1e-2,
                about=name,
            )
        if f"_full_channel1_{name}" in stored:
            seen += 1
            parity.close(
                fixture,
                "pixels",
                pixels[..., 1],
                stored[f"_full_channel1_{name}"],
                atol=1e-2,
                about=f"green of {name}",
            )
        if f"_normalised_{name}" in stored:
            seen += 1
            parity.close(
                fixture,
                "normalised pixels",
                normalize(pixels)[:, rows, columns],
                stored[f"_normalised_{name}"],
                atol=2e-4,
                about=name,
            )
    assert seen == len(stored.files)


@pytest.mark.golden
def test_random_boxes_have_the_published_transforms(parity):
    for case in RANDOM:
        wanted, aligned, _ = made(case["box"], case)
        parity.close(
            "crop_params_random",
            "crop parameters",
            params(wanted),
            case["params"],
            rtol=1e-9,
            about=case["box"],
        )
        parity.close(
            "crop_params_random",
            "adjusted parameters",
            params(aligned.transform),
            case["adjusted_params"],
            rtol=1e-6,
            about=case["box"],
        )


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([0, 0, 0, 10], "no width"),
        ([5, 5, 1, 10], "reversed"),
        ([0, 0, np.nan, 10], "NaN"),
        ([0, 0, np.inf, 10], "infinite"),
        ([0, 0, 10], "three numbers"),
    ],
)
def test_boxes_that_cannot_be_cropped_are_rejected(box, reason):
    with pytest.raises(ValueError, match="box"):
        crop_transform(box, 2.0, (196, 196))


@given(
    st.tuples(*[st.floats(-200, 500)] * 2),
    st.tuples(*[st.floats(1, 400)] * 2),
    st.floats(1, 6),
)
def test_to_frame_is_the_inverse_of_to_crop_and_the_box_is_centered(corner, size, factor):
    box = np.array([*corner, corner[0] + size[0], corner[1] + size[1]])
    transform = crop_transform(box, factor, (98, 126))
    in_crop = transform.to_crop(box)
    np.testing.assert_allclose((in_crop[:2] + in_crop[2:]) / 2, [63, 49], atol=1e-6)
    np.testing.assert_allclose(transform.to_frame(in_crop), box, rtol=1e-9, atol=1e-6)


@given(st.tuples(*[st.floats(-300, 900)] * 2), st.tuples(*[st.floats(1, 300)] * 2))
def test_rectangles_stay_inside_frame_and_crop(corner, size):
    box = np.array([*corner, corner[0] + size[0], corner[1] + size[1]])
    aligned = align(crop_transform(box, 2.0, (64, 64)), (240, 320), (64, 64))
    assert (aligned.source_xyxy >= 0).all()
    assert (aligned.source_xyxy <= [320, 240, 320, 240]).all()
    assert (aligned.target_xyxy >= 0).all()
    assert (aligned.target_xyxy <= 64).all()
    pixels = crop_image(FRAME, aligned, (64, 64), (1.0, 2.0, 3.0))
    assert np.isfinite(pixels).all()


def test_a_box_that_ends_just_past_a_pixel_does_not_touch_the_next():
    assert rasterize([14.0, 28.0, 28.00005, 42.0]).tolist() == [14, 28, 28, 42]
    assert rasterize([14.0, 28.0, 28.01, 42.0]).tolist() == [14, 28, 29, 42]


@pytest.mark.parametrize(
    ("image_hw", "output_hw"),
    [
        ((30, 50), (10, 13)),  # three rows for each row of the crop: from here on rows are chosen
        ((29, 11), (10, 13)),  # fewer
        ((150, 40), (10, 13)),
        ((1000, 900), (10, 13)),
        ((3, 700), (10, 13)),  # fewer rows than the crop has
        ((5, 1), (1, 1)),
        ((400, 300), (FEW_ROWS, 20)),  # the rows of one go
        ((400, 300), (2 * FEW_ROWS + 1, 20)),  # a last go of one row
    ],
)
def test_large_crops_are_those_of_opencv_in_less_time(image_hw, output_hw):
    image = np.random.default_rng(0).integers(0, 256, (*image_hw, 3), np.uint8)
    expected = cv2.resize(image.astype(np.float32), output_hw[::-1])
    np.testing.assert_allclose(resize(image, output_hw), expected, atol=1e-4)
