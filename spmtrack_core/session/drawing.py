"""Targets, drawn into their image."""

from __future__ import annotations

from collections.abc import Sequence

from spmtrack_core.geometry.drawing import GREEN, ORANGE, WHITE, draw_box
from spmtrack_core.geometry.image import Image
from spmtrack_core.session.target import State, Target


def draw_targets(image: Image, targets: Sequence[Target]) -> Image:
    """A copy of the image with the boxes of the visible targets and a caption for each."""
    if not targets:
        return draw_box(image, None, "no target", WHITE)
    if lost := [_caption(target) for target in targets if not target.visible]:
        image = draw_box(image, None, ", ".join(lost), ORANGE)
    for target in targets:
        if target.visible:
            color = GREEN if target.state is State.TRACKING else ORANGE
            image = draw_box(image, target.box_xywh, _caption(target), color)
    return image


def _caption(target: Target) -> str:
    return f"{target.id} {target.label} {target.state.name.lower()} {target.score:.2f}"
