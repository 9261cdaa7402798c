"""Photometric changes: the same for real and synthetic tracks, repeatable, within the range."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import SyntheticConfig
from spmtrack_core.training.photometric import Light, Photometric, as_jpeg, filtered
from spmtrack_core.training.random_tracks import RandomStream

CPU = torch.device("cpu")
NOTHING = {"blur_share": 0.0, "gray_share": 0.0, "color_jitter": 0.0, "noise": 0.0}


def batch(b: int = 8) -> Batch:
    torch.manual_seed(0)
    return Batch(
        torch.randn(b, 3, 3, 32, 32),
        torch.ones(b, 3, 2, 2),
        torch.randn(b, 2, 3, 64, 64),
        torch.zeros(b, 2, 4),
    )


def changed(given: Batch, seed: int = 0, **settings: float) -> Batch:
    config = SyntheticConfig(**(NOTHING | settings))
    return Photometric(config, CPU).change(given, partial(RandomStream, CPU, seed))


@pytest.mark.parametrize(
    "settings",
    [
        {"blur_share": 1.0},
        {"color_jitter": 0.3},
        {"color_jitter": 0.3, "flicker_share": 1.0},
        {"switch_share": 1.0},
        {"gray_share": 1.0},
        {"coarse_share": 1.0},
        {"jpeg_share": 1.0},
        {"noise": 0.2},
        {"noise": 0.2, "grain": 4.0},
    ],
    ids=str,
)
def test_every_change_reaches_references_and_searches_and_can_be_repeated(settings):
    plain = changed(batch())
    once, again, other = (changed(batch(), seed, **settings) for seed in (0, 0, 1))
    for name in ("references", "searches"):
        ours = getattr(once, name)
        assert torch.equal(ours, getattr(again, name)), name
        assert not torch.allclose(ours, getattr(plain, name), atol=1e-2), name
        assert not torch.equal(ours, getattr(other, name)) or settings == {"gray_share": 1.0}
    assert torch.equal(once.masks, plain.masks) and torch.equal(once.boxes_xyxy, plain.boxes_xyxy)


def test_crops_stay_in_the_range_of_pixels():
    seen = changed(batch(), color_jitter=1.0, noise=0.5, switch_share=0.5, blur_share=0.5)
    photometric = Photometric(SyntheticConfig(), CPU)
    for crops in (seen.references, seen.searches):
        pixels = crops * photometric.std + photometric.mean
        assert -1e-5 < float(pixels.min()) and float(pixels.max()) < 1 + 1e-5


def test_each_crop_is_filtered_by_its_own_kernel_alike_on_every_device():
    crops, kernels = torch.rand(2, 3, 12, 15), torch.rand(2, 1, 3, 3)
    expected = torch.stack(
        [
            torch.nn.functional.conv2d(crop[:, None], kernel[None], padding=1)[:, 0]
            for crop, kernel in zip(crops, kernels, strict=True)
        ]
    )
    torch.testing.assert_close(filtered(crops.clone(), kernels), expected)


def test_jpeg_keeps_a_smooth_picture_and_loses_noise():
    smooth = torch.linspace(0, 1, 64).expand(3, 64, 64)
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert float((as_jpeg(smooth[None], 30)[0] - smooth).abs().mean()) < 0.03
    assert float((as_jpeg(noise[None], 30)[0] - noise).abs().mean()) > 0.1


def test_noise_does_not_fade_with_the_light():
    photometric = Photometric(SyntheticConfig(**(NOTHING | {"noise": 0.1})), CPU)
    spread = []
    for exposure in (1.0, 0.4):
        gray = torch.full((64, 2, 3, 96, 128), 0.5)
        light = Light(*(torch.full((64, 2, 3), value) for value in (1.0, 0.0, exposure)))
        crops = photometric.expose(
            gray,
            light,
            torch.zeros(64, dtype=torch.bool),
            RandomStream(CPU, 0, "blur"),
            RandomStream(CPU, 0, "noise"),
        )
        crops = crops * photometric.std + photometric.mean
        assert crops.mean().item() == pytest.approx(0.5 * exposure, abs=0.01)
        spread.append(crops.std((1, 2, 3, 4)).mean().item())
    assert spread[0] == pytest.approx(spread[1], rel=0.02) and spread[0] > 0.02


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_coarse_tracks_have_lost_their_detail(share):
    noise = torch.rand(6, 2, 3, 96, 128)
    crops = noise[:, :, :, :48, :64].clone(), noise.clone()
    Photometric(SyntheticConfig(coarse_share=share), CPU).coarsen(*crops, RandomStream(CPU, 0))
    assert torch.equal(crops[1], noise) == (share == 0)
    for each in crops if share else ():
        assert each.mean().item() == pytest.approx(0.5, abs=0.02)
        assert each.std() < 0.8 * noise.std()
