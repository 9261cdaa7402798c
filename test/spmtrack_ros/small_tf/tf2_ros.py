"""As much of tf2_ros as `spmtrack_ros.frames` uses: PyPI has no tf2_ros.

Tests put this folder on the PYTHONPATH of the nodes. A dynamic transform is the one closest in
time; tf2_ros interpolates instead.
"""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MAX_AWAY = 0.1  # s between a transform and the time that is asked for


class TransformException(Exception):
    """There is no such transform."""


def _matrix(transform):
    turn, shift = transform.rotation, transform.translation
    x, y, z, w = turn.x, turn.y, turn.z, turn.w
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + 2 * (
        w * np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
        + np.linalg.matrix_power(np.array(((0, -z, y), (z, 0, -x), (-y, x, 0))), 2)
    )
    matrix[:3, 3] = shift.x, shift.y, shift.z
    return matrix


def _quaternion(rotation):
    values, vectors = np.linalg.eig(rotation)
    axis = np.real(vectors[:, np.argmin(abs(values - 1))])
    across = np.cross(axis, (0.3, 0.5, 0.7))
    turned = rotation @ across
    angle = np.arctan2(axis @ np.cross(across, turned), across @ turned)
    return (*(np.sin(angle / 2) * axis), np.cos(angle / 2))


class Buffer:
    def __init__(self, cache_time=None):
        self.parents = {}

    def add(self, message, static):
        for each in message.transforms:
            stamp = None if static else each.header.stamp.sec + each.header.stamp.nanosec / 1e9
            name, _ = each.child_frame_id, None
            kept = self.parents.setdefault(name, [])[-200:]
            self.parents[name] = [*kept, (stamp, each.header.frame_id, _matrix(each.transform))]

    def to_root(self, frame, time):
        """The time 0 is the newest one."""
        matrix = np.eye(4)
        while frame in self.parents:
            known = self.parents[frame]
            away = [0.0 if stamp is None else abs(stamp - time) for stamp, *_ in known]
            if time == 0:
                away = range(len(known), 0, -1)
            elif min(away) > MAX_AWAY:
                raise TransformException(f"{frame} is known {min(away):.2f} s from then")
            _, parent, step = known[int(np.argmin(away))]
            matrix, frame = step @ matrix, parent
        return matrix, frame

    def lookup_transform(self, target, source, time):
        seconds = time.nanoseconds / 1e9
        (up, root), (down, other) = self.to_root(source, seconds), self.to_root(target, seconds)
        if root != other:
            raise TransformException(f"{source} and {target} are not connected")
        matrix = np.linalg.inv(down) @ up
        found = TransformStamped()
        shift, turn = found.transform.translation, found.transform.rotation
        shift.x, shift.y, shift.z = matrix[:3, 3].tolist()
        turn.x, turn.y, turn.z, turn.w = map(float, _quaternion(matrix[:3, :3]))
        return found


class TransformListener:
    def __init__(self, buffer, node):
        node.create_subscription(TFMessage, "/tf", lambda each: buffer.add(each, False), 100)
        node.create_subscription(
            TFMessage, "/tf_static", lambda each: buffer.add(each, True), LATCHED
        )


class TransformBroadcaster:
    def __init__(self, node):
        self.publisher = node.create_publisher(TFMessage, "/tf", 100)

    def sendTransform(self, transform):
        self.publisher.publish(TFMessage(transforms=[transform]))
