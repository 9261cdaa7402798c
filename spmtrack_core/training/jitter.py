"""The jittered search crop of the published training."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spmtrack_core.geometry.boxes import clip_xyxy
from spmtrack_core.geometry.crop import CropTransform, crop_transform

ATTEMPTS = 12


class Random(Protocol):
    """The two draws of ``numpy.random.Generator`` that a jitter takes."""

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
) -> tuple[CropTransform, bool]:
    """A search crop of another scale and place, and whether the box in it can be trained on.

    The scale of each axis is divided by ``exp(scale_jitter * normal)``, the box moves off the
    centre by up to ``translation_jitter`` mean sides. Tried until the box, clipped to the crop,
    has ``min_side`` pixels on each side there; after 12 attempts the last one is returned with
    False, and the sample is to be dropped. Raises ``ValueError`` for a box without area.
    """
    box = np.asarray(box_xyxy, np.float64)
    plain = crop_transform(box, area_factor, output_hw)
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    for _ in range(ATTEMPTS):
        scale = plain.scale / np.exp(scale_jitter * random.normal(size=2))
        shift = random.uniform(-1, 1, 2) * translation_jitter * (scale * size).mean()
        crop = CropTransform(scale, np.array(output_hw[::-1]) / 2 - scale * centre + shift)
        seen = clip_xyxy(crop.to_crop(box), output_hw)
        if bool((seen[2:] - seen[:2] >= min_side).all()):
            return crop, True
    return crop, False
