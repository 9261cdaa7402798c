"""Masks, window, choice of the cell, back-projection and acceptance: the golden fixtures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_model import GOLDEN

from spmtrack_core.geometry.boxes import clip_xyxy
from spmtrack_core.geometry.crop import CropTransform, crop_transform
from spmtrack_core.model.spmtrack import Prediction
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
def test_masks_of_inference_and_training(case):
    box = case["template"]["box_in_crop"]
    for rows, clip in (("mask_eval_rows", False), ("mask_train_rows", True)):
        mask = foreground_mask(box, (196, 196), (14, 14), clip)
        np.testing.assert_array_equal(mask, case["template"][rows])


def test_a_box_that_is_not_a_number_covers_no_cell():
    assert foreground_mask([np.nan] * 4, (96, 96), (6, 6)).sum() == 0


@pytest.mark.parametrize("case", ["27", "9x7"])
@pytest.mark.parametrize("weight", [0.45, 0.0])
def test_postprocessing_chooses_the_published_cell(case, weight):
    stored = np.load(GOLDEN / "postprocess.npz")
    scores = torch.from_numpy(stored[f"{case}.score_map"])
    window = hann_window(tuple(scores.shape[1:]))
    np.testing.assert_allclose(window, stored[f"{case}.window"], atol=1e-6)
    prediction = Prediction(scores, torch.from_numpy(stored[f"{case}.boxes"]), torch.empty(0))
    width, height = stored[f"{case}.search_size_wh"].tolist()
    boxes, confidence, _ = select_box(prediction, window, weight, (height, width))
    key = f"{case}.wp{weight}"
    np.testing.assert_allclose(boxes, stored[f"{key}.box"], rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(confidence, stored[f"{key}.confidence"], atol=1e-6)


def test_boxes_are_projected_back_and_clipped_as_published():
    for case in json.loads((GOLDEN / "box_back_projection.json").read_text()):
        transform = CropTransform(*np.array(case["adjusted_params"]))
        hw = tuple(reversed(case["image_size_wh"]))
        np.testing.assert_allclose(
            transform.to_frame(case["crop_box"]), case["image_box"], rtol=1e-9, atol=1e-9
        )
        np.testing.assert_allclose(
            box_in_frame(case["crop_box"], transform, hw), case["clipped"], rtol=1e-9, atol=1e-9
        )


def test_the_search_window_moves_and_stays_as_published():
    for case in json.loads((GOLDEN / "provider_update.json").read_text()):
        hw = tuple(reversed(case["image_size_wh"]))
        clamped = clip_xyxy([float(value) for value in case["predicted"]], hw)
        assert is_good_box(clamped) == case["accepted"], case["name"]
        box = clamped if is_good_box(clamped) else np.array(case["initial"], float)
        np.testing.assert_allclose(box, [float(value) for value in case["state_after"]])
        transform = crop_transform(box, 5.0, (378, 378), 10.0)
        np.testing.assert_allclose(
            [transform.scale, transform.offset], case["params_378"], rtol=1e-9
        )
