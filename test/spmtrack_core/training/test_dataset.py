"""Samples of real tracks: repeatable for any workers, ranks and starts; right crops and boxes."""

from __future__ import annotations

import subprocess
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tiny_model import TINY

from spmtrack_core.config import DatasetConfig, TrackerConfig
from spmtrack_core.data.catalog import open_tracks
from spmtrack_core.geometry.boxes import clip_xyxy, xywh_to_xyxy
from spmtrack_core.geometry.crop import context_crop
from spmtrack_core.geometry.image import IMAGENET_MEAN, IMAGENET_STD, crop_image, normalize
from spmtrack_core.settings import from_dict
from spmtrack_core.tracking.preprocess import foreground_mask
from spmtrack_core.training.batch import Batch, contact_sheet
from spmtrack_core.training.config import VideoConfig
from spmtrack_core.training.dataset import VideoTracks, _part, last_visible
from spmtrack_core.training.sources import MicroBatches, collate, loader
from spmtrack_core.training.targets import cells_of

MODEL = replace(TINY, template_hw=(48, 64), search_hw=(96, 128))
TRACKER = TrackerConfig()
PLAIN = {
    "scale_jitter": 0.0,
    "translation_jitter": 0.0,
    "min_side": 0.0,
    "flip": 0.0,
    "color_jitter": 0.0,
    "shared": False,
    "reverse": 0.0,
}
TARGET = (255, 0, 255)


class Memory:
    """Tracks without files: a magenta target on dark noise, one list of boxes for each track."""

    def __init__(self, *tracks, hw=(90, 120), name="memory"):
        self.tracks, self.hw, self.name = tracks, hw, name
        self.reads: list[tuple[int, int]] = []

    def __len__(self):
        return len(self.tracks)

    def draw(self, random):
        return int(random.integers(len(self.tracks)))

    def track_name(self, i):
        return f"t{i}"

    def boxes_xywh(self, i):
        return np.array(self.tracks[i], np.float64)

    def read(self, i, frame):
        self.reads.append((i, frame))
        image = np.random.default_rng(frame).integers(0, 90, (*self.hw, 3)).astype(np.uint8)
        box = clip_xyxy(xywh_to_xyxy(self.tracks[i][frame]), self.hw)
        if np.isfinite(box).all():
            x1, y1, x2, y2 = box.astype(int)
            image[y1:y2, x1:x2] = TARGET
        return image


MOVING = [(10 + 3 * t, 20 + t, 30, 20) for t in range(12)]
STILL = [(40, 30, 24, 36)]


def make(*tracks, seed=0, **settings):
    """Samples of one dataset in memory for each of ``tracks``."""
    datasets = tuple(DatasetConfig("folder", "x") for _ in tracks)
    return VideoTracks(VideoConfig(datasets, **settings), MODEL, TRACKER, tracks, seed)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x.nan_to_num(-1), y.nan_to_num(-1)) for x, y in zip(a, b, strict=True))


def test_shapes_types_and_ranges():
    samples = make(Memory(MOVING), Memory(STILL))
    for index in range(12):
        sample = samples.sample(index)
        assert [tuple(part.shape) for part in sample] == [
            (3, 3, 48, 64),
            (3, 3, 4),
            (2, 3, 96, 128),
            (2, 4),
        ]
        assert all(part.dtype == torch.float32 and part.isfinite().all() for part in sample)
        assert set(sample.masks.unique().tolist()) <= {0.0, 1.0}
        assert sample.masks.flatten(1).any(1).all()
        x1, y1, x2, y2 = sample.boxes_xyxy.unbind(-1)
        assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 128).all() and (y2 <= 96).all()
        assert cells_of(sample.boxes_xyxy, (96, 128), (6, 8)).flatten(1).any(1).all()


def test_a_sample_depends_on_seed_and_index_alone():
    samples = make(Memory(MOVING), Memory(STILL))
    wanted = [samples.sample(index) for index in range(6)]
    np.random.seed(5)
    torch.manual_seed(5)
    states = np.random.get_state()[1].copy(), torch.get_rng_state().clone()
    again = make(Memory(MOVING), Memory(STILL))
    for index in (4, 1, 5, 0):
        assert same(again.sample(index), wanted[index])
    assert not same(wanted[0], wanted[1])
    assert not same(make(Memory(MOVING), Memory(STILL), seed=1).sample(0), wanted[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])
    assert torch.equal(torch.get_rng_state(), states[1])


@pytest.fixture(scope="module")
def batches():
    """Six batches of two ranks, made in this process."""
    samples = make(Memory(MOVING), Memory(STILL))
    return {
        (step, rank): batch
        for rank in range(2)
        for step, batch in enumerate(loader(samples, 4, 0, 0, 3, rank, 2))
    }


@pytest.mark.parametrize(("workers", "rank"), [(1, 0), (2, 1)])
def test_batches_are_the_same_for_any_number_of_workers(batches, workers, rank):
    torch.manual_seed(9)
    before = torch.get_rng_state().clone()
    samples = make(Memory(MOVING), Memory(STILL))
    made = list(loader(samples, 4, workers, 0, 3, rank, 2))
    assert len(made) == 3
    for step, batch in enumerate(made):
        assert isinstance(batch, Batch) and batch.references.shape == (4, 3, 3, 48, 64)
        assert same(batch, batches[step, rank])
    assert torch.equal(torch.get_rng_state(), before)  # else a resumed run would go another way


def test_a_signal_to_all_processes_of_a_job_leaves_the_workers_to_the_run():
    made = iter(loader(make(Memory(MOVING), Memory(STILL)), 4, 1, 0, 4))
    next(made)
    (worker,) = made._workers
    for name in ("TERM", "INT", "HUP"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    assert len(list(made)) == 3


def test_a_run_that_ends_ends_its_workers():
    made = iter(loader(make(Memory(MOVING), Memory(STILL)), 4, 1, 0, 9))
    next(made)
    (worker,) = made._workers
    worker.terminate()  # as Python does at its end, where it waits for the worker
    worker.join(60)
    assert worker.exitcode == 0


def test_a_later_start_gives_the_same_batches(batches):
    for step, batch in enumerate(loader(make(Memory(MOVING), Memory(STILL)), 4, 1, 2, 3, 1, 2), 2):
        assert same(batch, batches[step, 1])


def test_ranks_share_the_samples_of_one_process(batches):
    alone = list(loader(make(Memory(MOVING), Memory(STILL)), 8, 0, 0, 3))
    for step, batch in enumerate(alone):
        pair = (batches[step, 0], batches[step, 1])
        together = Batch(*(torch.cat(parts) for parts in zip(*pair, strict=True)))
        assert same(together, batch)


def test_every_index_is_used_once():
    ranks = [MicroBatches(4, 0, 5, rank, 3) for rank in range(3)]
    assert sorted(index for rank in ranks for each in rank for index in each) == list(range(60))
    assert list(MicroBatches(4, 2, 3, 1, 3)) == [[28, 29, 30, 31]]
    assert len(MicroBatches(4, 2, 9, 1, 3)) == 7


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ((4, 0, 3, 2, 2), r"rank must be in \[0, 2\); got 2"),
        ((4, 0, 3, -1, 2), "rank must be in"),
        ((0, 0, 3, 0, 1), "size 0"),
        ((4, 3, 2, 0, 1), "start 3, stop 2"),
        ((4, -1, 2, 0, 1), "start -1"),
    ],
)
def test_wrong_numbers_of_micro_batches_are_rejected(settings, match):
    with pytest.raises(ValueError, match=match):
        MicroBatches(*settings)


def test_crops_are_the_same_as_in_tracking():
    source = Memory(MOVING)
    samples = make(source, **PLAIN)
    checked = 0
    for index in range(12):
        source.reads.clear()
        sample = samples.sample(index)
        times = [frame for _, frame in source.reads]  # sorted, as is the sample without reversal
        if len(times) < 5:
            continue  # which one was drawn twice cannot be told from the reads
        checked += 1
        frames = [source.read(0, time) for time in times]
        boxes = [xywh_to_xyxy(MOVING[time]) for time in times]
        for i in range(3):
            crop = context_crop(boxes[i], 2.0, frames[i].shape[:2], (48, 64))
            pixels = normalize(crop_image(frames[i], crop, (48, 64)))
            np.testing.assert_allclose(sample.references[i], pixels, atol=1e-5)
            box = crop.transform.to_crop(boxes[i])
            mask = foreground_mask(box, (48, 64), (3, 4), clip=True)
            np.testing.assert_array_equal(sample.masks[i], mask)
        for i in range(2):
            crop = context_crop(boxes[3 + i], 5.0, frames[3 + i].shape[:2], (96, 128))
            pixels = normalize(crop_image(frames[3 + i], crop, (96, 128)))
            np.testing.assert_allclose(sample.searches[i], pixels, atol=1e-5)
            box = clip_xyxy(crop.transform.to_crop(boxes[3 + i]), (96, 128))
            np.testing.assert_allclose(sample.boxes_xyxy[i], box, rtol=1e-6)
    assert checked >= 3


def magenta(image):
    """Where a normalized image (3, H, W) has the color of the target."""
    pixels = image.numpy() * IMAGENET_STD[:, None, None] + IMAGENET_MEAN[:, None, None]
    return (pixels[0] > 0.55) & (pixels[2] > 0.55) & (pixels[1] < 0.3)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_and_masks_lie_on_the_target(flip):
    """With jitter, mirrored or not, and with part of the target out of the frame."""
    source = Memory(MOVING, [(-15, 40, 40, 30), (95, 70, 60, 40), (50, -10, 30, 40)] * 4)
    samples = make(source, flip=flip, color_jitter=0.0, shared=False, translation_jitter=1.5)
    for index in range(16):
        sample = samples.sample(index)
        for image, box in zip(sample.searches, sample.boxes_xyxy, strict=True):
            rows, columns = np.nonzero(magenta(image))
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array(seen) - box.numpy()).max() < 3.0, index
        for image, mask in zip(sample.references, sample.masks, strict=True):
            seen = magenta(image).astype(np.uint8)
            near = cv2.dilate(seen, np.ones((5, 5)))  # the outermost pixels are blends
            share, reach = (
                pixels.reshape(3, 16, 4, 16).transpose(0, 2, 1, 3).mean((2, 3))
                for pixels in (seen, near)
            )
            assert mask.numpy()[share > 0.2].all() and not mask.numpy()[reach == 0].any(), index


def test_mirroring_moves_the_mask():
    tall = [(60, 0, 12, 90)] * 5  # off the middle once the crop is aligned to its pixels
    kept, mirrored = (make(Memory(tall), **{**PLAIN, "flip": p}).sample(0) for p in (0.0, 1.0))
    np.testing.assert_allclose(mirrored.references, kept.references.flip(-1), atol=1e-6)
    np.testing.assert_array_equal(mirrored.masks, kept.masks.flip(-1))
    x1, _, x2, _ = kept.boxes_xyxy.unbind(1)
    np.testing.assert_allclose(mirrored.boxes_xyxy[:, 0], 128 - x2)
    np.testing.assert_allclose(mirrored.boxes_xyxy[:, 2], 128 - x1)


def test_a_still_is_read_once():
    source = Memory(STILL)
    make(source).sample(0)
    assert source.reads == [(0, 0)]


def test_a_frame_is_read_once_for_all_its_crops():
    source = Memory(MOVING[:4])
    samples = make(source)
    for index in range(20):
        source.reads.clear()
        samples.sample(index)
        assert len(source.reads) == len(set(source.reads)) <= 4


def test_datasets_have_their_shares():
    sources = [Memory(STILL, name="a"), Memory(STILL, name="b")]
    datasets = (DatasetConfig("folder", "x", weight=3.0), DatasetConfig("folder", "y"))
    samples = VideoTracks(VideoConfig(datasets), MODEL, TRACKER, sources)
    for index in range(40):
        samples.sample(index)
    assert samples.shares.tolist() == [0.75, 0.25]
    assert len(sources[0].reads) > len(sources[1].reads) > 0


class Broken(Memory):
    """As ``Memory``, but every fourth frame of it is gone."""

    def read(self, i, frame):
        if frame % 4 == 1:
            raise FileNotFoundError(f"no image at {frame}.jpg")
        return super().read(i, frame)


def test_broken_frames_are_replaced_and_named_once():
    samples = make(Broken(MOVING))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = [samples.sample(index) for index in range(12)]
        again = [samples.sample(index) for index in range(12)]
    assert all(same(a, b) for a, b in zip(made, again, strict=True))
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == len(set(texts)) == len(samples.broken) > 1
    assert texts[0].startswith("memory, track t0, frame ") and ".jpg" in texts[0]
    assert "in this process: 1" in texts[0] and "in this process: 2" in texts[1]


def test_a_deleted_dataset_is_an_error():
    class Gone(Memory):
        def read(self, i, frame):
            raise OSError("disk is off-line")

    samples = make(Gone(STILL))
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="disk is off-line"):
        samples.sample(3)


@pytest.mark.parametrize(
    ("tracks", "settings", "match"),
    [
        (STILL, {"min_side": 97.0}, "97 px"),  # more than the search crop is high
        ([(200, 30, 20, 20)], {}, "its box is outside"),  # out of the frame
    ],
)
def test_a_target_without_a_usable_sample_is_an_error(tracks, settings, match):
    with pytest.raises(ValueError, match=match):
        make(Memory(tracks), **settings).sample(0)


def test_bad_tracks_are_replaced_by_good_ones():
    sample = make(Memory([(200, 30, 20, 20)], STILL)).sample(0)
    assert sample.boxes_xyxy.isfinite().all()


def test_absent_targets_have_no_box_and_a_crop_at_their_last_box():
    nowhere = [(np.nan,) * 4] * 6
    boxes = [(45, 35, 30, 20)] * 6 + nowhere + [(80, 60, 20, 20)] * 6
    samples = make(Memory(boxes), absent_share=1.0)
    for index in range(10):
        sample = samples.sample(index)
        assert sample.boxes_xyxy[0].isfinite().all() and sample.boxes_xyxy[1].isnan().all()
        assert sample.searches.isfinite().all() and not magenta(sample.searches[1]).any()
        assert sample.masks.flatten(1).any(1).all()
    visible = np.isfinite(boxes).all(1)
    assert last_visible(visible, 2, 9) == 5 and last_visible(visible, 14, 9) == 12
    plain = make(Memory(boxes), absent_share=0.0)
    assert all(plain.sample(index).boxes_xyxy.isfinite().all() for index in range(20))


def write_clip(folder, source):
    folder.mkdir(parents=True)
    for frame, _ in enumerate(source.tracks[0]):
        image = cv2.cvtColor(source.read(0, frame), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{frame + 1:08d}.jpg"), image)
    np.savetxt(folder / "groundtruth.txt", source.boxes_xywh(0), "%g", ",")


def test_contact_sheet_of_a_folder_of_clips(tmp_path):
    write_clip(tmp_path / "clips" / "one", Memory(MOVING))
    write_clip(tmp_path / "clips" / "two", Memory(MOVING[::-1]))
    dataset = DatasetConfig("folder", str(tmp_path / "clips"))
    tracks = open_tracks(dataset, tmp_path / "cache")
    samples = VideoTracks(VideoConfig((dataset,)), MODEL, TRACKER, [tracks])
    (batch,) = loader(samples, 2, 1, 0, 1)
    assert same(batch, collate([samples.sample(0), samples.sample(1)]))
    sheet = contact_sheet(batch)
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * 100, 3 * 68 + 2 * 132, 3)
    assert (sheet == (0, 255, 0)).all(-1).any()  # the true box


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"reverse": 1.1}, r"reverse must be in \[0, 1\]; got 1\.1"),
        ({"flip": -0.1}, "flip"),
        ({"absent_share": float("nan")}, "absent_share"),
        ({"reference_gap": 0}, "reference_gap must be at least 1"),
        ({"search_gap": 1}, "search_gap must be at least 2"),  # two searches
        ({"scale_jitter": float("inf")}, "scale_jitter must be finite and at least 0; got inf"),
        ({"min_side": -1.0}, "min_side"),
        ({"color_jitter": 1.5}, r"color_jitter must be in \[0, 1\]"),
    ],
)
def test_settings_out_of_range_are_rejected(change, match):
    with pytest.raises(ValueError, match=match):
        replace(VideoConfig(), **change)


def test_settings_are_read_with_their_datasets():
    config = from_dict(
        VideoConfig, {"datasets": [{"name": "folder", "root": "a", "weight": 2}], "flip": 0}
    )
    assert config.datasets == (DatasetConfig("folder", "a", weight=2.0),) and config.flip == 0.0
    with pytest.raises(ValueError, match="unknown key 'roots' under datasets"):
        from_dict(VideoConfig, {"datasets": [{"name": "folder", "roots": "a"}]})


@pytest.mark.parametrize(
    ("sources", "count", "match"),
    [
        ([], 0, "at least one"),
        ([Memory(STILL)], 2, "got 1 for 2"),
        ([Memory()], 1, "memory has no tracks"),
    ],
)
def test_unusable_datasets_are_rejected(sources, count, match):
    datasets = tuple(DatasetConfig("folder", "x") for _ in range(count))
    with pytest.raises(ValueError, match=match):
        VideoTracks(VideoConfig(datasets), MODEL, TRACKER, sources)


def test_negative_seeds_and_indices_are_rejected():
    with pytest.raises(ValueError, match="seed must be at least 0"):
        make(Memory(STILL), seed=-1)
    with pytest.raises(ValueError, match="got -1"):
        make(Memory(STILL)).sample(-1)


def test_a_mirrored_sample_is_the_sample_mirrored():
    """Pixels, masks and boxes; symmetric crops about a box in the middle of its frame."""
    centred = [(45, 35, 30, 20)] * 8
    plain = make(Memory(centred), **PLAIN).sample(0)
    mirrored = make(Memory(centred), **PLAIN, mirror=1.0).sample(0)
    width = MODEL.search_hw[1]
    for ours, theirs in zip(mirrored.boxes_xyxy, plain.boxes_xyxy, strict=True):
        assert ours.tolist() == pytest.approx(
            [width - theirs[2], theirs[1], width - theirs[0], theirs[3]], abs=1.5
        )
    assert torch.equal(mirrored.masks, plain.masks.flip(-1))
    # the same frames were drawn, so that nothing but the noise about the target differs
    assert make(Memory(MOVING), **PLAIN, mirror=1.0).sample(1).boxes_xyxy.isfinite().all()


def test_a_decoy_shows_something_else_and_says_so():
    other = [(70, 50, 20, 20)] * 4
    samples = make(Memory(MOVING, other), **PLAIN, decoy_share=1.0)
    for index in range(12):
        sample = samples.sample(index)
        assert sample.boxes_xyxy.isnan().all() and sample.masks.any()
    some = make(Memory(MOVING, other), **PLAIN, decoy_share=0.5)
    absent = torch.stack([some.sample(index).boxes_xyxy[:, 0].isnan() for index in range(60)])
    assert 0.35 < float(absent.float().mean()) < 0.65


JITTER = {"scale_jitter": 0.2, "size_jitter": 0.3, "translation_jitter": 2.0}


def share_of_target(crop):
    """The share of pixels that belong to a target of ``Memory``; ``crop`` (H, W, 3) in 0..255."""
    return float((np.abs(crop - np.array(TARGET)).max(2) < 60).mean())


def test_a_place_beside_the_target_does_not_show_it():
    source = Memory([(230, 190, 30, 20)] * 4, [(70, 50, 20, 20)] * 4, hw=(400, 500))
    samples = make(source, **{**PLAIN, **JITTER})
    frame, box = source.read(0, 0), np.array([230.0, 190, 260, 210])
    random, beside = np.random.default_rng(0), 0
    for _ in range(40):
        source.reads.clear()
        crop, _ = samples._decoy(frame, box, (source, 0), random)
        if not source.reads:  # of the same frame
            beside += 1
            assert share_of_target(crop) == 0
        else:
            assert source.reads == [(1, source.reads[0][1])] and share_of_target(crop) > 0
    assert 10 < beside < 30


def test_a_single_track_is_no_decoy_of_itself():
    samples = make(Memory([(10, 10, 100, 70)] * 4), **PLAIN, decoy_share=1.0)
    with pytest.raises(ValueError, match="has no other track that could be a decoy"):
        samples.sample(0)


def test_a_repeated_reference_is_the_template():
    sample = make(Memory(MOVING), **PLAIN, repeat_share=1.0, reference_jitter=0.1).sample(0)
    assert torch.equal(sample.references[1], sample.references[0])
    assert torch.equal(sample.masks[1], sample.masks[0])
    assert not torch.equal(sample.references[2], sample.references[0])


def test_a_part_of_a_target_lacks_the_same_piece_at_one_side_all_the_time():
    """Crops are around the part; a box of 30 x 20 pixels stays in its place."""
    boxes = np.array([[45.0, 35, 75, 55]] * 4)
    cut = np.array([_part(boxes, np.random.default_rng(seed)) for seed in range(60)])
    inwards = (cut - boxes) / np.array([30, 20, -30, -20])
    assert (np.ptp(inwards, axis=1) == 0).all()
    assert ((inwards > 0).sum(2) == 1).all() and 0.4 < inwards.max() <= 0.45
    whole, part = (
        make(Memory([(45, 35, 30, 20)] * 8), **PLAIN, part_share=share) for share in (0.0, 1.0)
    )
    for index in range(5):
        ours, theirs = part.sample(index), whole.sample(index)
        assert not torch.equal(ours.references, theirs.references)
    sides = torch.stack([part.sample(index).boxes_xyxy[0] for index in range(20)])
    width, height = (sides[:, 2:] - sides[:, :2]).unbind(1)
    assert (width / height).max() > 1.8 and (width / height).min() < 1.2
