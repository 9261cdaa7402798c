"""Where to search for a lost target: a growing region, then the whole frame, a region a frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.geometry.crop import crop_transform

GROWTH = (1.0, 1.5, 2.0)
"""Sizes of the first regions, relative to that of a search region."""
OVERLAP = 0.4
"""Of neighboring regions of the grid, so that a target on the seam is whole in one of them."""


def recovery_boxes(
    box_xyxy: Boxes, area_factor: float, frame_hw: tuple[int, int], min_side: float = 0.0
) -> Iterator[Boxes]:
    """Boxes (4,) to center search regions on, in frame pixels, without an end.

    First the last certain box of the target, larger from frame to frame; then boxes of its size on
    a grid, whose search regions cover the frame, the nearest first. Then all of it again.
    """
    center, sides = (box_xyxy[:2] + box_xyxy[2:]) / 2, box_xyxy[2:] - box_xyxy[:2]
    region = 1 / crop_transform(box_xyxy, area_factor, (1, 1), min_side).scale  # frame pixels
    axes = []
    for length, reach in zip(frame_hw[::-1], region, strict=True):
        count = 1 + max(0, int(np.ceil((length - reach) / (reach * (1 - OVERLAP)))))
        half = min(reach, length) / 2
        axes.append(np.linspace(half, length - half, count))
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)  # (cells, 2) x, y
    grid = grid[np.argsort(np.square(grid - center).sum(1), kind="stable")]
    while True:
        for growth in GROWTH:
            yield np.concatenate((center - growth * sides / 2, center + growth * sides / 2))
        for place in grid:
            yield np.concatenate((place - sides / 2, place + sides / 2))
