"""Messages of ROS that the node publishes and bags hold: every function takes any object with the
fields.

Boxes are xywh in pixels inside; ``vision_msgs/BoundingBox2D`` holds the center and the full size.
``image_messages`` reads image messages.
"""

from __future__ import annotations

import math
from typing import Any

from spmtrack_core.geometry.boxes import xywh_to_cxcywh

_NANOSECONDS = 1_000_000_000


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a ``builtin_interfaces/Time``."""
    return int(stamp.sec) * _NANOSECONDS + int(stamp.nanosec)


def stamp_text(stamp_ns: int) -> str:
    """Nanoseconds as seconds with nine decimals."""
    return f"{stamp_ns // _NANOSECONDS}.{stamp_ns % _NANOSECONDS:09d}"


def fill_stamp(message: Any, nanoseconds: int) -> Any:
    """Put nanoseconds into a ``builtin_interfaces/Time`` ; return that."""
    message.sec, message.nanosec = divmod(nanoseconds, _NANOSECONDS)
    return message


def bbox_to_xywh(bbox: Any) -> tuple[float, float, float, float]:
    """Box of a ``vision_msgs/BoundingBox2D``.

    Raises ``ValueError`` for a rotated box. The tracker checks the numbers against its image.
    """
    if bbox.center.theta != 0.0:
        raise ValueError(f"box is rotated: center.theta is {bbox.center.theta:g} rad, expected 0")
    center, w, h = bbox.center.position, float(bbox.size_x), float(bbox.size_y)
    return float(center.x) - w / 2, float(center.y) - h / 2, w, h  # NumPy would warn of infinity


def fill_bbox(bbox: Any, box_xywh: tuple[float, float, float, float]) -> Any:
    """Put a box into a ``vision_msgs/BoundingBox2D``; return that."""
    x, y, w, h = xywh_to_cxcywh(box_xywh).tolist()
    bbox.center.position.x, bbox.center.position.y = x, y
    bbox.center.theta = 0.0
    bbox.size_x, bbox.size_y = w, h
    return bbox


def fill_detection(
    detection: Any,
    hypothesis: Any,
    header: Any,
    box_xywh: tuple[float, float, float, float],
    target_id: str,
    label: str,
    score: float,
) -> Any:
    """Fill an empty ``vision_msgs/Detection2D`` with one ``ObjectHypothesisWithPose``; return it.

    ``score`` is clamped to 0..1; NaN becomes 0.
    """
    detection.header = header
    detection.id = target_id
    fill_bbox(detection.bbox, box_xywh)
    hypothesis.hypothesis.class_id = label
    hypothesis.hypothesis.score = 0.0 if math.isnan(score) else min(max(float(score), 0.0), 1.0)
    detection.results = [hypothesis]
    return detection


def fill_track_state(message: Any, target: Any, primary: bool, now: float) -> Any:
    """Put a ``Target`` into an empty ``spmtrack_ros/TrackState``; return that.

    ``now`` is the time in s of the monotonic clock.
    """
    message.header = target.frame.message.header
    message.id, message.label = target.id, target.label
    message.state, message.reason = target.state, target.reason
    message.score = target.score
    fill_bbox(message.bbox, target.box_xywh)
    message.primary = primary
    message.age = max(0.0, now - target.started)
    fill_stamp(message.last_seen, target.last_seen_ns)
    message.frames_lost = target.frames_lost
    return message
