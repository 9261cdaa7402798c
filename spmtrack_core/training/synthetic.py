"""Synthetic tracks, made in batches on the training device from still photographs.

An object is cut out of one photograph (a segment of its label map, or a random closed shape) and
pasted on another; object, background, a distractor and an occluder move smoothly over the time
points of a track. Some targets stay in their own photograph, so that only the camera moves; some
are not there when they are searched. No frame is ever drawn: every pixel of a crop is sampled
straight from the layers that it shows.

Frame coordinates are in units of the target's size at the first time point; the crops make them
pixels. A pose is an affine map (2, 3) from layer coordinates ([-1, 1] on both axes) to the frame.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.geometry.image import IMAGENET_MEAN, IMAGENET_STD
from spmtrack_core.tracking.references import REFERENCES
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import SyntheticConfig
from spmtrack_core.training.cutouts import Cutouts, Cutter
from spmtrack_core.training.draw import Draw
from spmtrack_core.training.stills import Stills
from spmtrack_core.training.targets import cells_of


class SyntheticTracks:
    """Endless tracks; ``batch(index)`` is a pure function of the settings, the seed and the index.

    ``batch`` returns the same numbers whatever was drawn before, which is what makes a resumed run
    continue exactly.
    """

    def __init__(
        self,
        config: SyntheticConfig,
        model: ModelConfig,
        tracker: TrackerConfig,
        stills: Stills,
        batch_size: int,
        seed: int = 0,
        searches: int = 2,
    ) -> None:
        self.config, self.model, self.tracker, self.stills = config, model, tracker, stills
        self.batch_size, self.seed, self.searches = batch_size, seed, searches
        self.cutter = Cutter(config, stills)
        self.device = stills.images.device
        self.mean = torch.tensor(IMAGENET_MEAN, device=self.device).float().view(3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD, device=self.device).float().view(3, 1, 1)

    def batch(self, index: int) -> Batch:
        """Batch number ``index`` (>= 0)."""
        draw = Draw(self.seed * 1_000_003 + index, self.device)
        config, stills, b, r = self.config, self.stills, self.batch_size, REFERENCES
        times = r + self.searches

        objects, alike = self.cutter.cut(b, draw), self.cutter.cut(b, draw)
        # half of the distractors come from the target's own photograph, the others from anywhere
        neighbour = torch.where(
            draw.chance(b, 0.5)[:, None, None, None],
            self.cutter.cut(b, draw, image=objects.image).rgba,
            alike.rgba.roll(1, 0),
        )
        is_likeness = draw.chance(b, config.likeness_share).view(b, 1, 1, 1)
        tint = (0.3 * draw.normal((b, 4, 1, 1))).exp()
        tint[:, 3] = 1.0
        neighbour = torch.where(is_likeness, objects.rgba * tint, neighbour)
        clock = draw.clock(b, r, times)  # (B, T)

        # poses in units of the target's size: place, log size, log aspect, angle over time
        pose = draw.poses(clock, objects.shape, config.motion)  # (B, T, 2, 3)
        warped = self.cutter.deform(objects.rgba, draw, clock)  # (B, T, 4, P, P)
        warped, limbed = self.cutter.with_limbs(warped, objects.image, draw, clock)
        boxes = alpha_boxes(warped[:, :, 3], pose)  # (B, T, 4) frame units
        boxes = self.draw_by_hand(boxes, draw)
        in_place = draw.chance(b, config.in_place_share) & ~limbed
        warped = self.cutter.turn(warped, objects, in_place, draw, clock)
        behind_image = torch.where(in_place, objects.image, alike.image)
        background = self.background_pose(draw, clock, pose, objects, in_place, behind_image)
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        sizes = (boxes[..., 2:] - boxes[..., :2]).mean(-1, keepdim=True)

        # a target that is absent was taken away, or is looked for elsewhere
        absent = draw.chance(b * self.searches, config.absent_share).view(b, self.searches)
        elsewhere = absent & (in_place | draw.chance(b, 0.3))[:, None]
        gone = F.pad(absent & ~elsewhere, (r, 0))  # (B, T)
        covered = gone & draw.chance(b, 0.5)[:, None]

        near = draw.poses(clock, draw.shapes(b), config.motion, log_size=0.25)
        away = draw.offsets(clock, 0.9, 2.2, 0.6 * config.motion)
        alone = ~draw.chance(b, config.distractor_share)
        near[..., 2] = centres + sizes * away + 1e3 * alone.view(b, 1, 1)
        front = draw.poses(clock, draw.shapes(b), config.motion, log_size=0.3)
        away = draw.offsets(clock, 0.3, 0.9, 1.5 * config.motion)
        free = ~draw.chance(b, config.occluder_share)
        front[..., 2] = centres + sizes * away + 1e3 * free.view(b, 1, 1)
        front[..., 2] = torch.where(covered[..., None], centres, front[..., 2])
        front[:, 0, :, 2] += 1e3  # a target is chosen where nothing passes in front of it
        pose[..., 2] += 1e3 * gone[..., None]

        photographs = stills.images[behind_image].float() / 255.0
        filling = photographs.mean((2, 3), keepdim=True)  # the tracker pads with the mean colour
        layers = (photographs - filling, neighbour, warped, alike.rgba)
        poses = (background, near, pose, front)

        z_hw, x_hw = self.model.template_hw, self.model.search_hw
        z_boxes = self.loosen(boxes[:, :r], draw)
        z_window = crop_windows(z_boxes, self.tracker.template_area_factor, z_hw)
        x_window = crop_windows(boxes[:, r:], self.tracker.search_area_factor, x_hw)
        x_window = self.jitter(x_window, boxes[:, r:], draw)
        beside = self.beside(x_window, boxes[:, r:], draw)
        x_window = torch.where(elsewhere[..., None], beside, x_window)
        endless = ~in_place & draw.chance(b, config.endless_share)
        references = render(layers, poses, filling, endless, z_window, slice(0, r), z_hw)
        searches = render(layers, poses, filling, endless, x_window, slice(r, times), x_hw)
        references, searches = self.coarsen(references, searches, draw)
        light = (
            *draw.light(b, times, config.color_jitter, config.flicker_share),
            draw.exposure(b, times, config.switch_share),
        )
        grey = draw.chance(b, config.gray_share)
        references = self.finish(references, draw, [v[:, :r] for v in light], grey)
        searches = self.finish(searches, draw, [v[:, r:] for v in light], grey)

        z_px = to_crop(z_boxes, z_window, z_hw)
        repeats = draw.chance(b, config.repeat_share)
        references[repeats, 1] = references[repeats, 0]
        z_px[repeats, 1] = z_px[repeats, 0]
        return Batch(
            references=references,
            masks=cells_of(z_px, z_hw, self.model.template_grid_hw).float(),
            searches=searches,
            boxes_xyxy=to_crop(boxes[:, r:], x_window, x_hw).masked_fill(
                absent[..., None], math.nan
            ),
        )

    def background_pose(
        self,
        draw: Draw,
        clock: Tensor,
        pose: Tensor,
        objects: Cutouts,
        in_place: Tensor,
        image: Tensor,
    ) -> Tensor:
        """Where the background photograph lies at each time: (B, T, 2, 3)."""
        b = len(clock)
        aspect = self.stills.aspects[image]
        shape = torch.stack([aspect.sqrt(), aspect.rsqrt()], 1)
        size = draw.uniform((b, 1), math.log(2.0), math.log(5.0)).exp()
        free = draw.poses(clock, shape * size, 0.4 * self.config.motion)
        place = draw.uniform((b, 1, 2), -0.5, 0.5) * (shape * size)[:, None]
        free[..., 2] += place + draw.drift(clock, 0.7 * self.config.motion, 2)
        # a target left in its photograph carries the photograph along
        tied = pose[..., :2] / objects.window[:, None, None, 2:]
        offset = (tied @ objects.window[:, None, :2, None])[..., 0]
        tied = torch.cat([tied, (pose[..., 2] - offset)[..., None]], -1)
        return torch.where(in_place.view(b, 1, 1, 1), tied, free)

    def draw_by_hand(self, boxes: Tensor, draw: Draw) -> Tensor:
        """Boxes (B, T, 4) as users draw them: looser or tighter than the outline (B, T, 4), or
        about a part of the target, and so for the whole track.
        """
        b = len(boxes)
        carelessness = draw.uniform((b, 1, 1), 0, 1) * self.config.box_slack
        slack = carelessness * draw.normal((b, 1, 4)).clamp(-1.5, 1.5)
        return boxes + slack * (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)

    def loosen(self, boxes: Tensor, draw: Draw) -> Tensor:
        """Later references come from predictions: their boxes (B, R, 4) are a little off."""
        sides = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
        error = draw.normal(tuple(boxes.shape)).clamp(-2, 2) * self.config.reference_jitter * sides
        b, r = boxes.shape[:2]
        astray = draw.chance(b * r, self.config.astray_share).view(b, r, 1)
        shift = 10 * self.config.reference_jitter * draw.normal((b, r, 2)).clamp(-2, 2)
        error = error + astray * shift.repeat(1, 1, 2) * sides
        error[:, 0] = 0
        return boxes + error

    def jitter(self, window: Tensor, boxes: Tensor, draw: Draw) -> Tensor:
        """Move and stretch search windows (B, S, 4) much as the published sampler does.

        In place of its retries, the shift is limited to what leaves a good part of the target in.
        """
        stretch = draw.normal(tuple(boxes[..., 2:].shape)).clamp(-2, 2)
        half = window[..., 2:] * (self.config.scale_jitter * stretch).exp()
        sides = boxes[..., 2:] - boxes[..., :2]
        # a window stretched small still has to hold the target
        half = torch.maximum(half, 0.6 * sides)
        shift = draw.uniform(tuple(half.shape), -1, 1) * self.config.translation_jitter
        shift = shift * sides.mean(-1, keepdim=True)
        limit = half - 0.25 * sides
        return torch.cat([window[..., :2] + torch.clamp(shift, -limit, limit), half], -1)

    def beside(self, window: Tensor, boxes: Tensor, draw: Draw) -> Tensor:
        """Windows (B, S, 4) moved so far that ``boxes`` are just out of them, or farther."""
        way = draw.uniform((*window.shape[:2], 2), -1, 1)
        way = way / way.abs().amax(-1, keepdim=True)  # on the outline of a square
        far = draw.uniform((*window.shape[:2], 1), 1, 1.5)
        reach = window[..., 2:] + (boxes[..., 2:] - boxes[..., :2]) / 2
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        return torch.cat([centres + far * way * reach, window[..., 2:]], -1)

    def coarsen(
        self, references: Tensor, searches: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """Show some tracks of a batch at a lower resolution, by one factor for all of them."""
        chosen = draw.chance(self.batch_size, self.config.coarse_share)
        factor = float(draw.uniform((), 0.25, 0.8))
        if chosen.any():
            for crops in (references, searches):
                fine = crops[chosen].flatten(0, 1)
                small = F.interpolate(fine, scale_factor=factor, mode="area")
                large = F.interpolate(small, fine.shape[-2:], mode="bilinear")
                crops[chosen] = large.view(-1, *crops.shape[1:])
        return references, searches

    def finish(self, crops: Tensor, draw: Draw, light: list[Tensor], grey: Tensor) -> Tensor:
        """Blur, light, noise and normalisation of crops (B, T, 3, H, W) with values in 0..1."""
        b, t, _, h, w = crops.shape
        blurred = draw.chance(b * t, self.config.blur_share).nonzero()[:, 0]
        crops = crops.reshape(b * t, 3, h, w)
        if len(blurred):
            kernels = draw.blur_kernels(len(blurred), self.config.blur)
            kernels = kernels.repeat_interleave(3, 0)  # (3n, 1, k, k)
            flat = crops[blurred].reshape(1, -1, h, w)
            soft = F.conv2d(flat, kernels, padding="same", groups=kernels.shape[0])
            crops[blurred] = soft.view(-1, 3, h, w)
        gain, offset, exposure = light
        crops = crops.view(b, t, 3, h, w) * gain[..., None, None] + offset[..., None, None]
        if grey.any():
            crops[grey] = crops[grey].mean(2, keepdim=True)
        level = draw.uniform((b, 1, 1, 1, 1), 0, 1) ** 2 * self.config.noise
        noise = draw.noise(t * 3, h, w, self.config.grain).view(1, t, 3, h, w)
        # a dark picture has the noise of a bright one
        crops = (crops.clamp(0, 1) * exposure + level * noise).clamp(0, 1)
        return (crops - self.mean) / self.std


def alpha_boxes(alpha: Tensor, pose: Tensor) -> Tensor:
    """Bounding boxes (B, T, 4) in the frame of the opaque part of alpha (B, T, P, P)."""
    b, t, side, _ = alpha.shape
    line = (torch.arange(side, device=alpha.device) + 0.5) * (2 / side) - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten()])  # (2, P * P)
    opaque = alpha.reshape(b, t, 1, -1) > 0.5
    opaque = opaque | ~opaque.any(-1, keepdim=True)  # a lost segment: its whole window
    places = pose[..., :2] @ points + pose[..., 2:]  # (B, T, 2, P * P)
    low = places.masked_fill(~opaque, math.inf).amin(-1)
    high = places.masked_fill(~opaque, -math.inf).amax(-1)
    pixel = pose[..., :2].abs().sum(-1) / side  # half a pixel of the outermost points
    return torch.cat([low - pixel, high + pixel], -1)


def crop_windows(boxes: Tensor, area_factor: float, output_hw: tuple[int, int]) -> Tensor:
    """Crop windows (..., 4) by the area factor: centre x, y and half width, height."""
    w, h = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    margin = (area_factor - 1) * (w + h) / 2
    pixel = torch.sqrt((w + margin) * (h + margin) / (output_hw[0] * output_hw[1]))
    half = torch.stack([pixel * output_hw[1] / 2, pixel * output_hw[0] / 2], -1)
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, half], -1)


def to_crop(boxes: Tensor, window: Tensor, output_hw: tuple[int, int]) -> Tensor:
    """Boxes of the frame in px of the crop, clipped to it."""
    size = boxes.new_tensor([output_hw[1], output_hw[0]])
    low = window[..., :2] - window[..., 2:]
    scale = size / (2 * window[..., 2:])
    corners = (boxes.unflatten(-1, (2, 2)) - low[..., None, :]) * scale[..., None, :]
    return torch.minimum(corners.clamp_min(0), size).flatten(-2)


def render(
    layers: tuple[Tensor, ...],
    poses: tuple[Tensor, ...],
    filling: Tensor,
    endless: Tensor,
    window: Tensor,
    when: slice,
    output_hw: tuple[int, int],
) -> Tensor:
    """Crops (B, T, 3, H, W) of the layers, back to front.

    ``layers``: the background less its mean colour ``filling`` (B, 3, S, S), then layers
    (B, 4, P, P), or (B, T, 4, P, P) where a layer changes; colours are multiplied by alpha.
    ``poses`` (B, T, 2, 3) each; ``window`` (B, t, 4) of the times ``when``. An ``endless`` (B,)
    background goes on, mirrored, beyond its photograph.
    """
    b, t = window.shape[:2]
    h, w = output_hw
    crops = filling[:, :, None]
    for layer, pose in zip(layers, poses, strict=True):
        view = torch.linalg.inv(pose[:, when, :, :2])
        offset = view @ (window[..., :2, None] - pose[:, when, :, 2:])
        theta = torch.cat([view * window[..., None, 2:], offset], -1).reshape(b * t, 2, 3)
        grid = F.affine_grid(theta, [b * t, 1, h, w], align_corners=False)
        if layer.dim() == 5:
            seen = F.grid_sample(layer[:, when].flatten(0, 1), grid, align_corners=False)
            seen = seen.view(b, t, -1, h, w).transpose(1, 2)
        else:  # times stacked as rows, so that one layer serves all of them
            grid = grid.view(b, t * h, w, 2)
            if layer is layers[0]:
                mirrored = 1 - (2 - (grid + 1) % 4).abs()
                rim = 1 - 1 / layer.shape[-1]  # beyond its middle, the last pixel would fade
                mirrored = mirrored.clamp(-rim, rim)
                grid = torch.where(endless.view(b, 1, 1, 1), mirrored, grid)
            seen = F.grid_sample(layer, grid, align_corners=False).view(b, -1, t, h, w)
        # (B, 3 or 4, t, H, W)
        crops = seen[:, :3] + (crops if seen.shape[1] == 3 else crops * (1 - seen[:, 3:]))
    return crops.transpose(1, 2)
