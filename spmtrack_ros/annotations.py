"""The targets as ``foxglove_msgs``, where those are installed. Free of rclpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spmtrack_core.tracking.annotations import foxglove_annotations
from spmtrack_core.tracking.followed import Target

try:
    from foxglove_msgs import msg as foxglove
    from foxglove_msgs.msg import ImageAnnotations
except ImportError:  # an optional package
    ImageAnnotations = None


def image_annotations(stamp: Any, targets: Sequence[Target]) -> Any:
    """An ``ImageAnnotations`` of the image with this stamp."""
    return foxglove_annotations(lambda name: getattr(foxglove, name)(), stamp, targets)
