"""Augmentation: boxes follow crops, random numbers come from the sample, one effect is shared."""

from __future__ import annotations

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from spmtrack_core.training.augment import augment

CROP = torch.rand(3, 12, 18, generator=torch.Generator().manual_seed(0))
OFF = {"flip": 0.0, "color_jitter": 0.0, "shared": False}


def run(crops, boxes, seed=0, **options):
    return augment(crops, boxes, np.random.default_rng(seed), **{**OFF, **options})


def test_a_mirrored_box_stays_on_its_target():
    crop = torch.zeros(3, 20, 30)
    crop[:, 5:11, 2:9] = 1
    box = np.array([[2.0, 5.0, 9.0, 11.0]])
    (mirrored,), moved = run([crop], box, flip=1.0)
    rows, columns = np.nonzero(mirrored[0].numpy())
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert moved[0].tolist() == seen == [21.0, 5.0, 28.0, 11.0]
    (again,), back = run([mirrored], moved, flip=1.0)
    assert torch.equal(again, crop)
    np.testing.assert_array_equal(back, box)


def test_an_absent_box_stays_absent():
    assert np.isnan(run([CROP], np.full((1, 4), np.nan), flip=1.0)[1]).all()


def test_without_any_augmentation_crops_are_unchanged():
    boxes = np.arange(8.0).reshape(2, 4)
    crops, same = run([CROP, CROP], boxes)
    assert all(torch.equal(crop, CROP) for crop in crops)
    np.testing.assert_array_equal(same, boxes)


def test_mirroring_and_color_are_drawn_for_each_crop():
    boxes = np.tile([1.0, 2.0, 3.0, 4.0], (200, 1))
    _, moved = run([CROP] * 200, boxes, flip=0.5)
    assert 70 < (moved[:, 0] == 15).sum() < 130  # 18 px wide: right end 3 becomes left end 15
    crops, _ = run([CROP] * 20, boxes[:20], color_jitter=0.4)
    assert len({crop.numpy().tobytes() for crop in crops}) == 20


def test_all_crops_share_gray_solarize_or_blur():
    kinds = []
    for seed in range(60):
        crops, _ = run([CROP] * 5, np.zeros((5, 4)), seed, shared=True)
        assert all(torch.equal(crop, crops[0]) for crop in crops)
        if torch.equal(crops[0], F.rgb_to_grayscale(CROP, 3)):
            kinds.append("gray")
        elif torch.equal(crops[0], F.solarize(CROP, 0.5)):
            kinds.append("solarized")
        else:
            assert crops[0].std() <= CROP.std()
            kinds.append("blurred")
    assert {kinds.count(kind) > 8 for kind in ("gray", "solarized", "blurred")} == {True}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_augmentation_depends_on_the_generator_alone_and_stays_in_range(
    seed, flip, jitter, shared
):
    crops, boxes = [CROP.clone(), 1 - CROP[:, :8]], np.zeros((2, 4))
    before = np.random.get_state()[1].copy(), torch.get_rng_state().clone()
    runs = [
        run(crops, boxes, seed, flip=flip, color_jitter=jitter, shared=shared) for _ in range(2)
    ]
    for first, second in zip(runs[0][0], runs[1][0], strict=True):
        assert torch.equal(first, second)
        assert first.dtype is torch.float32 and 0 <= first.min() and first.max() <= 1
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    assert torch.equal(crops[0], CROP)  # what came in is not touched
    assert not boxes.any()
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
