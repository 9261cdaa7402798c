"""Masks, window, choice of the cell, back-projection and acceptance: the golden fixtures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_model import GOLDEN

from spmtrack_core.geometry.boxes import clip_xyxy
from spmtrack_core.geometry.crop import CropTransform, context_crop, crop_transform
from spmtrack_core.geometry.image import SCALE, SHIFT, crop_image, normalize
from spmtrack_core.model.spmtrack import Prediction
from spmtrack_core.tracking.device_steps import crop_numbers, crop_tensor, select_box_tensor
from spmtrack_core.tracking.postprocess import (
    box_in_frame,
    hann_window,
    is_good_box,
    select_box,
)
from spmtrack_core.tracking.preprocess import foreground_mask

pytestmark = pytest.mark.golden
CASES = json.loads((GOLDEN / "crop_cases.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_masks_of_inference_and_training(case, parity):
    box = case["template"]["box_in_crop"]
    for rows, clip, when in (
        ("mask_eval_rows", False, "inference"),
        ("mask_train_rows", True, "training"),
    ):
        mask = foreground_mask(box, (196, 196), (14, 14), clip)
        parity.equal("crop_cases", f"masks of {when}", mask, case["template"][rows], case["name"])


@pytest.mark.parametrize("kind", ["template", "search", "nonsquare"])
def test_crop_tensor_gives_the_pixels_of_opencv(kind, parity):
    """And those are the published ones; all boxes in one call, of a frame in a larger memory."""
    frame = np.load(GOLDEN / "crop_image.npz")["image"]
    output_hw = tuple(np.broadcast_to(CASES[0][kind]["output_size"], 2)[::-1].tolist())
    expected, numbers = [], []
    for case in CASES:
        settings = case[kind]
        crop = context_crop(
            case["box"],
            settings["area_factor"],
            frame.shape[:2],
            output_hw,
            settings.get("min_object_size") or 0,
        )
        background = settings.get("background", settings.get("image_mean", frame.mean((0, 1))))
        expected.append(normalize(crop_image(frame, crop, output_hw, background)))
        numbers.append(crop_numbers(frame.shape[:2], crop, background))
    pixels = np.concatenate((frame.reshape(-1, 3), np.full((999, 3), 255, np.uint8)))
    made = crop_tensor(
        *map(torch.from_numpy, (pixels, np.stack(numbers))),
        output_hw,
        *map(torch.from_numpy, (SCALE, SHIFT)),
    )
    for case, one, other in zip(CASES, made, expected, strict=True):
        parity.close(
            "crop_cases",
            "normalised pixels of tensors",
            one,
            other,
            atol=2e-4,
            about=f"{case['name']}, {kind}",
        )


def test_crop_tensor_gives_background_outside_the_frame():
    crop = context_crop([900.0, 900.0, 940.0, 930.0], 2.0, (60, 80), (32, 32))
    numbers = torch.from_numpy(crop_numbers((60, 80), crop, (10.0, 20.0, 30.0)))[None]
    frame = torch.full((60 * 80, 3), 255, dtype=torch.uint8)
    made = crop_tensor(frame, numbers, (32, 32), torch.ones(3), torch.zeros(3))
    assert made.unique().tolist() == [10, 20, 30]


def test_a_nan_box_covers_no_cell():
    assert foreground_mask([np.nan] * 4, (96, 96), (6, 6)).sum() == 0


@pytest.mark.parametrize("case", ["27", "9x7", "27_flat"])
@pytest.mark.parametrize("weight", [0.45, 0.0])
@pytest.mark.parametrize("place", ["host", "device"])
def test_postprocessing_chooses_the_published_cell(case, weight, place, parity):
    stored = np.load(GOLDEN / "postprocess.npz")
    maps = stored[f"{case}.score_map"], stored[f"{case}.boxes"]
    window = hann_window(maps[0].shape[1:])
    parity.close("postprocess", "window", window, stored[f"{case}.window"], atol=1e-6, about=case)
    width, height = stored[f"{case}.search_size_wh"].tolist()
    if place == "host":
        boxes, confidence, _ = select_box(*maps, window, weight, (height, width))
    else:
        prediction = Prediction(*map(torch.from_numpy, maps), torch.empty(0))
        window = torch.from_numpy(window)
        boxes, confidence, _ = select_box_tensor(prediction, window, weight, (height, width))
    key = f"{case}.wp{weight}"
    parity.close(
        "postprocess", "boxes", boxes, stored[f"{key}.box"], rtol=1e-6, atol=1e-4, about=key
    )
    parity.close(
        "postprocess", "confidence", confidence, stored[f"{key}.confidence"], atol=1e-6, about=key
    )


def chosen(place, logits, boxes, box_overlap):
    """The box, in a search region of 100 px, of a target whose cells have these values."""
    maps = np.array(logits, np.float32)[None, None], np.array(boxes, np.float32)[None, None]
    window = np.ones(maps[0].shape[1:], np.float32)
    if place == "host":
        return select_box(*maps, window, 0.0, (100, 100), box_overlap)[0][0]
    prediction = Prediction(*map(torch.from_numpy, maps), torch.empty(0))
    overlap = torch.tensor([[box_overlap]])  # as a graph has it
    window = torch.from_numpy(window)
    return select_box_tensor(prediction, window, 0.0, (100, 100), overlap)[0][0].numpy()


BEST, NEAR, FAR = [0.2, 0.2, 0.6, 0.6], [0.2, 0.2, 0.6, 0.5], [0.5, 0.5, 0.9, 0.9]
EMPTY, NONE = [0.4, 0.4, 0.4, 0.4], [np.nan] * 4


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize(
    ("logits", "boxes", "box_overlap", "expected"),
    [
        ([1.0, 1.0, -1.0], [BEST, NEAR, FAR], 0.7, [20, 20, 60, 55]),  # NEAR has an IoU of 0.75
        ([1.0, 1.0, -1.0], [BEST, NEAR, FAR], 0.8, [20, 20, 60, 60]),  # and is not near enough
        ([1.0, 1.0, -1.0], [BEST, NEAR, FAR], 1.0, [20, 20, 60, 60]),  # published
        ([np.log(3), np.log(1 / 3)], [BEST, NEAR], 0.7, [20, 20, 60, 57.5]),  # scores 3/4, 1/4
        ([1.0, 0.5], [BEST, NONE], 0.7, [20, 20, 60, 60]),  # what is no box does not count
        ([1.0, 0.5], [EMPTY, NEAR], 0.7, [40, 40, 40, 40]),  # a chosen box without an area stays
        ([1.0, 0.5], [NONE, NEAR], 0.7, [np.nan] * 4),  # so does one that is none
        ([-24.0, -24 - np.log(3)], [BEST, NEAR], 0.7, [20, 20, 60, 57.5]),  # scores of 4e-11
        ([-80.0, -80 - np.log(3)], [BEST, NEAR], 0.7, [20, 20, 60, 57.5]),  # of 2e-35
        ([-95.0, -95.0], [BEST, NEAR], 0.7, [20, 20, 60, 60]),  # too small to be exact
        ([-200.0, -200.0], [BEST, NEAR], 0.7, [20, 20, 60, 60]),  # scores of 0
    ],
)
def test_boxes_that_overlap_the_chosen_one_are_averaged(
    place, logits, boxes, box_overlap, expected
):
    np.testing.assert_allclose(chosen(place, logits, boxes, box_overlap), expected, rtol=1e-5)


def test_boxes_are_projected_back_and_clipped_as_published(parity):
    for case in json.loads((GOLDEN / "box_back_projection.json").read_text()):
        transform = CropTransform(*np.array(case["adjusted_params"]))
        hw = tuple(reversed(case["image_size_wh"]))
        for quantity, actual, name in (
            ("boxes", transform.to_frame(case["crop_box"]), "image_box"),
            ("clipped boxes", box_in_frame(case["crop_box"], transform, hw), "clipped"),
        ):
            parity.close(
                "box_back_projection",
                quantity,
                actual,
                case[name],
                rtol=1e-9,
                atol=1e-9,
                about=case["case"],
            )


def test_the_search_window_moves_and_stays_as_published(parity):
    for case in json.loads((GOLDEN / "provider_update.json").read_text()):
        hw, about = tuple(reversed(case["image_size_wh"])), case["name"]
        clamped = clip_xyxy([float(value) for value in case["predicted"]], hw)
        accepted = is_good_box(clamped)
        parity.equal("provider_update", "accepted", accepted, case["accepted"], about)
        box = clamped if accepted else np.array(case["initial"], float)
        parity.equal("provider_update", "box of the next search", box, case["state_after"], about)
        transform = crop_transform(box, 5.0, (378, 378), 10.0)
        parity.close(
            "provider_update",
            "crop parameters",
            [transform.scale, transform.offset],
            case["params_378"],
            rtol=1e-9,
            about=about,
        )
