"""Targets as ``foxglove_msgs`` annotations over the original image, as Foxglove draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spmtrack_core.tracking.followed import State, Target

WHITE = (1.0, 1.0, 1.0, 1.0)
STATE_COLORS = {
    State.TRACKING: (0.0, 1.0, 0.0, 1.0),
    State.UNCERTAIN: (1.0, 0.6, 0.0, 1.0),
    State.LOST: (1.0, 0.6, 0.0, 0.5),
}
"""Red, green, blue, alpha in 0..1."""
_THICKNESS, _FONT_SIZE = 3.0, 18.0  # px
_BLACK = (0.0, 0.0, 0.0, 0.6)


def foxglove_annotations(new: Callable[[str], Any], stamp: Any, targets: Sequence[Target]) -> Any:
    """An ``ImageAnnotations`` with a box and a label for each visible target of the image.

    Foxglove matches it with the image by ``stamp``. A LOST target has a label only. ``new`` makes
    an empty message of foxglove_msgs by its name.
    """

    def color(rgba: tuple[float, ...]) -> Any:
        message = new("Color")
        message.r, message.g, message.b, message.a = rgba
        return message

    def point(x: float, y: float) -> Any:
        message = new("Point2")
        message.x, message.y = float(x), float(y)
        return message

    annotations = new("ImageAnnotations")
    boxes, labels = [], []
    for target in targets:
        x, y, w, h = target.box_xywh
        if target.visible:
            box = new("PointsAnnotation")
            box.timestamp, box.type = stamp, box.LINE_LOOP
            box.points = [point(x, y), point(x + w, y), point(x + w, y + h), point(x, y + h)]
            box.outline_color, box.thickness = color(STATE_COLORS[target.state]), _THICKNESS
            boxes.append(box)
        state = f"{target.score:.2f}" if target.visible else "lost"
        label = new("TextAnnotation")
        label.timestamp, label.text = stamp, f"{target.id} {target.label} {state}"
        label.position, label.font_size = point(x, y), _FONT_SIZE
        label.text_color, label.background_color = color(WHITE), color(_BLACK)
        labels.append(label)
    annotations.points, annotations.texts = boxes, labels
    return annotations
