"""The targets as ``foxglove_msgs`` annotations over the original image, as Foxglove draws them.

Free of rclpy. ``ImageAnnotations`` is None where foxglove_msgs is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spmtrack_core.session.target import Target
from spmtrack_ros.markers import STATE_COLORS, WHITE

try:
    from foxglove_msgs.msg import Color, ImageAnnotations, Point2, PointsAnnotation, TextAnnotation
except ImportError:  # an optional package
    ImageAnnotations = None

_THICKNESS, _FONT_SIZE = 3.0, 18.0  # px
_BLACK = (0.0, 0.0, 0.0, 0.6)


def image_annotations(stamp: Any, targets: Sequence[Target]) -> Any:
    """An ``ImageAnnotations`` with a box and a label for each visible target of the image.

    Foxglove matches it with the image by ``stamp``. A LOST target has a label only.
    """
    message = ImageAnnotations()
    for target in targets:
        x, y, w, h = target.box_xywh
        if target.visible:
            corners = ((x, y), (x + w, y), (x + w, y + h), (x, y + h))
            box = PointsAnnotation(timestamp=stamp, type=PointsAnnotation.LINE_LOOP)
            box.points = [Point2(x=float(px), y=float(py)) for px, py in corners]
            box.outline_color = _color(STATE_COLORS[target.state])
            box.thickness = _THICKNESS
            message.points.append(box)
        state = f"{target.score:.2f}" if target.visible else "lost"
        label = TextAnnotation(timestamp=stamp, text=f"{target.id} {target.label} {state}")
        label.position = Point2(x=float(x), y=float(y))
        label.font_size = _FONT_SIZE
        label.text_color, label.background_color = _color(WHITE), _color(_BLACK)
        message.texts.append(label)
    return message


def _color(rgba: tuple[float, ...]) -> Any:
    red, green, blue, alpha = rgba
    return Color(r=red, g=green, b=blue, a=alpha)
