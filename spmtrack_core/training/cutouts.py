"""Cut-outs of photographs, and what becomes of them over the time points of a track.

A cut-out lies on a square patch of its own, [-1, 1] on both axes, whatever its shape; poses put
it into the frame. T counts time points, P pixels along the side of a patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spmtrack_core.training.config import SyntheticConfig
from spmtrack_core.training.draw import Draw
from spmtrack_core.training.stills import Stills


@dataclass(frozen=True)
class Cutouts:
    """One cut-out per track."""

    rgba: Tensor  # (B, 4, P, P), colours multiplied by alpha
    image: Tensor  # (B,) the photograph it was cut from
    is_segment: Tensor  # (B,) whether its outline is one of a label map
    window: Tensor  # (B, 4) centre x, y and half width, height in that photograph
    shape: Tensor  # (B, 2) half width and height, for a target of area 1


class Cutter:
    """Cuts objects out of photographs and changes them, as the settings say."""

    def __init__(self, config: SyntheticConfig, stills: Stills) -> None:
        self.config, self.stills = config, stills

    def cut(self, b: int, draw: Draw, image: Tensor | None = None) -> Cutouts:
        """A cut-out per track: of any photograph, or a closed shape from the given ones (B,)."""
        stills, config = self.stills, self.config
        drawn = image is None and len(stills.segments) > 0
        share = config.segment_share if drawn else 0.0
        is_segment = draw.chance(b, share)
        if image is None:
            image = draw.integers(b, len(stills.images))
        half = draw.uniform((b, 1), math.log(0.1), math.log(0.35)).exp()
        tilt = draw.normal((b, 1)).clamp(-2, 2) * 0.3
        half = torch.cat([half * tilt.exp(), half / tilt.exp()], 1)  # (B, 2)
        window = torch.cat([draw.uniform((b, 2), -1, 1) * (1 - half), half], 1)
        alpha = draw.closed_shapes(b, config.patch_side)
        if drawn:
            row = draw.integers(b, len(stills.segments))
            segment = stills.segments[row]
            image = torch.where(is_segment, segment[:, 0], image)
            window = torch.where(is_segment[:, None], stills.windows[row], window)

        # one pixel of margin, so that the outline is complete
        window = torch.cat([window[:, :2], window[:, 2:] * (1 + 2 / config.patch_side)], 1)
        side = 2 * config.patch_side  # sampled at twice the size and averaged against aliasing
        rgb = F.avg_pool2d(patches_of(stills.images[image], window, side), 2)  # (B, 3, P, P)
        if drawn:
            shape = (stills.labels[segment[:, 1]] == segment[:, 2].view(b, 1, 1))[:, None]
            shape = F.avg_pool2d(patches_of(255 * shape, window, side), 2)  # (B, 1, P, P)
            alpha = torch.where(is_segment.view(b, 1, 1, 1), shape, alpha)
        aspect = window[:, 2] * stills.aspects[image] / window[:, 3]
        return Cutouts(
            rgba=torch.cat([rgb * alpha, alpha], 1),
            image=image,
            is_segment=is_segment,
            window=window,
            shape=torch.stack([aspect.sqrt(), aspect.rsqrt()], 1) / 2,
        )

    def deform(self, rgba: Tensor, draw: Draw, clock: Tensor) -> Tensor:
        """Bend cut-outs by a slow sine wave, differently at each time: (B, T, 4, P, P)."""
        b, t = clock.shape
        side = rgba.shape[-1]
        line = torch.linspace(-1, 1, side, device=rgba.device)
        amount = 0.05 * self.config.motion * draw.normal((b, 1, 2)).clamp(-2, 2)
        speed = draw.uniform((b, 1, 2), -2, 2)
        phase = clock[..., None] * speed + draw.uniform((b, 1, 2), 0, 6.3)  # (B, T, 2)
        wave = torch.sin(draw.uniform((b, 1, 2, 1), 1, 3) * line + phase[..., None])
        wave = wave * amount[..., None]  # (B, T, 2, P)
        x = line.view(1, 1, 1, side) + wave[:, :, 0, :, None]  # shifted along x, row by row
        y = line.view(1, 1, side, 1) + wave[:, :, 1, None, :]
        grid = torch.stack(torch.broadcast_tensors(x, y), -1)  # (B, T, P, P, 2)
        bent = F.grid_sample(rgba, grid.view(b, t * side, side, 2), align_corners=True)
        return bent.view(b, 4, t, side, side).transpose(1, 2)

    def with_limbs(
        self, warped: Tensor, image: Tensor, draw: Draw, clock: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give some targets (B, T, 4, P, P) two limbs, and say which (B,).

        A limb is an oblong of the target's own photograph (B,). It swings about a joint on the
        body, in front of it or behind, so that the box grows and shrinks with it.
        """
        (b, t), side = clock.shape, warped.shape[-1]
        if not self.config.limb_share:
            return warped, torch.zeros(b, dtype=torch.bool, device=warped.device)
        limbed = draw.chance(b, self.config.limb_share)
        if not limbed.any():
            return warped, limbed
        body = F.pad(warped[limbed], (side // 4,) * 4).flatten(0, 1)
        body = F.interpolate(body, (side, side), mode="bilinear", antialias=True)
        n = int(limbed.sum())
        whole = body.view(n, t, 4, side, side)  # in the middle two thirds of its patch
        for behind in (False, True):
            alpha = draw.closed_shapes(n, side)
            place, size = draw.uniform((n, 2), -0.8, 0.8), draw.uniform((n, 2), 0.05, 0.2)
            window = torch.cat([place, size], 1)
            surface = patches_of(self.stills.images[image[limbed]], window, side)
            limb = torch.cat([surface * alpha, alpha], 1)  # (N, 4, P, P)

            # the joint is at (-1, 0) of the limb, and mostly on the body
            joint = draw.uniform((n, 1, 2), -0.45, 0.45)
            rest = torch.atan2(joint[..., 1], joint[..., 0])  # it points outwards, more or less
            swing = draw.drift(clock[limbed], 0.6 * self.config.motion, 1)[..., 0]  # (N, T)
            angle = rest + 0.5 * draw.normal((n, 1)) + swing
            length, width = draw.uniform((n, 1), 0.2, 0.42), draw.uniform((n, 1), 0.06, 0.16)
            cos, sin = angle.cos(), angle.sin()  # (N, T)
            middle = joint + length[..., None] * torch.stack([cos, sin], -1)
            # from the patch to the limb: back by its middle, back by its angle, by its size
            view = torch.stack([cos / length, sin / length, -sin / width, cos / width], -1)
            view = view.view(n, t, 2, 2)
            theta = torch.cat([view, -view @ middle[..., None]], -1).view(n * t, 2, 3)
            grid = F.affine_grid(theta, [n * t, 1, side, side], align_corners=False)
            seen = F.grid_sample(limb, grid.view(n, t * side, side, 2), align_corners=False)
            seen = seen.view(n, 4, t, side, side).transpose(1, 2)
            back, front = (seen, whole) if behind else (whole, seen)
            whole = front + back * (1 - front[:, :, 3:])
        warped = warped.clone()
        warped[limbed] = whole
        return warped, limbed

    def turn(
        self, warped: Tensor, objects: Cutouts, in_place: Tensor, draw: Draw, clock: Tensor
    ) -> Tensor:
        """Show another side of some targets (B, T, 4, P, P): new surface moves in over time.

        It comes from the target's own photograph or from any other, and its border crosses
        the target in one direction. The outline stays, so that the box has to be found by more
        than what the template shows.

        Of a target ``in_place`` (B,) nothing is drawn but that surface, and where it has an
        outline of its own, the other way round: it covers a part of the target in the template,
        and moves out. What is searched for is then a whole object in its photograph.
        """
        pasted = ~in_place.view(-1, 1, 1, 1, 1)
        if not self.config.turn_share:
            return warped * pasted
        b, side = len(warped), warped.shape[-1]
        turning = draw.chance(b, self.config.turn_share)
        own = draw.chance(b, 0.5)
        other = draw.integers(b, len(self.stills.images))
        image = torch.where(own, objects.image, other)
        place, size = draw.uniform((b, 2), -0.6, 0.6), draw.uniform((b, 1), 0.1, 0.4).expand(b, 2)
        surface = patches_of(self.stills.images[image], torch.cat([place, size], 1), side)

        angle = draw.uniform((b, 1, 1, 1), 0, 2 * math.pi)
        line = torch.linspace(-1, 1, side, device=warped.device)
        across = angle.cos() * line + angle.sin() * line[:, None]  # (B, 1, P, P)
        speed = draw.uniform((b, 1), 0, 1.2)
        since_template = (clock - clock[:, :1]).abs() * speed  # (B, T)
        until_last = ((clock - clock[:, -1:]).abs() * speed).clamp_max(1)  # half of it, at most
        way = torch.where(in_place[:, None], until_last, since_template)
        turning = turning & (~in_place | objects.is_segment)
        front = (8 * (across + way[..., None, None] - 1)).sigmoid()  # (B, T, P, P)
        front = (front * turning.view(b, 1, 1, 1))[:, :, None]  # (B, T, 1, P, P)
        alpha = warped[:, :, 3:]
        turned = torch.cat([surface[:, None] * alpha, alpha], 2) * front
        return turned + warped * (1 - front) * pasted


def patches_of(images: Tensor, windows: Tensor, side: int) -> Tensor:
    """Windows (B, 4) of images (B, C, H, W) with values 0..255: (B, C, side, side), 0..1.

    A window is centre x, y and half width, height, in images that reach from -1 to 1.
    """
    b, channels = images.shape[:2]
    theta = diagonal(windows[:, 2:], windows[:, :2])
    grid = F.affine_grid(theta, [b, channels, side, side], align_corners=False)
    return F.grid_sample(images.float() / 255.0, grid, align_corners=False)


def diagonal(scale: Tensor, offset: Tensor) -> Tensor:
    """Affine maps (..., 2, 3) from scales and offsets (..., 2)."""
    return torch.cat([torch.diag_embed(scale), offset[..., None]], -1)
