"""Changes that light, lens, sensor and encoder make to the crops of a track, real or synthetic.

Both kinds of tracks get the same changes: clips of real video rarely show a lamp that is switched,
a gray picture or strong blur. B counts tracks, R references, S searches, T = R + S time points.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from spmtrack_core.geometry.image import IMAGENET_MEAN, IMAGENET_STD
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import SyntheticConfig
from spmtrack_core.training.random_tracks import RandomStream

JPEG_QUALITY = (8, 50)


class Light(NamedTuple):
    """Light over a track: ``(crop * gain + offset) * exposure``, (B, T, 3) each."""

    gain: Tensor
    offset: Tensor
    exposure: Tensor

    def at(self, when: slice) -> Light:
        """The light at some time points."""
        return Light(*(each[:, when] for each in self))


class Photometric:
    """Changes batches by the shares and amounts of ``config``.

    The argument ``random`` of its methods gives the random stream of a purpose.
    """

    def __init__(self, config: SyntheticConfig, device: torch.device) -> None:
        self.config = config
        self.mean = torch.tensor(IMAGENET_MEAN, device=device).float().view(3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD, device=device).float().view(3, 1, 1)

    def change(self, batch: Batch, random: Callable[[str], RandomStream]) -> Batch:
        """A batch of normalized crops, changed."""
        references = batch.references * self.std + self.mean
        searches = batch.searches * self.std + self.mean
        references, searches = self.photograph(references, searches, random)
        return batch._replace(references=references, searches=searches)

    def photograph(
        self, references: Tensor, searches: Tensor, random: Callable[[str], RandomStream]
    ) -> tuple[Tensor, Tensor]:
        """Crops (B, R, 3, h, w) and (B, S, 3, H, W) in 0..1, changed and normalized.

        The arguments may be overwritten.
        """
        config, (b, r), s = self.config, references.shape[:2], searches.shape[1]
        self.coarsen(references, searches, random("resolution"))
        self.compress(references, searches, random("jpeg"))
        light = Light(
            *random("light").light(b, r + s, config.color_jitter, config.flicker_share),
            random("lamp").exposure(b, r + s, config.switch_share),
        )
        gray = random("gray").chance(b, config.gray_share)
        blur, noise = random("blur"), random("noise")
        references = self.expose(references, light.at(slice(0, r)), gray, blur, noise)
        searches = self.expose(searches, light.at(slice(r, r + s)), gray, blur, noise)
        return references, searches

    def coarsen(self, references: Tensor, searches: Tensor, random: RandomStream) -> None:
        """Lower the resolution of some tracks in place, by one factor in a batch."""
        chosen = random.chance(len(references), self.config.coarse_share)
        factor = float(random.uniform((), 0.25, 0.8))
        if chosen.any():
            for crops in (references, searches):
                fine = crops[chosen].flatten(0, 1)
                small = F.interpolate(fine, scale_factor=factor, mode="area")
                large = F.interpolate(small, fine.shape[-2:], mode="bilinear")
                crops[chosen] = large.view(-1, *crops.shape[1:])

    def compress(self, references: Tensor, searches: Tensor, random: RandomStream) -> None:
        """Compress some tracks in place, with one quality in a batch."""
        chosen = random.chance(len(references), self.config.jpeg_share)
        quality = int(random.uniform((), *JPEG_QUALITY))
        if chosen.any():
            for crops in (references, searches):
                clean = crops[chosen].flatten(0, 1)
                crops[chosen] = as_jpeg(clean, quality).view(-1, *crops.shape[1:])

    def expose(
        self,
        crops: Tensor,
        light: Light,
        gray: Tensor,
        blur: RandomStream,
        noise: RandomStream,
    ) -> Tensor:
        """Crops (B, T, 3, H, W) in 0..1 with blur, light and noise, then normalized."""
        b, t, _, h, w = crops.shape
        blurred = blur.chance(b * t, self.config.blur_share).nonzero()[:, 0]
        crops = crops.reshape(b * t, 3, h, w)
        if len(blurred):
            kernels = blur.blur_kernels(len(blurred), self.config.blur)
            crops[blurred] = filtered(crops[blurred], kernels)
        gain, offset, exposure = (each[..., None, None] for each in light)
        crops = crops.view(b, t, 3, h, w) * gain + offset
        if gray.any():
            crops[gray] = crops[gray].mean(2, keepdim=True)
        level = noise.uniform((b, 1, 1, 1, 1), 0, 1) ** 2 * self.config.noise
        sheet = noise.noise(t * 3, h, w, self.config.grain).view(1, t, 3, h, w)
        # after the exposure: a dark picture has as much noise as a bright one
        crops = (crops.clamp(0, 1) * exposure + level * sheet).clamp(0, 1)
        return (crops - self.mean) / self.std


def filtered(crops: Tensor, kernels: Tensor) -> Tensor:
    """Crops (N, 3, H, W), each convolved with its kernel (N, 1, k, k); zeros beyond the border.

    On a CPU ``crops`` are overwritten.
    """
    kernels = kernels.repeat_interleave(3, 0)  # (3N, 1, k, k)
    if crops.device.type == "cpu":  # many times as fast as a grouped convolution of PyTorch
        for channel, kernel in zip(crops.flatten(0, 1).numpy(), kernels.numpy(), strict=True):
            cv2.filter2D(channel, -1, kernel[0], channel, borderType=cv2.BORDER_CONSTANT)
        return crops
    flat = crops.reshape(1, -1, *crops.shape[2:])
    return F.conv2d(flat, kernels, padding="same", groups=len(kernels)).view(crops.shape)


def as_jpeg(crops: Tensor, quality: int) -> Tensor:
    """Crops (N, 3, H, W) in 0..1 after compression, which threads of the host run."""
    pixels = (crops.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    decoded = torch.from_numpy(np.stack([*encoders().map(partial(recoded, quality), pixels)]))
    return decoded.to(crops.device).permute(0, 3, 1, 2) / 255


def recoded(quality: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (H, W, 3) after compression."""
    _, encoded = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)  # type: ignore[return-value]


@cache
def encoders() -> ThreadPoolExecutor:
    """Threads that compress images; OpenCV releases Python's lock meanwhile."""
    return ThreadPoolExecutor(max(1, torch.get_num_threads()), "jpeg")
