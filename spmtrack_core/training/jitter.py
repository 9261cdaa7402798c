"""The jittered search crop of the published training."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spmtrack_core.geometry.boxes import clip_xyxy
from spmtrack_core.geometry.crop import CropTransform, crop_transform

ATTEMPTS = 12


class Random(Protocol):
    """The two methods of ``numpy.random.Generator`` that the jitter uses."""

    def normal(self, *, size: int) -> NDArray[np.float64]: ...

    def uniform(self, low: float, high: float, size: int) -> NDArray[np.float64]: ...


def jittered_crop(
    box_xyxy: ArrayLike,
    area_factor: float,
    output_hw: tuple[int, int],
    random: Random,
    scale_jitter: float = 0.25,
    translation_jitter: float = 3.0,
    min_side: float = 10.0,
    size_jitter: float = 0.0,
) -> tuple[CropTransform, bool]:
    """A search crop with random scale and position, and whether the sample is usable.

    The scale of each axis is divided by ``exp(scale_jitter * normal)``, and that of both together
    by ``exp(size_jitter * normal)``, which is not published. The box moves away from the center by
    up to ``translation_jitter`` mean sides. This is repeated until the box, clipped to the crop,
    has sides of at least ``min_side`` pixels. After 12 attempts the last crop is
    returned with False. Raises ``ValueError`` for a box without area.
    """
    box = np.asarray(box_xyxy, np.float64)
    plain = crop_transform(box, area_factor, output_hw)
    center, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    for _ in range(ATTEMPTS):
        scale = plain.scale / np.exp(scale_jitter * random.normal(size=2))
        if size_jitter:
            scale = scale / np.exp(size_jitter * random.normal(size=1))
        shift = random.uniform(-1, 1, 2) * translation_jitter * (scale * size).mean()
        crop = CropTransform(scale, np.array(output_hw[::-1]) / 2 - scale * center + shift)
        seen = clip_xyxy(crop.to_crop(box), output_hw)
        if bool((seen[2:] - seen[:2] >= min_side).all()):
            return crop, True
    return crop, False
