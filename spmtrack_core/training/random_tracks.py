"""Random numbers for synthetic tracks, and the shapes, motions and light made of them.

B counts tracks, T time points, P pixels along the side of a cut-out.
"""

from __future__ import annotations

import hashlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor


class RandomStream:
    """Random numbers on ``device`` that depend on a key alone: seed, batch number and purpose.

    Every group of effects has a purpose and so a stream of its own: a new effect, or one that is
    switched on, leaves the numbers of all other streams unchanged.
    """

    def __init__(self, device: torch.device, *key: int | str) -> None:
        text = "/".join(map(str, key))
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """Uniform numbers in [low, high)."""
        unit = torch.rand(shape, generator=self.generator, device=self.device)
        return unit * (high - low) + low

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Normal numbers with mean 0 and standard deviation 1."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def integers(self, n: int, below: int) -> Tensor:
        """``n`` integers in 0..below-1."""
        return torch.randint(below, (n,), generator=self.generator, device=self.device)

    def chance(self, n: int, share: float) -> Tensor:
        """``n`` booleans, true with probability ``share``."""
        return torch.rand(n, generator=self.generator, device=self.device) < share

    def clock(self, b: int, references: int, times: int) -> Tensor:
        """Times in -1..1, (B, T): sorted references, then the searches on one side of them."""
        earlier = self.uniform((b, references), -1, 0.2).sort(1).values
        later = self.uniform((b, times - references), 0.2, 1).sort(1).values
        clock = torch.cat([earlier, later], 1)
        return torch.where(self.chance(b, 0.5)[:, None], -clock, clock)

    def drift(self, clock: Tensor, amount: float, n: int) -> Tensor:
        """``n`` smooth functions of time, (B, T, n): a straight line plus a slow wave."""
        b = clock.shape[0]
        line = clock[..., None] * self.normal((b, 1, n))
        wave = torch.sin(
            clock[..., None] * self.uniform((b, 1, n), 1, 4) + self.uniform((b, 1, n), 0, 6.3)
        )
        return amount * (0.7 * line + 0.7 * wave * self.normal((b, 1, n))).clamp(-2.5, 2.5)

    def poses(self, clock: Tensor, shape: Tensor, motion: float, log_size: float = 0.0) -> Tensor:
        """Smooth poses (B, T, 2, 3) around the origin for layers with half sizes ``shape``."""
        b, t = clock.shape
        scale, tilt, angle = self.drift(clock, motion, 3).unbind(-1)
        # few tracks rotate much, and most start with a small angle
        angle = 0.35 * angle * self.uniform((b, 1), 0, 1) + 0.25 * self.normal((b, 1))
        scale = 0.15 * scale + log_size * self.normal((b, 1))
        size = shape[:, None] * torch.stack([scale + 0.12 * tilt, scale - 0.12 * tilt], -1).exp()
        mirror = torch.ones(b, 1, 2, device=self.device)
        mirror[:, 0, 0] -= 2.0 * self.chance(b, 0.5)
        size = size * mirror
        cos, sin = angle.cos(), angle.sin()
        rotation = torch.stack([cos, -sin, sin, cos], -1).view(b, t, 2, 2)
        linear = rotation * size[:, :, None, :]
        return torch.cat([linear, torch.zeros(b, t, 2, 1, device=self.device)], -1)

    def offsets(self, clock: Tensor, near: float, far: float, motion: float) -> Tensor:
        """Positions beside the target over time (B, T, 2), in target sizes."""
        b = clock.shape[0]
        angle, radius = self.uniform((b, 1), 0, 2 * math.pi), self.uniform((b, 1), near, far)
        start = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
        return start + self.drift(clock, 0.5 * motion, 2)

    def shapes(self, b: int) -> Tensor:
        """Half sizes (B, 2) of layers about as large as the target."""
        tilt = 0.25 * self.normal((b, 1)).clamp(-2, 2)
        return 0.5 * torch.cat([tilt, -tilt], 1).exp()

    def closed_shapes(self, b: int, side: int) -> Tensor:
        """Alpha (B, 1, P, P) of random smooth outlines between ellipse and rectangle."""
        line = (torch.arange(side, device=self.device) + 0.5) * (2 / side) - 1
        y, x = torch.meshgrid(line, line, indexing="ij")
        power = self.uniform((b, 1, 1), 1.7, 6.0)
        radius = (x.abs() ** power + y.abs() ** power) ** (1 / power)
        angle = torch.atan2(y, x)
        wave = torch.zeros(b, side, side, device=self.device)
        strength = self.uniform((b, 1, 1), 0, 0.16)
        for k in (1, 2, 3, 5):
            phase = self.uniform((b, 1, 1), 0, 2 * math.pi)
            amount = strength * self.normal((b, 1, 1)).clamp(-1.5, 1.5)
            wave += amount * torch.cos(k * angle + phase)
        edge = (0.92 * torch.exp(wave - wave.amax((1, 2), keepdim=True)) - radius) * (side / 3)
        return edge.clamp(-0.5, 0.5)[:, None] + 0.5

    def light(self, b: int, t: int, amount: float, flicker: float) -> tuple[Tensor, Tensor]:
        """Gain and offset (B, T, 3) of light and color.

        Over a track they change by a third of their range; in a share ``flicker`` of the tracks,
        by all of it.
        """
        unsteady = 0.33 + 0.67 * self.chance(b, flicker).float().view(b, 1, 1)
        gain = self.normal((b, 1, 1)) + 0.5 * self.normal((b, 1, 3))
        gain = gain + unsteady * (self.normal((b, t, 1)) + 0.3 * self.normal((b, t, 3)))
        offset = self.normal((b, 1, 1)) + unsteady * self.normal((b, t, 1))
        gain = (amount * gain.clamp(-2.5, 2.5)).exp()
        # contrast changes about the middle gray
        return gain, 0.5 * (1 - gain) + 0.3 * amount * offset.clamp(-2, 2)

    def exposure(self, b: int, t: int, share: float) -> Tensor:
        """Factors on the light (B, T, 3); in a ``share`` of the tracks a lamp goes on and off."""
        dim, lit = self.uniform((2, b, 1), -2.2, 0).exp()  # down to a ninth
        seen = torch.where(self.uniform((b, t), 0, 1) < 0.5, dim, lit)
        seen = torch.where(self.chance(b, share)[:, None], seen, 1.0)
        return seen[..., None].expand(b, t, 3)

    def blur_kernels(self, n: int, longest: float) -> Tensor:
        """Long and narrow Gaussian kernels (n, 1, k, k) in random directions."""
        side = 2 * math.ceil(1.2 * longest) + 1
        line = torch.arange(side, device=self.device) - (side - 1) / 2
        y, x = torch.meshgrid(line, line, indexing="ij")
        angle = self.uniform((n, 1, 1), 0, math.pi)
        long = 0.3 + max(longest - 0.3, 0.0) * self.uniform((n, 1, 1), 0, 1) ** 2
        narrow = 0.3 + 0.9 * self.uniform((n, 1, 1), 0, 1) ** 2
        u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        # exp() of less would give denormal numbers, which make convolutions slow
        kernel = torch.exp(-0.5 * ((u / long) ** 2 + (v / narrow) ** 2).clamp_max(80))
        return (kernel / kernel.sum((1, 2), keepdim=True))[:, None]

    def noise(self, channels: int, h: int, w: int, grain: float) -> Tensor:
        """Pixel noise (channels, H, W) that all tracks of a batch share.

        A grain is up to ``grain`` pixels large, as in an enlarged crop of a small target.
        """
        side = float(self.uniform((), 1, grain))
        sheet = self.normal((channels, math.ceil(h / side), math.ceil(w / side)))
        return F.interpolate(sheet[None], (h, w), mode="bilinear", align_corners=False)[0]
