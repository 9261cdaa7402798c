"""Rotations and transforms, and the small tf2_ros of the tests against them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is absent: build third_party/tf2_msgs")

from geometry_msgs.msg import TransformStamped
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from spmtrack_ros.frames import Transform, quaternion_to_matrix
from test.spmtrack_ros.small_tf.tf2_ros import Buffer, TransformException

NUMBERS = st.floats(-1.0, 1.0)
QUATERNIONS = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS).filter(
    lambda q: np.linalg.norm(q) > 0.05
)
POINTS = st.tuples(NUMBERS, NUMBERS, NUMBERS)


@given(QUATERNIONS)
def test_rotations_are_rigid(quaternion):
    turn = quaternion_to_matrix(*quaternion)
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(turn) == pytest.approx(1)


@pytest.mark.parametrize(
    ("quaternion", "point", "expected"),
    [
        ((0, 0, 0, 1), (1, 2, 3), (1, 2, 3)),
        ((0, 0, 1, 1), (1, 0, 0), (0, 1, 0)),  # a quarter turn to the left; length 1.4
        ((-0.5, 0.5, -0.5, 0.5), (0, 0, 1), (1, 0, 0)),  # optical frame: z is forward
        ((-0.5, 0.5, -0.5, 0.5), (1, 0, 0), (0, -1, 0)),  # and x to the right
    ],
)
def test_rotations_by_hand(quaternion, point, expected):
    assert quaternion_to_matrix(*quaternion) @ point == pytest.approx(expected)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (np.nan, 0, 0, 1), (np.inf, 0, 0, 1)])
def test_quaternions_without_length_are_refused(quaternion):
    with pytest.raises(ValueError, match="quaternion"):
        quaternion_to_matrix(*quaternion)


def stamped(parent, child, quaternion, shift):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    unit = np.array(quaternion) / np.linalg.norm(quaternion)
    turn, move = message.transform.rotation, message.transform.translation
    turn.x, turn.y, turn.z, turn.w = unit.tolist()
    move.x, move.y, move.z = map(float, shift)
    return message


@settings(max_examples=30)
@given(QUATERNIONS, QUATERNIONS, POINTS, POINTS)
def test_the_small_buffer_connects_siblings(first, second, shift, other):
    buffer = Buffer()
    tree = [stamped("base", "a", first, shift), stamped("base", "b", second, other)]
    buffer.add(TFMessage(transforms=tree), static=True)
    found = buffer.lookup_transform("b", "a", Time()).transform
    turn, move = found.rotation, found.translation
    a = Transform(quaternion_to_matrix(*first), np.array(shift))
    b = Transform(quaternion_to_matrix(*second), np.array(other))
    expected = (a(np.eye(3)) - b.translation) @ b.rotation
    assume(np.trace(b.rotation.T @ a.rotation) > -0.9)  # the small one is weak at half a turn
    rotation = quaternion_to_matrix(turn.x, turn.y, turn.z, turn.w)
    got = Transform(rotation, np.array((move.x, move.y, move.z)))(np.eye(3))
    assert got == pytest.approx(expected, abs=1e-5)


def test_the_small_buffer_knows_what_it_does_not_know():
    buffer = Buffer()
    buffer.add(TFMessage(transforms=[stamped("odom", "base", (0, 0, 0, 1), (1, 0, 0))]), False)
    with pytest.raises(TransformException, match="not connected"):
        buffer.lookup_transform("map", "base", Time())
    with pytest.raises(TransformException, match=r"5.00 s"):
        buffer.lookup_transform("odom", "base", Time(seconds=5))
