"""Transforms between frames: their mathematics, and tf2_ros where it is installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

try:
    from tf2_ros import Buffer, TransformBroadcaster, TransformListener
except ImportError:  # comes with a ROS 2 distribution, not from PyPI
    Buffer = TransformBroadcaster = TransformListener = None


@dataclass(frozen=True)
class Transform:
    """Leads from one frame to another one: ``rotation @ point + translation``."""

    rotation: np.ndarray
    """(3, 3)"""
    translation: np.ndarray
    """(3,) in m"""

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in the other frame."""
        return points @ self.rotation.T + self.translation


class NoTransform(ValueError):
    """Two frames are not connected, or not at that time."""


class LateTransform(NoTransform):
    """Two frames are connected, but at another time: theirs may still come."""


def quaternion_to_matrix(x: float, y: float, z: float, w: float) -> np.ndarray:
    """Rotation (3, 3) of a quaternion, which need not have the length 1.

    Raises ``ValueError`` for one without length.
    """
    norm = float(np.linalg.norm((x, y, z, w)))
    if not (np.isfinite(norm) and norm > 1e-9):
        raise ValueError(f"quaternion {[x, y, z, w]}: expected a positive, finite length")
    x, y, z, w = (each / norm for each in (x, y, z, w))
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
        )
    )


class Frames:
    """The tree of frames, as far as tf2_ros is installed."""

    def __init__(self, node: Node) -> None:
        """Subscribe to /tf and /tf_static."""
        self._node = node
        self._buffer: Any = None
        self._broadcaster: Any = None
        if Buffer is not None:
            self._buffer = Buffer(cache_time=Duration(seconds=10))
            self._listener = TransformListener(self._buffer, node)

    def transform(self, target: str, source: str, stamp: Any) -> Transform:
        """From the frame ``source`` to ``target`` at the time of a message.

        Raises ``LateTransform`` or ``NoTransform`` if there is none, or no tf2_ros.
        """
        if target == source:
            return Transform(np.eye(3), np.zeros(3))
        if self._buffer is None:
            raise NoTransform(f"no transform from {source} to {target}: tf2_ros is not installed")
        try:
            found = self._buffer.lookup_transform(target, source, Time.from_msg(stamp)).transform
        # tf2's exceptions have no base in common that all distributions export
        except Exception as error:
            kind = LateTransform if self._are_connected(target, source) else NoTransform
            raise kind(f"no transform from {source} to {target}: {error}") from None
        turn, shift = found.rotation, found.translation
        rotation = quaternion_to_matrix(turn.x, turn.y, turn.z, turn.w)
        return Transform(rotation, np.array((shift.x, shift.y, shift.z)))

    def _are_connected(self, target: str, source: str) -> bool:
        """Whether there is a transform at the newest time."""
        try:
            self._buffer.lookup_transform(target, source, Time())
        except Exception:
            return False
        return True

    def transform_between(self, target: Any, source: Any, fixed: str) -> Transform:
        """From the frame and time of one header, ``source``, to those of another one.

        Through the frame ``fixed``, in which what is seen stands still, as the
        ``lookup_transform_full`` of tf2; without one, at the time of ``source``. Raises
        ``NoTransform`` as :meth:`transform`.
        """
        if not fixed:
            return self.transform(target.frame_id, source.frame_id, source.stamp)
        first = self.transform(fixed, source.frame_id, source.stamp)
        second = self.transform(target.frame_id, fixed, target.stamp)
        return Transform(second.rotation @ first.rotation, second(first.translation))

    def publish(self, header: Any, name: str, position: np.ndarray) -> None:
        """Publish a frame of this ``name`` at a position in the frame of ``header``.

        Raises ``ValueError`` without tf2_ros.
        """
        if TransformBroadcaster is None:
            raise ValueError(f"no frame {name} on /tf: tf2_ros is not installed")
        if self._broadcaster is None:
            self._broadcaster = TransformBroadcaster(self._node)
        message = TransformStamped(header=header, child_frame_id=name)
        shift = message.transform.translation
        shift.x, shift.y, shift.z = position.tolist()
        message.transform.rotation.w = 1.0
        self._broadcaster.sendTransform(message)
