"""The box of a target of which only a point is known."""

from __future__ import annotations

from typing import Any

from spmtrack_core.geometry.image import Image


def propose_box(
    tracker: Any, frame: Image, point_xy: tuple[float, float]
) -> tuple[float, float, float, float]:
    raise NotImplementedError
