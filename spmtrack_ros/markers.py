"""The targets as `visualization_msgs` markers in the camera's frame, for RViz. Free of rclpy.

A box in an image has no distance: it is drawn at a chosen depth, with the ray to its center.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from visualization_msgs.msg import Marker, MarkerArray

from spmtrack_core.tracking.annotations import STATE_COLORS, WHITE
from spmtrack_core.tracking.followed import Target

Ray = Callable[[tuple[float, float]], tuple[float, float, float]]
"""Direction (x, y, z) of a pixel (x, y) in the optical frame."""

_LIFETIME = Duration(sec=1)


def target_markers(header: Any, targets: Sequence[Target], ray: Ray, depth: float) -> Any:
    """A ``MarkerArray`` with box, edges, ray and label of each target, ``depth`` m away.

    A LOST target has its last box and no ray. A target with a point for which ``ray`` raises
    ``ValueError`` has no markers. Without targets all markers are deleted.
    """
    if not targets:
        return MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])
    markers: list[Any] = []
    for index, target in enumerate(targets):
        with contextlib.suppress(ValueError):  # a wide lens may not reach its corners
            markers += _markers_of(header, index, target, ray, depth)
    return MarkerArray(markers=markers)


def _markers_of(header: Any, index: int, target: Target, ray: Ray, depth: float) -> list[Any]:
    def at(x: float, y: float) -> Any:
        right, down, forward = ray((x, y))
        return Point(x=right * depth / forward, y=down * depth / forward, z=depth)

    def marker(name: str, kind: int, color: tuple[float, ...], *size: float) -> Any:
        new = Marker(header=header, ns=name, id=index, type=kind, lifetime=_LIFETIME)
        new.pose.orientation.w = 1.0
        new.color.r, new.color.g, new.color.b, new.color.a = color
        new.scale.x, new.scale.y, new.scale.z = (each * depth for each in size)
        new.action = Marker.ADD if target.visible or name in ("box", "label") else Marker.DELETE
        return new

    x, y, w, h = target.box_xywh
    corners = [at(x, y), at(x + w, y), at(x + w, y + h), at(x, y + h)]
    color = STATE_COLORS[target.state]
    box = marker("box", Marker.LINE_STRIP, color, 0.01, 0, 0)
    box.points = [*corners, corners[0]]
    edges = marker("edges", Marker.LINE_LIST, (*color[:3], 0.35), 0.004, 0, 0)
    edges.points = [point for corner in corners for point in (Point(), corner)]
    arrow = marker("ray", Marker.ARROW, color, 0.01, 0.03, 0.08)
    arrow.points = [Point(), at(x + w / 2, y + h / 2)]
    label = marker("label", Marker.TEXT_VIEW_FACING, WHITE, 0, 0, 0.06)
    score = f"{target.score:.2f}" if target.visible else "lost"
    label.text = f"{target.label}\n{score}"
    label.pose.position = at(x + w / 2, y)
    label.pose.position.y -= 0.09 * depth
    return [box, edges, arrow, label]
