"""Synthetic tracks, made in batches on the training device from photographs.

An object is cut out of one photograph (a segment of its label map, or a random closed shape) and
pasted onto another. Object, background, a distractor and an occluder move smoothly over the time
points of a track. Some targets stay in their own photograph, so that only the camera moves; some
are absent from a search. No frame is ever drawn: every pixel of a crop is sampled directly from
the layers.

Frame coordinates are in units of the target's size at the first time point. ``rendering.py`` says
what a pose and a window are. B counts tracks, R references, S searches, T = R + S time points.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.tracking.references import REFERENCES
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import LARGEST_CUT, SyntheticConfig
from spmtrack_core.training.cutouts import Cutouts, Cutter
from spmtrack_core.training.photo_pool import PhotoPool
from spmtrack_core.training.photometric import Photometric
from spmtrack_core.training.random_tracks import RandomStream
from spmtrack_core.training.rendering import alpha_boxes, crop_windows, render, to_crop
from spmtrack_core.training.targets import cells_of

FAR = 1e3
"""Added to the position of a layer that must not be seen, in target sizes."""


class SyntheticTracks:
    """Endless tracks; ``batch(index)`` depends on settings, seed and index alone.

    So a resumed run continues exactly. The random numbers of each purpose come from a stream of
    their own: a setting changes no other effect of a track.
    """

    def __init__(
        self,
        config: SyntheticConfig,
        model: ModelConfig,
        tracker: TrackerConfig,
        pool: PhotoPool,
        batch_size: int,
        seed: int = 0,
        searches: int = 2,
    ) -> None:
        self.config, self.model, self.tracker, self.pool = config, model, tracker, pool
        self.batch_size, self.seed, self.searches = batch_size, seed, searches
        self.cutter = Cutter(config, pool)
        self.device = pool.images.device
        self.photometric = Photometric(config, self.device)

    def batch(self, index: int) -> Batch:
        """Batch number ``index`` (>= 0)."""
        random = partial(RandomStream, self.device, self.seed, index)
        config, cutter, b, r = self.config, self.cutter, self.batch_size, REFERENCES
        times = r + self.searches
        z_hw, x_hw = self.model.template_hw, self.model.search_hw

        # the target: its appearance, pose and box (frame units) at each time point
        clock = random("time").clock(b, r, times)  # (B, T)
        targets, others = cutter.cut(b, random("target")), cutter.cut(b, random("others"))
        distractors = self.distractors(targets, others, random("distractor look"))
        pose = random("pose").poses(clock, targets.shape, config.motion)  # (B, T, 2, 3)
        layer = cutter.deform(targets.rgba, random("deformation"), clock)  # (B, T, 4, P, P)
        layer, has_limbs = cutter.add_limbs(layer, targets.image, random("limbs"), clock)
        boxes = self.with_slack(alpha_boxes(layer[:, :, 3], pose), random("slack"))  # (B, T, 4)
        in_place = random("in place").chance(b, config.in_place_share) & ~has_limbs
        layer = cutter.turn(layer, targets, in_place, random("turn"), clock)

        # absent from a search: removed, perhaps covered by the occluder, or outside of the crop
        absence = random("absence")
        absent = absence.chance(b * self.searches, config.absent_share).view(b, self.searches)
        outside = absent & (in_place | absence.chance(b, 0.3))[:, None]
        removed = F.pad(absent & ~outside, (r, 0))  # (B, T)
        covered = removed & absence.chance(b, 0.5)[:, None]

        # background, distractor and occluder
        image = torch.where(in_place, targets.image, others.image)
        background = self.background_pose(
            pose, targets, in_place, image, random("background"), clock
        )
        behind = self.distractor_pose(boxes, random("distractor"), clock)
        front = self.occluder_pose(boxes, covered, random("occluder"), clock)
        pose[..., 2] += FAR * removed[..., None]
        photographs = self.pool.images[image].float() / 255.0
        filling = photographs.mean((2, 3), keepdim=True)  # the tracker pads with the mean color
        layers = (photographs - filling, distractors, layer, others.rgba)
        poses = (background, behind, pose, front)
        endless = ~in_place & random("endless").chance(b, config.endless_share)

        # crops around the boxes
        z_boxes = self.with_errors(boxes[:, :r], random("reference boxes"))
        z_window = crop_windows(z_boxes, self.tracker.template_area_factor, z_hw)
        x_window = crop_windows(boxes[:, r:], self.tracker.search_area_factor, x_hw)
        x_window = self.jittered(x_window, boxes[:, r:], random("jitter"))
        beside = self.beside(x_window, boxes[:, r:], random("outside"))
        x_window = torch.where(outside[..., None], beside, x_window)
        references = render(layers, poses, filling, endless, z_window, slice(0, r), z_hw)
        searches = render(layers, poses, filling, endless, x_window, slice(r, times), x_hw)

        references, searches = self.photometric.photograph(references, searches, random)

        z_px = to_crop(z_boxes, z_window, z_hw)
        repeats = random("repeat").chance(b, config.repeat_share)
        references[repeats, 1] = references[repeats, 0]
        z_px[repeats, 1] = z_px[repeats, 0]
        truth = to_crop(boxes[:, r:], x_window, x_hw)
        return Batch(
            references=references,
            masks=cells_of(z_px, z_hw, self.model.template_grid_hw).float(),
            searches=searches,
            boxes_xyxy=truth.masked_fill(absent[..., None], math.nan),
        )

    def distractors(self, targets: Cutouts, others: Cutouts, random: RandomStream) -> Tensor:
        """Layers (B, 4, P, P) that can be mistaken for the targets.

        In ``likeness_share`` of the tracks a tinted copy of the target; else cut from the target's
        photograph or from any, half of each.
        """
        b = self.batch_size
        neighbor = torch.where(
            random.chance(b, 0.5).view(b, 1, 1, 1),
            self.cutter.cut(b, random, image=targets.image).rgba,
            others.rgba.roll(1, 0),
        )
        is_likeness = random.chance(b, self.config.likeness_share).view(b, 1, 1, 1)
        tint = (0.3 * random.normal((b, 4, 1, 1))).exp()
        tint[:, 3] = 1.0
        return torch.where(is_likeness, targets.rgba * tint, neighbor)

    def distractor_pose(self, boxes: Tensor, random: RandomStream, clock: Tensor) -> Tensor:
        """Poses (B, T, 2, 3) of layers near the boxes (B, T, 4), or far away."""
        b, config = self.batch_size, self.config
        pose = random.poses(clock, random.shapes(b), config.motion, log_size=0.25)
        away = random.offsets(clock, 0.9, 2.2, 0.6 * config.motion)
        alone = ~random.chance(b, config.distractor_share)
        pose[..., 2] = beside_boxes(boxes, away) + FAR * alone.view(b, 1, 1)
        return pose

    def occluder_pose(
        self, boxes: Tensor, covered: Tensor, random: RandomStream, clock: Tensor
    ) -> Tensor:
        """Poses (B, T, 2, 3) of layers that pass in front of the boxes (B, T, 4), or far away.

        Where ``covered`` (B, T), the layer is where the target was. None is in front of a
        template.
        """
        b, config = self.batch_size, self.config
        pose = random.poses(clock, random.shapes(b), config.motion, log_size=0.3)
        away = random.offsets(clock, 0.3, 0.9, 1.5 * config.motion)
        free = ~random.chance(b, config.occluder_share)
        pose[..., 2] = beside_boxes(boxes, away) + FAR * free.view(b, 1, 1)
        centers = beside_boxes(boxes, torch.zeros_like(away))
        pose[..., 2] = torch.where(covered[..., None], centers, pose[..., 2])
        pose[:, 0, :, 2] += FAR
        return pose

    def background_pose(
        self,
        pose: Tensor,
        targets: Cutouts,
        in_place: Tensor,
        image: Tensor,
        random: RandomStream,
        clock: Tensor,
    ) -> Tensor:
        """Poses (B, T, 2, 3) of the photographs ``image`` (B,) behind targets at ``pose``."""
        b, motion = self.batch_size, self.config.motion
        aspect = self.pool.aspects[image]
        shape = torch.stack([aspect.sqrt(), aspect.rsqrt()], 1)
        size = random.uniform((b, 1), math.log(2.0), math.log(5.0)).exp()
        free = random.poses(clock, shape * size, 0.4 * motion)
        place = random.uniform((b, 1, 2), -0.5, 0.5) * (shape * size)[:, None]
        free[..., 2] += place + random.drift(clock, 0.7 * motion, 2)
        # a photograph moves with a target that stays in place in it
        tied = pose[..., :2] / targets.window[:, None, None, 2:]
        offset = (tied @ targets.window[:, None, :2, None])[..., 0]
        tied = torch.cat([tied, (pose[..., 2] - offset)[..., None]], -1)
        return torch.where(in_place.view(b, 1, 1, 1), tied, free)

    def with_slack(self, boxes: Tensor, random: RandomStream) -> Tensor:
        """Boxes (B, T, 4) as users draw them: loosely, tightly or around a part of the target.

        The distance of each side from the outline is constant over a track, in target sides.
        """
        b = len(boxes)
        largest = random.uniform((b, 1, 1), 0, 1) * self.config.box_slack
        slack = largest * random.normal((b, 1, 4)).clamp(-1.5, 1.5)
        if self.config.part_share:
            cut = random.uniform((b, 1, 1), 0, LARGEST_CUT) * boxes.new_tensor([1, 1, -1, -1])
            side = random.uniform((b, 1, 4), 0, 1)
            side = side == side.amax(-1, keepdim=True)
            part = random.chance(b, self.config.part_share).view(b, 1, 1)
            slack = torch.where(part & side, cut, slack)
        return boxes + slack * (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)

    def with_errors(self, boxes: Tensor, random: RandomStream) -> Tensor:
        """Boxes (B, R, 4) of references as the tracker predicts them; the first one is exact."""
        sides = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
        jitter = self.config.reference_jitter
        error = random.normal(tuple(boxes.shape)).clamp(-2, 2) * jitter * sides
        b, r = boxes.shape[:2]
        astray = random.chance(b * r, self.config.astray_share).view(b, r, 1)
        shift = 10 * jitter * random.normal((b, r, 2)).clamp(-2, 2)
        error = error + astray * shift.repeat(1, 1, 2) * sides
        error[:, 0] = 0
        return boxes + error

    def jittered(self, window: Tensor, boxes: Tensor, random: RandomStream) -> Tensor:
        """Search windows (B, S, 4), moved and stretched nearly as the published sampler does.

        The published sampler draws again if too little of the target is in the window; here the
        shift is limited.
        """
        stretch = random.normal(tuple(boxes[..., 2:].shape)).clamp(-2, 2)
        half = window[..., 2:] * (self.config.scale_jitter * stretch).exp()
        if self.config.size_jitter:
            larger = random.normal((*half.shape[:-1], 1)).clamp(-2, 2)
            half = half * (self.config.size_jitter * larger).exp()
        sides = boxes[..., 2:] - boxes[..., :2]
        half = torch.maximum(half, 0.6 * sides)  # the target must fit into a small window
        shift = random.uniform(tuple(half.shape), -1, 1) * self.config.translation_jitter
        shift = shift * sides.mean(-1, keepdim=True)
        limit = half - 0.25 * sides
        return torch.cat([window[..., :2] + torch.clamp(shift, -limit, limit), half], -1)

    def beside(self, window: Tensor, boxes: Tensor, random: RandomStream) -> Tensor:
        """Windows (B, S, 4) moved so far that the boxes (B, S, 4) are just outside, or farther."""
        way = random.uniform((*window.shape[:2], 2), -1, 1)
        way = way / way.abs().amax(-1, keepdim=True)  # on the outline of a square
        far = random.uniform((*window.shape[:2], 1), 1, 1.5)
        reach = window[..., 2:] + (boxes[..., 2:] - boxes[..., :2]) / 2
        centers = (boxes[..., :2] + boxes[..., 2:]) / 2
        return torch.cat([centers + far * way * reach, window[..., 2:]], -1)


def beside_boxes(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Points (B, T, 2) at ``offsets``, in mean sides, from the centers of boxes (B, T, 4)."""
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    return centers + (boxes[..., 2:] - boxes[..., :2]).mean(-1, keepdim=True) * offsets
