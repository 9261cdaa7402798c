"""Augmentation of the crops of one sample, with the functions of torchvision's v2 transforms.

The transforms themselves use the global random generator; here every sample has its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torchvision.transforms.v2.functional as F
from torch import Tensor

from spmtrack_core.geometry.boxes import Boxes

BLUR = (0.1, 2.0)
"""Range of the standard deviation of the blur, px of the crop."""
COLOR = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)


def augment(
    crops: Sequence[Tensor],
    boxes_xyxy: Boxes,
    random: np.random.Generator,
    flip: float = 0.5,
    color_jitter: float = 0.4,
    shared: bool = True,
) -> tuple[list[Tensor], Boxes]:
    """Augmented crops (3, H, W) in 0..1 and their boxes (N, 4), px of their crops.

    Each crop is mirrored with probability ``flip`` and gets its own brightness, contrast and
    saturation. Then, with ``shared``, all crops become gray, solarized or blurred together. Boxes
    may be NaN and may reach beyond the crop. All random numbers come from ``random``.
    """
    mirrored = random.random(len(crops)) < flip
    boxes = np.array(boxes_xyxy, np.float64)
    out = []
    for i, crop in enumerate(crops):
        if mirrored[i]:
            crop = F.horizontal_flip(crop)
            boxes[i, [0, 2]] = crop.shape[-1] - boxes[i, [2, 0]]
        factors = random.uniform(1 - color_jitter, 1 + color_jitter, 3).tolist()
        for index in random.permutation(3).tolist():
            if factors[index] != 1:
                crop = COLOR[index](crop, factors[index])
        out.append(crop)
    if shared:
        kind, sigma = int(random.integers(3)), float(random.uniform(*BLUR))
        side = 2 * math.ceil(3 * sigma) + 1  # px; has 99.7 % of the weight
        for i, crop in enumerate(out):
            if kind == 0:
                out[i] = F.rgb_to_grayscale(crop, num_output_channels=3)
            elif kind == 1:
                out[i] = F.solarize(crop, 0.5)
            else:
                out[i] = F.gaussian_blur(crop, [side, side], [sigma, sigma])
    return out, boxes
