"""The jittered search crop against the published one, draw by draw."""

from __future__ import annotations

import json

import numpy as np
import pytest
from golden_model import GOLDEN

from spmtrack_core.geometry.crop import crop_transform
from spmtrack_core.training.jitter import jittered_crop

CASES = json.loads((GOLDEN / "train_jitter.json").read_text())


class Replay:
    """Returns recorded draws, and fails for any other request."""

    def __init__(self, draws):
        self.draws = iter(draws)

    def next(self, kind):
        name, values = next(self.draws)
        assert name == kind
        return np.array(values)

    def normal(self, *, size):
        assert size == 2
        return self.next("normal")

    def uniform(self, low, high, size):
        assert (low, high, size) == (-1, 1, 2)
        return self.next("uniform")


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["numpy_seed"]))
def test_the_recorded_draws_give_the_recorded_crop(case, parity):
    random = Replay(case["draws"])
    crop, usable = jittered_crop(
        case["box"],
        case["area_factor"],
        (case["output_size"],) * 2,
        random,
        case["scale_jitter"],
        case["translation_jitter"],
        case["min_object_size"],
    )
    parity.close(
        "train_jitter", "crop parameters", [crop.scale, crop.offset], case["params"], rtol=1e-9
    )
    parity.equal("train_jitter", "accepted", usable, case["is_positive"])
    assert next(random.draws, None) is None, "draws were left over"


def test_without_jitter_it_is_the_plain_search_crop():
    crop, usable = jittered_crop((10, 20, 50, 80), 5.0, (98, 126), np.random.default_rng(0), 0, 0)
    assert usable
    box = crop.to_crop((10, 20, 50, 80))
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, [63, 49])


class Still:
    """Draws that change nothing."""

    def normal(self, *, size):
        return np.zeros(size)

    def uniform(self, low, high, size):
        return np.zeros(size)


@pytest.mark.parametrize(("side", "usable"), [(10.0, True), (9.99, False)])
def test_ten_visible_pixels_are_just_enough(side, usable):
    # a crop of area factor 1 and of as many pixels as the box shows it at its own size
    assert jittered_crop((0.0, 0.0, side, 64.0), 1.0, (64, 10), Still())[1] is usable


def test_the_same_seed_draws_the_same_crop():
    crops = [
        jittered_crop((10, 20, 50, 80), 5.0, (98, 98), np.random.default_rng(7))[0]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(crops[0].offset, crops[1].offset)


def test_a_target_too_small_for_all_attempts_is_unusable():
    _, usable = jittered_crop(
        (10, 20, 50, 80), 5.0, (98, 98), np.random.default_rng(0), min_side=90
    )
    assert not usable


def test_the_size_jitter_scales_both_axes_alike():
    plain = crop_transform((10, 20, 50, 80), 5.0, (98, 98)).scale
    factors = np.stack(
        [
            jittered_crop(
                (10, 20, 50, 80), 5.0, (98, 98), np.random.default_rng(seed), 0, 0, 1, 0.3
            )[0].scale
            / plain
            for seed in range(200)
        ]
    )
    np.testing.assert_allclose(factors[:, 0], factors[:, 1])
    assert np.log(factors).std() == pytest.approx(0.3, abs=0.04)
