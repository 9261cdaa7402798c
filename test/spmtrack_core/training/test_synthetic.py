"""Synthetic tracks: content of a batch, repeatability, and correct boxes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_model import TINY

from spmtrack_core.config import TrackerConfig
from spmtrack_core.geometry.crop import crop_transform
from spmtrack_core.training import synthetic
from spmtrack_core.training.batch import contact_sheet
from spmtrack_core.training.config import SyntheticConfig
from spmtrack_core.training.photo_pool import read_photos
from spmtrack_core.training.random_tracks import RandomStream
from spmtrack_core.training.rendering import alpha_boxes, crop_windows, render, to_crop
from spmtrack_core.training.synthetic import SyntheticTracks
from spmtrack_core.training.targets import cells_of

MODEL = replace(TINY, template_hw=(48, 64), search_hw=(96, 128))
TRACKER = TrackerConfig(search_area_factor=4.0)
CPU = torch.device("cpu")
HARD = dict(limb_share=0.5, turn_share=0.5, endless_share=0.5, switch_share=0.5, absent_share=0.3)
"""Some hard tracks of every kind in a small batch."""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> SyntheticConfig:
    """Six photographs of colored noise, three of them with a label map."""
    root = tmp_path_factory.mktemp("stills")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    random = np.random.default_rng(0)
    for i in range(6):
        image = cv2.resize(random.integers(0, 256, (9, 12, 3), np.uint8), (120, 90))
        cv2.imwrite(str(root / "images" / f"{i}.jpg"), image)
        if i % 2:
            labels = np.ones((90, 120), np.uint8)
            labels[20:60, 30:80] = 2
            cv2.imwrite(str(root / "masks" / f"{i}.png"), labels)
    return SyntheticConfig(
        images=(str(root / "images"),), masks=(str(root / "masks"),), image_side=64, patch_side=32
    )


def make(config: SyntheticConfig, batch_size: int = 6, seed: int = 0) -> SyntheticTracks:
    return SyntheticTracks(config, MODEL, TRACKER, read_photos(config, CPU), batch_size, seed)


def test_shapes_and_ranges(config):
    tracks = make(config)
    for index in range(5):
        batch = tracks.batch(index)
        assert batch.references.shape == (6, 3, 3, 48, 64)
        assert batch.masks.shape == (6, 3, 3, 4)
        assert batch.searches.shape == (6, 2, 3, 96, 128)
        assert batch.boxes_xyxy.shape == (6, 2, 4)
        for tensor in (batch.references, batch.masks, batch.searches, batch.boxes_xyxy):
            assert tensor.dtype == torch.float32 and tensor.isfinite().all()
        assert set(batch.masks.unique().tolist()) <= {0.0, 1.0}
        x1, y1, x2, y2 = batch.boxes_xyxy.unbind(-1)
        assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 128).all() and (y2 <= 96).all()
        assert cells_of(batch.boxes_xyxy, (96, 128), (6, 8)).flatten(2).any(-1).all()
        assert ((x2 - x1) > 2).all() and ((y2 - y1) > 2).all()


def test_a_batch_depends_on_seed_and_index_alone(config):
    config = replace(config, **HARD)
    tracks = make(config)
    first = tracks.batch(3)
    tracks.batch(1)
    assert torch.equal(tracks.batch(3).searches, first.searches)
    assert torch.equal(make(config).batch(3).references, first.references)
    assert not torch.equal(tracks.batch(4).searches, first.searches)
    assert not torch.equal(make(config, seed=1).batch(3).searches, first.searches)


class RecordedStream(RandomStream):
    """Records the numbers by purpose, the last part of the key."""

    drawn: ClassVar[dict[str, list[torch.Tensor]]] = {}

    def __init__(self, device, *key):
        super().__init__(device, *key)
        assert key[-1] not in self.drawn, "two streams of one purpose have the same numbers"
        self.numbers = self.drawn[key[-1]] = []

    def record(self, numbers):
        self.numbers.append(numbers)
        return numbers

    def uniform(self, *arguments):
        return self.record(super().uniform(*arguments))

    def normal(self, *arguments):
        return self.record(super().normal(*arguments))

    def integers(self, *arguments):
        return self.record(super().integers(*arguments))


EFFECTS = [
    # a setting, another value of it, and the streams that may change with it
    ("segment_share", 0.0, ()),
    ("in_place_share", 1.0, ()),
    ("motion", 0.0, ()),
    ("limb_share", 1.0, ("limbs",)),  # numbers for targets with limbs alone
    ("turn_share", 1.0, ("turn",)),  # no numbers without it
    ("box_slack", 0.3, ()),
    ("part_share", 1.0, ("slack",)),  # no numbers without it
    ("absent_share", 0.5, ()),
    ("astray_share", 1.0, ()),
    ("repeat_share", 1.0, ()),
    ("endless_share", 1.0, ()),
    ("distractor_share", 0.0, ()),
    ("likeness_share", 1.0, ()),
    ("occluder_share", 1.0, ()),
    ("blur_share", 1.0, ("blur",)),  # numbers for blurred crops alone
    ("coarse_share", 1.0, ()),
    ("gray_share", 1.0, ()),
    ("color_jitter", 0.0, ()),
    ("flicker_share", 1.0, ()),
    ("switch_share", 1.0, ()),
    ("noise", 0.2, ()),
    ("grain", 8.0, ("noise",)),  # larger grains are fewer numbers
    ("scale_jitter", 0.0, ()),
    ("translation_jitter", 0.0, ()),
    ("reference_jitter", 0.2, ()),
]


@pytest.fixture(scope="module")
def numbers_of(config):
    """A batch and the random numbers in it, by purpose."""
    pool = read_photos(config, CPU)

    def make_batch(changed):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(synthetic, "RandomStream", RecordedStream)
            patch.setattr(RecordedStream, "drawn", {})
            batch = SyntheticTracks(changed, MODEL, TRACKER, pool, 6).batch(0)
            return batch, RecordedStream.drawn

    return make_batch


@pytest.fixture(scope="module")
def unchanged(config, numbers_of):
    return numbers_of(config)


@pytest.mark.parametrize("setting, value, own", EFFECTS, ids=[row[0] for row in EFFECTS])
def test_an_effect_changes_no_other_random_numbers(
    config, numbers_of, unchanged, setting, value, own
):
    batch, drawn = numbers_of(replace(config, **{setting: value}))
    before, expected = unchanged
    assert not all(torch.equal(a, b) for a, b in zip(batch, before, strict=True)), "no effect"
    assert set(drawn) == set(expected)
    for purpose in set(drawn) - set(own):
        assert len(drawn[purpose]) == len(expected[purpose]), purpose
        for numbers, others in zip(drawn[purpose], expected[purpose], strict=True):
            assert numbers.shape == others.shape, purpose
            assert torch.equal(numbers, others), purpose


def test_the_box_bounds_the_pixels_of_the_target(config):
    """A white target on black: the box must be just the bounding box of the white pixels."""
    plain = replace(
        config,
        segment_share=0.0,
        in_place_share=0.0,
        distractor_share=0.0,
        occluder_share=0.0,
        blur_share=0.0,
        gray_share=0.0,
        color_jitter=0.0,
        noise=0.0,
        image_side=64,
        patch_side=64,
    )
    tracks = make(plain, batch_size=8)
    # cut-outs are multiplied by alpha, so a constant picture gives a constant target
    tracks.pool.images.fill_(255)
    white = tracks.batch(0)
    originals = tracks.cutter.cut
    tracks.cutter.cut = lambda b, random, image=None: blacken(originals(b, random, image))
    black = tracks.batch(0)
    differ = (white.searches - black.searches).abs().amax(2) > 2.0  # (B, 2, H, W)
    seen = 0
    for mask, box in zip(differ.flatten(0, 1), black.boxes_xyxy.flatten(0, 1), strict=True):
        rows, columns = mask.nonzero().unbind(1)
        got = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        error = torch.tensor(got) - box
        seen += 1
        assert error.abs().max() < 2.5, (got, box)
    assert seen == 16


PLAIN = dict(
    segment_share=0.0,
    distractor_share=0.0,
    occluder_share=0.0,
    blur_share=0.0,
    gray_share=0.0,
    color_jitter=0.0,
    noise=0.0,
    image_side=64,
    patch_side=64,
)


def test_absent_targets_are_invisible(config):
    """White and black targets give the same crop where the target is absent."""
    tracks = make(replace(config, **PLAIN, in_place_share=0.0, absent_share=0.5), batch_size=16)
    tracks.pool.images.fill_(255)
    white = tracks.batch(0)
    originals = tracks.cutter.cut

    def only_the_target(b, random, image=None):  # the second cut-out covers and is looked past
        cutouts = originals(b, random, image)
        return cutouts if image is not None or next(calls) % 2 else blacken(cutouts)

    calls = itertools.count()
    tracks.cutter.cut = only_the_target
    black = tracks.batch(0)
    differ = (white.searches - black.searches).abs().amax((2, 3, 4)) > 0.5  # (B, 2)
    absent = black.boxes_xyxy.isnan()
    assert (absent.all(-1) == absent.any(-1)).all()
    assert 8 < absent[..., 0].sum() < 24
    assert torch.equal(differ, ~absent[..., 0])


def test_absent_targets_left_in_their_photograph_are_out_of_the_crop(config):
    tracks = make(replace(config, **PLAIN, in_place_share=1.0, absent_share=1.0), batch_size=16)
    batch = tracks.batch(0)
    assert batch.boxes_xyxy.isnan().all() and batch.searches.isfinite().all()
    window = torch.tensor([[[3.0, 1.0, 4.0, 2.0]] * 2])
    box = torch.tensor([[[2.0, 1.0, 3.0, 1.5]] * 2])
    random = RandomStream(CPU, 0)
    for _ in range(20):
        px = to_crop(box, tracks.beside(window, box, random), (64, 64))
        assert ((px[..., 2:] - px[..., :2]).amin(-1) < 1e-3).all(), px


def test_hard_tracks_keep_their_boxes(config):
    """Shares that change pixels or references alone leave the ranges of a batch as they are."""
    hard = replace(
        config,
        astray_share=1.0,
        likeness_share=1.0,
        distractor_share=1.0,
        coarse_share=0.5,
        flicker_share=1.0,
        blur_share=1.0,
        blur=5.0,
    )
    tracks = make(hard)
    for index in range(4):
        batch = tracks.batch(index)
        assert batch.boxes_xyxy.isfinite().all() and batch.searches.isfinite().all()
        assert batch.masks.flatten(2).any(-1).all()
        assert cells_of(batch.boxes_xyxy, (96, 128), (6, 8)).flatten(2).any(-1).all()


def test_a_repeated_reference_is_the_template_to_the_pixel(config):
    jittery = replace(config, reference_jitter=0.2)
    once, twice = make(jittery).batch(5), make(replace(jittery, repeat_share=1.0)).batch(5)
    assert torch.equal(twice.references[:, 1], once.references[:, 0])
    assert torch.equal(twice.masks[:, 1], once.masks[:, 0])
    assert (once.references[:, 1] != once.references[:, 0]).flatten(1).any(1).all()
    for same, other in zip(once[2:], twice[2:], strict=True):  # nothing else has changed
        assert torch.equal(same, other)
    assert torch.equal(twice.references[:, ::2], once.references[:, ::2])


def test_a_turning_target_keeps_its_box_and_its_first_appearance(config):
    """After the template, another surface moves in, inside of the outline only."""
    still = make(config).cutter
    turning = make(replace(config, turn_share=1.0)).cutter
    warped = RandomStream(CPU, 1).uniform((6, 5, 4, 32, 32), 0, 1)
    warped[:, :, :3] *= warped[:, :, 3:]
    clock = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).expand(6, 5)
    objects = turning.cut(6, RandomStream(CPU, 2))
    pasted = torch.zeros(6, dtype=torch.bool)
    assert torch.equal(still.turn(warped, objects, pasted, RandomStream(CPU, 0), clock), warped)
    assert not still.turn(warped, objects, ~pasted, RandomStream(CPU, 0), clock).any()
    seen = turning.turn(warped, objects, pasted, RandomStream(CPU, 0), clock)
    torch.testing.assert_close(seen[:, :, 3], warped[:, :, 3])
    assert (seen[:, :, :3] <= seen[:, :, 3:] + 1e-6).all()  # colors stay multiplied by alpha
    change = (seen - warped).abs().mean((0, 2, 3, 4))
    assert change[0] < 0.2 * change[-1] and (change.diff() > 0).all(), change


def test_a_target_in_its_photograph_is_covered_in_the_template_only(config):
    turning = make(replace(config, turn_share=1.0)).cutter
    whole = torch.ones(16, 5, 4, 32, 32)
    clock = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).expand(16, 5)
    objects = turning.cut(16, RandomStream(CPU, 2))
    assert 0 < objects.is_segment.sum() < 16
    seen = turning.turn(
        whole, objects, torch.ones(16, dtype=torch.bool), RandomStream(CPU, 0), clock
    )
    covered = seen[:, :, 3].mean((2, 3))  # (B, T)
    assert not covered[~objects.is_segment].any()  # they have no outline to be found by
    covered = covered[objects.is_segment]
    assert (covered.diff(dim=1) < 1e-6).all()
    assert (covered <= 0.55).all() and (covered[:, 0] > 0.2).any() and (covered[:, -1] < 0.2).all()


def test_an_endless_background_is_mirrored(config):
    """Seen through a window twice as large as the photograph."""
    photograph = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pose, window = torch.eye(2, 3)[None, None], torch.tensor([[[0.0, 0.0, 2.0, 2.0]]])
    for endless in (False, True):
        seen = render(
            (photograph,),
            (pose,),
            torch.zeros(1, 3, 1, 1),
            torch.tensor([endless]),
            window,
            slice(0, 1),
            (16, 16),
        )[0, 0]
        torch.testing.assert_close(seen[:, 4:12, 4:12], photograph[0])
        left, top = seen[:, 4:12, :4], seen[:, :4, 4:12]
        if endless:
            torch.testing.assert_close(left, photograph[0, :, :, :4].flip(2))
            torch.testing.assert_close(top, photograph[0, :, :4].flip(1))
        else:
            assert left.amax() < 1e-5 and top.amax() < 1e-5

    white = render(
        (torch.ones(1, 3, 8, 8),),
        (pose,),
        torch.zeros(1, 3, 1, 1),
        torch.tensor([True]),
        window,
        slice(0, 1),
        (64, 64),
    )
    torch.testing.assert_close(white, torch.ones_like(white))  # no seam where it is mirrored
    plain = replace(config, **PLAIN, in_place_share=0.0)
    ends, goes_on = (make(replace(plain, endless_share=n)).batch(0) for n in (0.0, 1.0))
    assert not torch.equal(ends.searches, goes_on.searches)
    assert torch.equal(ends.boxes_xyxy, goes_on.boxes_xyxy)


def test_limbs_swing_about_an_unchanged_body(config):
    cutter = make(replace(config, limb_share=1.0)).cutter
    line = torch.linspace(-1, 1, 32)
    disc = (line**2 + line[:, None] ** 2 < 0.9).float().expand(16, 5, 4, 32, 32)
    image, clock = torch.arange(16) % 6, torch.linspace(-1, 1, 5).expand(16, 5)
    whole, limbed = cutter.add_limbs(disc, image, RandomStream(CPU, 0), clock)
    color, alpha = whole[:, :, :3], whole[:, :, 3]
    assert limbed.all() and whole.shape == disc.shape
    assert alpha.min() >= 0 and alpha.max() <= 1 + 1e-6
    assert (color <= alpha[:, :, None] + 1e-6).all()  # multiplied by alpha, as all layers are
    assert (alpha[..., 12:20, 12:20] > 0.99).all()
    body = F.interpolate(F.pad(disc[:1, 0], (8,) * 4), (32, 32), mode="area")[0, 3] > 0.01
    beyond = alpha * ~body
    assert (beyond.amax((1, 2, 3)) > 0.5).sum() >= 12  # most of them reach out of the body
    assert ((beyond[:, 0] - beyond[:, 4]).abs().amax((1, 2)) > 0.5).sum() >= 12

    still, _ = cutter.add_limbs(disc, image, RandomStream(CPU, 0), torch.zeros(16, 5))
    torch.testing.assert_close(still, still[:, :1].expand_as(still))
    none = make(replace(config, limb_share=0.0)).cutter
    same, limbed = none.add_limbs(disc, image, RandomStream(CPU, 0), clock)
    assert same is disc and not limbed.any()


def test_boxes_include_the_limbs(config):
    """A white target with white limbs on black photographs: its box is where it is white."""
    tracks = make(replace(config, **PLAIN, in_place_share=0.0, limb_share=1.0), batch_size=16)
    tracks.pool.images.zero_()
    tracks.pool.images[1] = 255
    originals, chosen = tracks.cutter.cut, itertools.chain((1,), itertools.repeat(0))

    def one_white(b, random, image=None):
        drawn = originals(b, random, image)
        which = 0 if image is not None else next(chosen)
        alpha = drawn.rgba[:, 3:]
        rgba = torch.cat([which * alpha.expand(-1, 3, -1, -1), alpha], 1)
        return replace(drawn, rgba=rgba, image=torch.full_like(drawn.image, which))

    tracks.cutter.cut = one_white
    batch = tracks.batch(0)
    pixels = batch.searches * tracks.photometric.std + tracks.photometric.mean
    white = pixels.amin(2) > 0.5  # (B, S, H, W)
    for seen, box in zip(white.flatten(0, 1), batch.boxes_xyxy.flatten(0, 1), strict=True):
        y, x = seen.nonzero().unbind(1)
        found = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        assert (found - box).abs().max() < 4, (found, box)


def test_the_number_of_searches_can_be_set(config):
    stills = read_photos(config, CPU)
    batch = SyntheticTracks(config, MODEL, TRACKER, stills, 6, searches=4).batch(0)
    assert batch.references.shape == (6, 3, 3, 48, 64)
    assert batch.searches.shape == (6, 4, 3, 96, 128) and batch.searches.isfinite().all()
    assert batch.boxes_xyxy.shape == (6, 4, 4)


def test_nothing_hides_a_target_in_its_template(config):
    plain = replace(config, **PLAIN, in_place_share=0.0)
    bare = make(plain, batch_size=16).batch(0)
    hidden = make(replace(plain, occluder_share=1.0), batch_size=16).batch(0)
    assert torch.equal(bare.references[:, 0], hidden.references[:, 0])
    assert not torch.equal(bare.searches, hidden.searches)


def test_a_lamp_that_is_switched_has_two_levels(config):
    factors = RandomStream(CPU, 0).exposure(400, 5, 0.5)[..., 0]
    assert 0.1 < factors.min() < 0.15 and factors.max() == 1.0
    levels = torch.tensor([len(row.unique()) for row in factors])
    assert levels.max() == 2  # on and off
    assert 0.4 < (factors == 1).all(1).double().mean() < 0.6  # the others have no lamp
    assert (RandomStream(CPU, 0).exposure(4, 5, 0.0) == 1).all()
    mean = torch.tensor(
        [
            make(replace(config, switch_share=share)).batch(0).searches.mean()
            for share in (0.0, 1.0)
        ]
    )
    assert mean[1] < mean[0] - 0.2


def test_slack_of_a_box_is_constant_over_a_track(config):
    """Sides are displaced by constant shares of the target, and never cross."""
    careless, exact = make(replace(config, box_slack=0.3)), make(config)
    low = RandomStream(CPU, 0).uniform((400, 5, 2), -2, 2)
    boxes = torch.cat([low, low + RandomStream(CPU, 1).uniform((400, 5, 2), 0.2, 3)], -1)
    assert torch.equal(exact.with_slack(boxes, RandomStream(CPU, 2)), boxes)
    drawn = careless.with_slack(boxes, RandomStream(CPU, 2))
    assert ((drawn[..., 2:] - drawn[..., :2]) > 0.09 * (boxes[..., 2:] - boxes[..., :2])).all()
    slack = (drawn - boxes) / (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
    torch.testing.assert_close(slack, slack[:, :1].expand_as(slack))
    assert 0.12 < slack[:, 0].std() < 0.18 and slack.abs().max() <= 0.4501
    tight, loose = exact.batch(0), careless.batch(0)  # crops follow the box that was drawn
    for ours, theirs in ((tight.references, loose.references), (tight.searches, loose.searches)):
        assert (ours != theirs).flatten(1).any(1).all()


def test_a_part_of_a_target_lacks_the_same_piece_at_one_side_all_the_time(config):
    boxes = torch.tensor([0.0, 0, 2, 1]).repeat(400, 5, 1)
    parts = make(replace(config, part_share=0.5)).with_slack(boxes, RandomStream(CPU, 2))
    inwards = (parts - boxes) / torch.tensor([2.0, 1, -2, -1])
    torch.testing.assert_close(inwards, inwards[:, :1].expand_as(inwards))
    assert inwards.min() >= 0 and 0.4 < inwards.max() <= 0.45
    cut_sides = (inwards[:, 0] > 0).sum(1)
    assert cut_sides.max() == 1 and 0.4 < cut_sides.float().mean() < 0.6
    assert (inwards[:, 0] > 0).any(0).all(), "every side is cut in some track"


def test_grains_have_the_size_of_the_settings():
    for grain, likeness in ((1.0, 0.0), (4.0, 0.75)):
        sheets = [RandomStream(CPU, seed).noise(3, 64, 96, grain) for seed in range(20)]
        assert sheets[0].shape == (3, 64, 96)
        next_to = [(sheet[..., 1:] * sheet[..., :-1]).mean() / sheet.var() for sheet in sheets]
        assert sum(next_to).item() / 20 == pytest.approx(likeness, abs=0.1)


def test_blur_has_the_length_of_the_settings():
    for longest, side in ((0.0, 1), (2.5, 7), (5.0, 13)):
        kernels = RandomStream(CPU, 0).blur_kernels(50, longest)
        assert kernels.shape == (50, 1, side, side)
        assert kernels.sum((1, 2, 3)).tolist() == pytest.approx([1.0] * 50)
        assert (kernels.abs() > torch.finfo(torch.float32).tiny).all()  # not denormal


def blacken(cutouts):
    """The same cut-outs without color."""
    rgba = cutouts.rgba.clone()
    rgba[:, :3] = 0
    return replace(cutouts, rgba=rgba)


def test_boxes_of_a_turned_square():
    alpha = torch.ones(1, 1, 64, 64)
    turn = torch.tensor([[0.5, -0.5, 3.0], [0.5, 0.5, 4.0]])
    box = alpha_boxes(alpha, turn.view(1, 1, 2, 3))[0, 0]
    assert box.tolist() == pytest.approx([2.0, 3.0, 4.0, 5.0], abs=1e-4)


def test_windows_follow_the_rule_of_the_tracker():
    box = [40.0, 30.0, 100.0, 70.0]
    window = crop_windows(torch.tensor(box, dtype=torch.float64), 4.0, (96, 128))
    wanted = crop_transform(np.array(box), 4.0, (96, 128)).to_crop(np.array(box))
    got = to_crop(torch.tensor(box, dtype=torch.float64), window, (96, 128))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_contact_sheet(config):
    tracks = make(config)
    sheet = contact_sheet(tracks.batch(0), rows=2)
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * 100, 3 * 68 + 2 * 132, 3)
    assert (sheet == (0, 255, 0)).all(-1).any()  # the true box


def test_tracks_are_made_without_label_maps(config):
    batch = make(replace(config, masks=())).batch(0)
    assert batch.searches.isfinite().all()


@pytest.mark.gpu
def test_batches_are_made_on_a_gpu(config):
    stills = read_photos(config, torch.device("cuda"))
    batch = SyntheticTracks(replace(config, **HARD), MODEL, TRACKER, stills, 6).batch(0)
    assert batch.searches.is_cuda and batch.searches.isfinite().all()
