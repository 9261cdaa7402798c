"""Objects cut out of photographs, and their changes over the time points of a track.

A cut-out is a square patch, [-1, 1] on both axes, whatever the shape of its object; poses put it
into the frame. B counts tracks, T time points, P pixels along the side of a patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spmtrack_core.training.config import SyntheticConfig
from spmtrack_core.training.photo_pool import PhotoPool
from spmtrack_core.training.random_tracks import RandomStream
from spmtrack_core.training.rendering import affine_grid


@dataclass(frozen=True)
class Cutouts:
    """One cut-out per track."""

    rgba: Tensor
    """(B, 4, P, P) in 0..1; colors are multiplied by alpha."""
    image: Tensor
    """(B,) number of the photograph in the pool."""
    is_segment: Tensor
    """(B,) whether the outline is a segment of a label map."""
    window: Tensor
    """(B, 4) center x, y and half width, height in the photograph."""
    shape: Tensor
    """(B, 2) half width and height of a target with area 1."""


class Cutter:
    """Cuts objects out of the photographs of a pool and deforms them."""

    def __init__(self, config: SyntheticConfig, pool: PhotoPool) -> None:
        self.config, self.pool = config, pool

    def cut(self, b: int, random: RandomStream, image: Tensor | None = None) -> Cutouts:
        """One cut-out per track.

        Without ``image``, a segment or a closed shape of any photograph; with ``image`` (B,), a
        closed shape of these photographs.
        """
        pool, config = self.pool, self.config
        may_be_segment = image is None and len(pool.segments) > 0
        is_segment = random.chance(b, config.segment_share if may_be_segment else 0.0)
        if image is None:
            image = random.integers(b, len(pool.images))
        half = random.uniform((b, 1), math.log(0.1), math.log(0.35)).exp()
        tilt = random.normal((b, 1)).clamp(-2, 2) * 0.3
        half = torch.cat([half * tilt.exp(), half / tilt.exp()], 1)  # (B, 2)
        window = torch.cat([random.uniform((b, 2), -1, 1) * (1 - half), half], 1)
        alpha = random.closed_shapes(b, config.patch_side)
        if may_be_segment:
            row = random.integers(b, len(pool.segments))
            segment = pool.segments[row]
            image = torch.where(is_segment, segment[:, 0], image)
            window = torch.where(is_segment[:, None], pool.windows[row], window)

        # one pixel of margin, so that the outline is complete
        window = torch.cat([window[:, :2], window[:, 2:] * (1 + 2 / config.patch_side)], 1)
        side = 2 * config.patch_side  # sampled at twice the size, then averaged against aliasing
        rgb = F.avg_pool2d(patches_of(pool.images[image], window, side), 2)  # (B, 3, P, P)
        if may_be_segment:
            shape = (pool.labels[segment[:, 1]] == segment[:, 2].view(b, 1, 1))[:, None]
            shape = F.avg_pool2d(patches_of(255 * shape, window, side), 2)  # (B, 1, P, P)
            alpha = torch.where(is_segment.view(b, 1, 1, 1), shape, alpha)
        aspect = window[:, 2] * pool.aspects[image] / window[:, 3]
        return Cutouts(
            rgba=torch.cat([rgb * alpha, alpha], 1),
            image=image,
            is_segment=is_segment,
            window=window,
            shape=torch.stack([aspect.sqrt(), aspect.rsqrt()], 1) / 2,
        )

    def deform(self, rgba: Tensor, random: RandomStream, clock: Tensor) -> Tensor:
        """Bend cut-outs (B, 4, P, P) by a slow sine wave over time: (B, T, 4, P, P)."""
        b, t = clock.shape
        side = rgba.shape[-1]
        line = torch.linspace(-1, 1, side, device=rgba.device)
        amount = 0.05 * self.config.motion * random.normal((b, 1, 2)).clamp(-2, 2)
        speed = random.uniform((b, 1, 2), -2, 2)
        phase = clock[..., None] * speed + random.uniform((b, 1, 2), 0, 6.3)  # (B, T, 2)
        wave = torch.sin(random.uniform((b, 1, 2, 1), 1, 3) * line + phase[..., None])
        wave = wave * amount[..., None]  # (B, T, 2, P)
        x = line.view(1, 1, 1, side) + wave[:, :, 0, :, None]  # rows shift along x
        y = line.view(1, 1, side, 1) + wave[:, :, 1, None, :]
        grid = torch.stack(torch.broadcast_tensors(x, y), -1)  # (B, T, P, P, 2)
        bent = F.grid_sample(rgba, grid.view(b, t * side, side, 2), align_corners=True)
        return bent.view(b, 4, t, side, side).transpose(1, 2)

    def add_limbs(
        self, layer: Tensor, image: Tensor, random: RandomStream, clock: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add two limbs to some targets (B, T, 4, P, P); returns also which targets (B,).

        A limb is an oblong of the target's own photograph ``image`` (B,). It swings about a joint
        on the body, in front of the body or behind it, so that the box of the target grows and
        shrinks.
        """
        (b, t), side = clock.shape, layer.shape[-1]
        has_limbs = random.chance(b, self.config.limb_share)
        if not (self.config.limb_share and has_limbs.any()):
            return layer, has_limbs
        body = F.pad(layer[has_limbs], (side // 4,) * 4).flatten(0, 1)
        body = F.interpolate(body, (side, side), mode="bilinear", antialias=True)
        n = int(has_limbs.sum())
        whole = body.view(n, t, 4, side, side)  # in the middle two thirds of its patch
        for behind in (False, True):
            alpha = random.closed_shapes(n, side)
            place, size = random.uniform((n, 2), -0.8, 0.8), random.uniform((n, 2), 0.05, 0.2)
            window = torch.cat([place, size], 1)
            surface = patches_of(self.pool.images[image[has_limbs]], window, side)
            limb = torch.cat([surface * alpha, alpha], 1)  # (N, 4, P, P)

            # the joint is at (-1, 0) of the limb, and mostly on the body
            joint = random.uniform((n, 1, 2), -0.45, 0.45)
            rest = torch.atan2(joint[..., 1], joint[..., 0])  # the limb points outwards at rest
            swing = random.drift(clock[has_limbs], 0.6 * self.config.motion, 1)[..., 0]  # (N, T)
            angle = rest + 0.5 * random.normal((n, 1)) + swing
            length, width = random.uniform((n, 1), 0.2, 0.42), random.uniform((n, 1), 0.06, 0.16)
            cos, sin = angle.cos(), angle.sin()  # (N, T)
            middle = joint + length[..., None] * torch.stack([cos, sin], -1)
            # from patch to limb: subtract its middle, rotate back, divide by its size
            view = torch.stack([cos / length, sin / length, -sin / width, cos / width], -1)
            view = view.view(n, t, 2, 2)
            theta = torch.cat([view, -view @ middle[..., None]], -1).view(n * t, 2, 3)
            grid = affine_grid(theta, side, side)
            seen = F.grid_sample(limb, grid.view(n, t * side, side, 2), align_corners=False)
            seen = seen.view(n, 4, t, side, side).transpose(1, 2)
            back, front = (seen, whole) if behind else (whole, seen)
            whole = front + back * (1 - front[:, :, 3:])
        layer = layer.clone()
        layer[has_limbs] = whole
        return layer, has_limbs

    def turn(
        self,
        layer: Tensor,
        targets: Cutouts,
        in_place: Tensor,
        random: RandomStream,
        clock: Tensor,
    ) -> Tensor:
        """Show another side of some targets (B, T, 4, P, P): a new surface moves in over time.

        The surface comes from the target's photograph or from any other; its border crosses the
        target in one direction. The outline stays, so that the appearance in the template is not
        enough to find the box.

        Targets ``in_place`` (B,) are part of the background: of their layer, only the new surface
        is drawn. The surface covers a part of a segment in the template and moves out, so that the
        searches show the complete object in its photograph. Closed shapes get none.
        """
        b, side = len(layer), layer.shape[-1]
        pasted = ~in_place.view(b, 1, 1, 1, 1)
        if not self.config.turn_share:
            return layer * pasted
        turning = random.chance(b, self.config.turn_share)
        own = random.chance(b, 0.5)
        other = random.integers(b, len(self.pool.images))
        image = torch.where(own, targets.image, other)
        place = random.uniform((b, 2), -0.6, 0.6)
        size = random.uniform((b, 1), 0.1, 0.4).expand(b, 2)
        surface = patches_of(self.pool.images[image], torch.cat([place, size], 1), side)

        angle = random.uniform((b, 1, 1, 1), 0, 2 * math.pi)
        line = torch.linspace(-1, 1, side, device=layer.device)
        across = angle.cos() * line + angle.sin() * line[:, None]  # (B, 1, P, P)
        speed = random.uniform((b, 1), 0, 1.2)
        since_template = (clock - clock[:, :1]).abs() * speed  # (B, T)
        until_last = ((clock - clock[:, -1:]).abs() * speed).clamp_max(1)  # at most half of it
        way = torch.where(in_place[:, None], until_last, since_template)
        turning = turning & (~in_place | targets.is_segment)
        front = (8 * (across + way[..., None, None] - 1)).sigmoid()  # (B, T, P, P)
        front = (front * turning.view(b, 1, 1, 1))[:, :, None]  # (B, T, 1, P, P)
        alpha = layer[:, :, 3:]
        turned = torch.cat([surface[:, None] * alpha, alpha], 2) * front
        return turned + layer * (1 - front) * pasted


def patches_of(images: Tensor, windows: Tensor, side: int) -> Tensor:
    """Windows (B, 4) of images (B, C, H, W) with values 0..255: (B, C, side, side) in 0..1.

    A window is center x, y and half width, height; an image reaches from -1 to 1.
    """
    theta = torch.cat([torch.diag_embed(windows[:, 2:]), windows[:, :2, None]], -1)
    grid = affine_grid(theta, side, side)
    return F.grid_sample(images.float() / 255.0, grid, align_corners=False)
