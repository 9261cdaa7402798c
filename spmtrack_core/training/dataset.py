"""Samples of real tracks: read frames, crop them as the tracker does, augment the crops.

Sample number ``index`` depends on the settings, the seed and the index alone. So neither the
number of processes that make samples nor an interruption changes the training data.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import normalize

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.data.tracks import Tracks
from spmtrack_core.geometry.boxes import Boxes, clip_xyxy, xywh_to_xyxy
from spmtrack_core.geometry.crop import CropTransform, align, context_crop
from spmtrack_core.geometry.image import IMAGENET_MEAN, IMAGENET_STD, Image, crop_image
from spmtrack_core.tracking.preprocess import foreground_mask
from spmtrack_core.tracking.references import REFERENCES
from spmtrack_core.training.augment import augment
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import LARGEST_CUT, VideoConfig
from spmtrack_core.training.jitter import jittered_crop
from spmtrack_core.training.sampler import sample_frames
from spmtrack_core.training.targets import cells_of

Crop = NDArray[np.float32]
MEAN, STD = IMAGENET_MEAN.tolist(), IMAGENET_STD.tolist()
DECOY_ATTEMPTS = 8
"""Draws of a place beside the target, before another track is taken."""
ATTEMPTS = 50
"""Draws for one sample before the lack of a usable one is an error."""


class UnusableSample(Exception):
    """A draw that gives no sample, with the reason."""


class VideoTracks(Dataset[Batch]):
    """Endless samples of ``tracks``, the opened datasets of ``config.datasets`` in their order.

    Raises ``ValueError`` for no dataset, an empty one, or a number other than in the settings.
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
                "expected an opened dataset for each of videos.datasets, and at least one; "
                f"got {len(tracks)} for {len(config.datasets)}"
            )
        if seed < 0:
            raise ValueError(f"seed must be at least 0; got {seed}")
        empty = [dataset.name for dataset in tracks if not len(dataset)]
        if empty:
            raise ValueError(f"dataset {empty[0]} has no tracks")
        self.config, self.model, self.tracker = config, model, tracker
        self.tracks, self.seed, self.searches = tuple(tracks), seed, searches
        weights = np.array([dataset.weight for dataset in config.datasets])
        self.shares = weights / weights.sum()
        self.broken: set[str] = set()
        """Frames that could not be read in this process."""

    def __getitem__(self, index: int) -> Batch:
        return self.sample(index)

    def sample(self, index: int) -> Batch:
        """Sample ``index`` >= 0: a ``Batch`` without its first axis.

        If a draw is unusable (a broken frame, a target too small in its crop), the next draw of
        the same index replaces it. Raises ``ValueError`` with the last reason if none of 50 draws
        is usable, and for a negative index.
        """
        if index < 0:
            raise ValueError(f"index of a sample must be at least 0; got {index}")
        reason = ""
        for attempt in range(ATTEMPTS):
            # each attempt has its own generator, whatever the attempts before have drawn
            random = np.random.default_rng((self.seed, index, attempt))
            try:
                return self._draw(random)
            except UnusableSample as error:
                reason = str(error)
        raise ValueError(f"sample {index}: none of {ATTEMPTS} draws is usable; last: {reason}")

    def _draw(self, random: np.random.Generator) -> Batch:
        """One draw of a sample; raises ``UnusableSample``."""
        config = self.config
        tracks = self.tracks[int(random.choice(len(self.tracks), p=self.shares))]
        track = tracks.draw(random)
        boxes_xyxy = xywh_to_xyxy(tracks.boxes_xywh(track))  # (N, 4)
        # a share of 0 draws nothing, here and below, so that earlier recipes keep their samples
        if config.part_share and random.random() < config.part_share:
            boxes_xyxy = _part(boxes_xyxy, random)
        visible = np.asarray(np.isfinite(boxes_xyxy).all(1))
        references, searches = sample_frames(visible, random, config, self.searches)
        times = np.append(references, searches)
        frames = {time: self._read(tracks, track, time) for time in sorted(set(times.tolist()))}
        mirrored = bool(config.mirror and random.random() < config.mirror)

        crops: list[torch.Tensor] = []  # (3, h, w) in 0..1
        boxes: list[Boxes] = []  # (4,) each, crop px
        for i, time in enumerate(times.tolist()):
            frame = frames[time]
            # without the target, the search is around its last visible box
            where = time if visible[time] else last_visible(visible, int(times[0]), time)
            box = clip_xyxy(boxes_xyxy[where], frame.shape[:2])  # published: before all else
            if (box[2:] <= box[:2]).any():
                raise UnusableSample(f"{_where(tracks, track, time)}: its box is outside")
            shown = bool(visible[time])
            if i < REFERENCES and i and config.reference_jitter:
                error = config.reference_jitter * random.normal(size=4).clip(-2, 2)
                box = box + error * np.tile(box[2:] - box[:2], 2)
            if mirrored:
                frame = np.ascontiguousarray(frame[:, ::-1])
                width = frame.shape[1]
                box = np.array([width - box[2], box[1], width - box[0], box[3]])
            if i < REFERENCES:
                crop, transform = self._template(frame, box)
            elif config.decoy_share and random.random() < config.decoy_share:
                crop, transform = self._decoy(frame, box, (tracks, track), random)
                shown = False
            else:
                crop, transform = self._search(frame, box, random)
            crops.append(torch.from_numpy(crop).permute(2, 0, 1) / 255)
            boxes.append(transform.to_crop(box) if shown else np.full(4, np.nan))
        if config.repeat_share and random.random() < config.repeat_share:
            crops[1], boxes[1] = crops[0], boxes[0]

        crops, boxes_in_crops = augment(
            crops, np.stack(boxes), random, config.flip, config.color_jitter, config.shared
        )
        z_hw, x_hw = self.model.template_hw, self.model.search_hw
        z_grid_hw = self.model.template_grid_hw
        z_boxes = boxes_in_crops[:REFERENCES]
        masks = np.stack([foreground_mask(box, z_hw, z_grid_hw, clip=True) for box in z_boxes])
        truth = torch.from_numpy(clip_xyxy(boxes_in_crops[REFERENCES:], x_hw)).float()  # (S, 4)
        covered = cells_of(truth, x_hw, self.model.search_grid_hw).flatten(1).any(1)
        present = truth.isfinite().all(1)
        if not masks.any((1, 2)).all() or not covered[present].all():
            raise UnusableSample(f"{_where(tracks, track, int(times[0]))}: its box covers no cell")
        images = [normalize(crop, MEAN, STD) for crop in crops]
        return Batch(
            torch.stack(images[:REFERENCES]),
            torch.from_numpy(masks),
            torch.stack(images[REFERENCES:]),
            truth,
        )

    def _template(self, frame: Image, box_xyxy: Boxes) -> tuple[Crop, CropTransform]:
        """Crop of a reference frame as the tracker makes it, before normalization."""
        output_hw = self.model.template_hw
        factor = self.tracker.template_area_factor
        crop = context_crop(box_xyxy, factor, frame.shape[:2], output_hw)
        return crop_image(frame, crop, output_hw), crop.transform

    def _decoy(
        self,
        frame: Image,
        box_xyxy: Boxes,
        of: tuple[Tracks, int],
        random: np.random.Generator,
    ) -> tuple[Crop, CropTransform]:
        """Crop of a search region that does not show the target in ``box_xyxy`` of a frame.

        It is a place of the frame beside the target, or the target of another track than ``of``.
        """
        sides = box_xyxy[2:] - box_xyxy[:2]
        hw, output_hw = frame.shape[:2], self.model.search_hw
        for _ in range(DECOY_ATTEMPTS if random.random() < 0.5 else 0):
            center = random.uniform((0, 0), hw[::-1])
            place = clip_xyxy(np.concatenate((center - sides / 2, center + sides / 2)), hw)
            wanted, usable = self._jittered(place, random)
            seen = clip_xyxy(wanted.to_crop(box_xyxy), output_hw)
            if usable and (seen[2:] - seen[:2] <= 0).any():
                return cropped(frame, wanted, output_hw)
        for _ in range(DECOY_ATTEMPTS):
            tracks = self.tracks[int(random.choice(len(self.tracks), p=self.shares))]
            track = tracks.draw(random)
            if tracks is of[0] and track == of[1]:
                continue
            boxes_xyxy = xywh_to_xyxy(tracks.boxes_xywh(track))
            time = int(random.choice(np.flatnonzero(np.isfinite(boxes_xyxy).all(1))))
            other = self._read(tracks, track, time)
            box = clip_xyxy(boxes_xyxy[time], other.shape[:2])
            if (box[2:] <= box[:2]).any():
                raise UnusableSample(f"{_where(tracks, track, time)}: its box is outside")
            return self._search(other, box, random)
        raise UnusableSample(f"{tracks.name} has no other track that could be a decoy")

    def _search(
        self, frame: Image, box_xyxy: Boxes, random: np.random.Generator
    ) -> tuple[Crop, CropTransform]:
        """Jittered crop of a search region, before normalization.

        The area beyond the frame has the mean color of this frame, as published; in tracking it
        has that of the first frame.
        """
        wanted, usable = self._jittered(box_xyxy, random)
        if not usable:
            raise UnusableSample(
                f"no search crop shows {self.config.min_side:g} px of {box_xyxy.tolist()}"
            )
        return cropped(frame, wanted, self.model.search_hw)

    def _jittered(
        self, box_xyxy: Boxes, random: np.random.Generator
    ) -> tuple[CropTransform, bool]:
        """``jittered_crop`` by the settings."""
        return jittered_crop(
            box_xyxy,
            self.tracker.search_area_factor,
            self.model.search_hw,
            random,
            self.config.scale_jitter,
            self.config.translation_jitter,
            self.config.min_side,
            self.config.size_jitter,
        )

    def _read(self, tracks: Tracks, track: int, frame: int) -> Image:
        """Read a frame. If that fails, raise ``UnusableSample`` and, the first time, warn."""
        try:
            return tracks.read(track, frame)
        except (ValueError, OSError) as error:
            where = _where(tracks, track, frame)
            if where not in self.broken:
                self.broken.add(where)
                warnings.warn(
                    f"{where} cannot be read and is replaced; broken frames in this process: "
                    f"{len(self.broken)}: {error}",
                    stacklevel=2,
                )
            raise UnusableSample(f"{where}: {error}") from None


def cropped(
    frame: Image, wanted: CropTransform, output_hw: tuple[int, int]
) -> tuple[Crop, CropTransform]:
    """A crop on whole pixels, before normalization, and its transform."""
    crop = align(wanted, frame.shape[:2], output_hw)
    return crop_image(frame, crop, output_hw), crop.transform


def _part(boxes_xyxy: Boxes, random: np.random.Generator) -> Boxes:
    """Boxes (N, 4) with one side moved inwards, by the same share of the box in every frame."""
    side, cut = int(random.integers(4)), random.uniform(0, LARGEST_CUT)
    part = boxes_xyxy.copy()
    part[:, side] += cut * (boxes_xyxy[:, (side + 2) % 4] - boxes_xyxy[:, side])
    return part


def last_visible(visible: NDArray[np.bool_], first: int, absent: int) -> int:
    """The visible frame nearest to frame ``absent`` on the side of frame ``first``."""
    shown = np.flatnonzero(visible)
    return int(shown[shown < absent].max() if first < absent else shown[shown > absent].min())


def _where(tracks: Tracks, track: int, frame: int) -> str:
    return f"{tracks.name}, track {tracks.track_name(track)}, frame {frame}"
