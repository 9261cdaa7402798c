"""Samples of real tracks: frames read, cropped as the tracker crops them, and augmented.

Sample number ``index`` is a function of the settings, the seed and the index alone, so that
neither the number of processes that make samples nor an interruption changes what a network sees.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torchvision.transforms.v2.functional import normalize

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.data.tracks import Tracks
from spmtrack_core.geometry.boxes import Boxes, clip_xyxy, xywh_to_xyxy
from spmtrack_core.geometry.crop import CropTransform, align, context_crop
from spmtrack_core.geometry.image import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Image,
    crop_image,
)
from spmtrack_core.tracking.preprocess import foreground_mask
from spmtrack_core.tracking.references import REFERENCES
from spmtrack_core.training.augment import augment
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import VideoConfig
from spmtrack_core.training.jitter import jittered_crop
from spmtrack_core.training.sampler import sample_frames
from spmtrack_core.training.targets import cells_of

Crop = NDArray[np.float32]
MEAN, STD = IMAGENET_MEAN.tolist(), IMAGENET_STD.tolist()
ATTEMPTS = 50
"""Draws for one sample, before so many useless ones in a row are an error."""


class Unusable(Exception):
    """A draw that gives no sample; the text says why."""


class VideoTracks(Dataset[Batch]):
    """Endless samples of ``tracks``, one entry for each of ``config.datasets``.

    Raises ``ValueError`` for another number of entries, or none.
    """

    def __init__(
        self,
        config: VideoConfig,
        model: ModelConfig,
        tracker: TrackerConfig,
        tracks: Sequence[Tracks],
        seed: int = 0,
        searches: int = 2,
    ) -> None:
        if len(tracks) != len(config.datasets) or not tracks:
            raise ValueError(
                f"as many opened datasets as settings, and at least one, are needed; "
                f"got {len(tracks)} for {len(config.datasets)}"
            )
        if seed < 0:
            raise ValueError(f"seed must be >= 0, got {seed}")
        empty = [dataset.name for dataset in tracks if not len(dataset)]
        if empty:
            raise ValueError(f"dataset {empty[0]} holds no tracks")
        self.config, self.model, self.tracker = config, model, tracker
        self.tracks, self.seed, self.searches = tuple(tracks), seed, searches
        weights = np.array([dataset.weight for dataset in config.datasets])
        self.shares = weights / weights.sum()
        self.broken: set[str] = set()
        """Frames that this process could not read."""

    def __getitem__(self, index: int) -> Batch:
        return self.sample(index)

    def sample(self, index: int) -> Batch:
        """Sample ``index`` >= 0: a ``Batch`` without its first axis.

        A draw that cannot be used, such as a frame that is broken or a target that is too small in
        its crop, is replaced by the next one of the same index. Raises ``ValueError`` with the
        last reason where none of 50 draws is of use, and for a negative index.
        """
        if index < 0:
            raise ValueError(f"index of a sample must be >= 0, got {index}")
        reason = ""
        for attempt in range(ATTEMPTS):
            # the attempt makes its own generator, so that it does not matter how far the last came
            random = np.random.default_rng((self.seed, index, attempt))
            try:
                return self._draw(random)
            except Unusable as error:
                reason = str(error)
        raise ValueError(f"sample {index}: none of {ATTEMPTS} draws is of use; last: {reason}")

    def _draw(self, random: np.random.Generator) -> Batch:
        """One draw; ``Unusable`` if it gives no sample."""
        config = self.config
        tracks = self.tracks[int(random.choice(len(self.tracks), p=self.shares))]
        track = tracks.draw(random)
        boxes_xyxy = xywh_to_xyxy(tracks.boxes_xywh(track))  # (N, 4)
        visible = np.asarray(np.isfinite(boxes_xyxy).all(1))
        references, searches = sample_frames(visible, random, config, self.searches)
        times = np.append(references, searches)
        frames = {time: self._read(tracks, track, time) for time in sorted(set(times.tolist()))}

        crops: list[torch.Tensor] = []  # (3, h, w) in 0..1
        boxes: list[Boxes] = []  # (4,) each, crop px
        for i, time in enumerate(times.tolist()):
            frame = frames[time]
            # a search without the target is around where it was seen last
            where = time if visible[time] else last_seen(visible, int(times[0]), time)
            box = clip_xyxy(boxes_xyxy[where], frame.shape[:2])  # published: before all else
            if (box[2:] <= box[:2]).any():
                raise Unusable(f"{_place(tracks, track, time)} shows no part of its box")
            if i < REFERENCES:
                crop, transform = self._template(frame, box)
            else:
                crop, transform = self._search(frame, box, random)
            crops.append(torch.from_numpy(crop).permute(2, 0, 1) / 255)
            boxes.append(transform.to_crop(box) if visible[time] else np.full(4, np.nan))

        crops, boxes_in_crops = augment(
            crops, np.stack(boxes), random, config.flip, config.color_jitter, config.shared
        )
        z_hw, x_hw = self.model.template_hw, self.model.search_hw
        masks = np.stack(
            [foreground_mask(box, z_hw, self.model.template_grid_hw, clip=True)
             for box in boxes_in_crops[:REFERENCES]]
        )  # fmt: skip
        truth = torch.from_numpy(clip_xyxy(boxes_in_crops[REFERENCES:], x_hw)).float()  # (S, 4)
        covered = cells_of(truth, x_hw, self.model.search_grid_hw).flatten(1).any(1)
        there = torch.from_numpy(visible[searches])
        if not masks.any((1, 2)).all() or not covered[there].all():
            raise Unusable(f"{_place(tracks, track, int(times[0]))}: its box covers no cell")
        images = [normalize(crop, MEAN, STD) for crop in crops]
        return Batch(
            torch.stack(images[:REFERENCES]),
            torch.from_numpy(masks),
            torch.stack(images[REFERENCES:]),
            truth,
        )

    def _template(self, frame: Image, box_xyxy: Boxes) -> tuple[Crop, CropTransform]:
        """A reference frame as the tracker crops it, before normalisation."""
        output_hw = self.model.template_hw
        factor = self.tracker.template_area_factor
        crop = context_crop(box_xyxy, factor, frame.shape[:2], output_hw)
        return crop_image(frame, crop, output_hw), crop.transform

    def _search(
        self, frame: Image, box_xyxy: Boxes, random: np.random.Generator
    ) -> tuple[Crop, CropTransform]:
        """A search region out of place, before normalisation.

        Cropped as the tracker does, but for what lies beyond the frame: that has the frame's own
        mean colour, as published; in tracking it has that of the first frame.
        """
        config, output_hw = self.config, self.model.search_hw
        wanted, usable = jittered_crop(
            box_xyxy, self.tracker.search_area_factor, output_hw, random,
            config.scale_jitter, config.translation_jitter, config.min_side,
        )  # fmt: skip
        if not usable:
            raise Unusable(f"no search crop shows {config.min_side:g} px of {box_xyxy.tolist()}")
        crop = align(wanted, frame.shape[:2], output_hw)
        return crop_image(frame, crop, output_hw), crop.transform

    def _read(self, tracks: Tracks, track: int, frame: int) -> Image:
        """A frame; ``Unusable`` for one that cannot be read, with a warning the first time."""
        try:
            return tracks.read(track, frame)
        except (ValueError, OSError) as error:
            place = _place(tracks, track, frame)
            if place not in self.broken:
                self.broken.add(place)
                warnings.warn(
                    f"{place} cannot be used, other samples take its place "
                    f"({len(self.broken)} such frames in this process): {error}",
                    stacklevel=2,
                )
            raise Unusable(f"{place}: {error}") from None


def last_seen(visible: np.ndarray, first: int, absent: int) -> int:
    """The frame nearest to ``absent`` with the target, on the side of frame ``first``."""
    shown = np.flatnonzero(visible)
    return int(shown[shown < absent].max() if first < absent else shown[shown > absent].min())


class Steps(Sampler[list[int]]):
    """The sample indices of each step: those of all ranks together count on without a gap.

    Sample ``j`` of step ``k`` on rank ``r`` is number ``(k * world + r) * batch_size + j``. Raises
    ``ValueError`` for a rank that is not in the world, no samples, or steps that end before they
    start.
    """

    def __init__(self, batch_size: int, start: int, stop: int, rank: int, world: int) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank must be in 0..{world - 1}, got {rank}")
        if batch_size < 1 or not 0 <= start <= stop:
            raise ValueError(
                "batch_size must be >= 1 and 0 <= start <= stop; "
                f"got batch_size {batch_size}, start {start}, stop {stop}"
            )
        self.batch_size, self.steps = batch_size, range(start, stop)
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            first = (step * self.world + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))


def collate(samples: list[Batch]) -> Batch:
    """One batch of samples, in their order; in shared memory inside a process of a loader."""
    return default_collate(samples)


def loader(
    tracks: VideoTracks,
    batch_size: int,
    workers: int,
    start: int,
    stop: int,
    rank: int = 0,
    world: int = 1,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """The batches of steps ``start`` .. ``stop`` - 1, in order, for one of ``world`` processes.

    ``workers`` processes make them, each up to ``prefetch`` batches ahead; with 0 this one makes
    them when asked. That changes no batch, nor the state of any generator of random numbers.
    Raises ``ValueError`` as ``Steps`` does.
    """
    return DataLoader(
        tracks,
        batch_sampler=Steps(batch_size, start, stop, rank, world),
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        # a loader draws from its generator to seed its workers: not from that of the training
        generator=torch.Generator(),
    )


def _start_worker(_: int) -> None:
    """One core for each process: OpenCV's threads would only get in each other's way."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _place(tracks: Tracks, track: int, frame: int) -> str:
    return f"{tracks.name}, track {tracks.track_name(track)}, frame {frame}"
