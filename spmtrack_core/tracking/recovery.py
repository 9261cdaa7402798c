"""Where to search for a lost target: wide regions all over the frame, then closely what they show.

A region that is twice as wide covers four times the area, but shows the target at half its size.
What the network finds there is often too uncertain to be taken for the target: then a region of
the usual size around it decides in the next frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.geometry.crop import crop_transform

WIDE = 2.0
"""Size of a wide region, relative to a search region."""
OVERLAP = 0.4
"""Of neighboring regions of the grid, so that a target on the seam is whole in one of them."""
CANDIDATE = 0.2
"""Confidence from which on what a wide region shows is looked at closely."""
MOST_REGIONS = 128
"""In a row or column of the grid; those of a target of few pixels in a large frame leave gaps."""


class Recovery:
    """The search for one lost target, a region in each frame.

    ``box_xyxy`` (4,) is the last certain box in frame pixels, ``area_factor`` and ``min_side`` are
    those of a search region, which has the aspect of ``search_hw``.
    """

    def __init__(
        self,
        box_xyxy: Boxes,
        area_factor: float,
        frame_hw: tuple[int, int],
        search_hw: tuple[int, int],
        min_side: float = 0.0,
    ) -> None:
        # a smaller target has the region of one with these sides, and a wide one is twice as large
        self.sides = np.maximum(box_xyxy[2:] - box_xyxy[:2], min_side)
        scale = crop_transform(box_xyxy, area_factor, search_hw, min_side).scale  # (2,)
        region = search_hw[::-1] / scale  # (2,) width, height, frame pixels
        self._regions = regions((box_xyxy[:2] + box_xyxy[2:]) / 2, region, frame_hw)
        self._candidate: Boxes | None = None
        self._wide = False
        self._scale = np.ones(2)  # frame pixels for each of those at the start

    def next_box(self) -> Boxes:
        """(4,) frame pixels: the box to center the region of the next frame on."""
        if self._candidate is not None:
            center, size, self._candidate = self._candidate, 1.0, None
        else:
            center, size = next(self._regions)
        self._wide = size > 1
        corners = center - size / 2 * self.sides, center + size / 2 * self.sides
        return np.concatenate([corner * self._scale for corner in corners])

    def doubted(self, box_xyxy: Boxes, confidence: float) -> None:
        """Report what the last region showed, if it was not taken for the target."""
        if self._wide and confidence >= CANDIDATE:
            self._candidate = (box_xyxy[:2] + box_xyxy[2:]) / 2 / self._scale

    def rescale(self, scale: Boxes) -> None:
        """Go on in frames that are ``scale`` (2,) times as wide and high."""
        self._scale = self._scale * scale


def regions(
    center: Boxes, region: Boxes, frame_hw: tuple[int, int]
) -> Iterator[tuple[Boxes, float]]:
    """Centers (2,) and sizes of regions, without an end; ``region`` (2,) has the size 1.

    First one at ``center``; then wide ones that cover the frame, the nearest to it first. Then all
    of it again.
    """
    axes = []
    for length, reach in zip(frame_hw[::-1], WIDE * region, strict=True):
        steps = np.ceil((length - reach) / (reach * (1 - OVERLAP)))
        count = 1 + int(np.clip(steps, 0, MOST_REGIONS - 1))
        half = min(reach, length) / 2
        axes.append(np.linspace(half, length - half, count))
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)  # (cells, 2) x, y
    grid = grid[np.argsort(np.square(grid - center).sum(1), kind="stable")]
    return itertools.cycle([(center, 1.0), (center, WIDE), *((place, WIDE) for place in grid)])
