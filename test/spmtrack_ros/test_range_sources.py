"""Ranges by sensors whose stamps differ from the image's, on a robot that turns."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is absent: build third_party/tf2_msgs")

from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import CameraInfo, LaserScan, PointCloud2, PointField
from tf2_msgs.msg import TFMessage

from spmtrack_ros import frames, range_sources
from spmtrack_ros.camera import direction
from spmtrack_ros.conversions import stamp_to_ns
from spmtrack_ros.range_sources import RangeSources, Seen, TargetPoseParameters
from spmtrack_ros.ranging import view_box
from test.spmtrack_ros.motion_peer import header_at
from test.spmtrack_ros.peer import MS
from test.spmtrack_ros.small_tf import tf2_ros

TURN = 1.0  # rad/s to the left
AWAY = 4.0  # m from the robot to a board, with a wall behind it
IMAGE, CAMERA_HEIGHT = 1000, 0.4  # ms, m
INFO = CameraInfo(width=640, height=480, k=[500.0, 0, 319.5, 0, 500.0, 239.5, 0, 0, 1])


def heading(milliseconds):
    return TURN * (milliseconds - IMAGE) / 1000


def frame(parent, child, quaternion, height=0.0, milliseconds=0):
    header = header_at(milliseconds * MS, parent)
    message = TransformStamped(header=header, child_frame_id=child)
    turn = message.transform.rotation
    turn.x, turn.y, turn.z, turn.w = map(float, quaternion)
    message.transform.translation.z = height
    return message


def turned(milliseconds):
    half = heading(milliseconds) / 2
    pose = frame("odom", "base", (0, 0, np.sin(half), np.cos(half)), milliseconds=milliseconds)
    return TFMessage(transforms=[pose])


def cloud_at(milliseconds):
    """The board, 0.4 m wide and 1 m high, and the wall, from the robot of this time."""
    y, z = np.meshgrid(np.linspace(-4, 4, 401), np.linspace(0, 0.8, 9))
    x = np.where(abs(y) <= 0.2, AWAY, 9.0)
    angle = heading(milliseconds)
    points = np.stack((x, y, z), axis=-1).reshape(-1, 3)
    points = points @ (
        (np.cos(angle), -np.sin(angle), 0),
        (np.sin(angle), np.cos(angle), 0),
        (0, 0, 1),
    )
    cloud = PointCloud2(header=header_at(milliseconds * MS, "base"), height=1, width=len(points))
    cloud.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    cloud.point_step, cloud.row_step = 12, 12 * len(points)
    cloud.data = points.astype(np.float32).tobytes()
    return cloud


def scan_at(milliseconds):
    scan = LaserScan(header=header_at(milliseconds * MS, "base"), range_max=30.0)
    scan.angle_min, scan.angle_increment = -0.8, 0.005
    angles = -0.8 + 0.005 * np.arange(321) + heading(milliseconds)
    board = abs(AWAY * np.tan(angles)) <= 0.2
    scan.ranges = (np.where(board, AWAY, 9.0) / np.cos(angles)).tolist()
    return scan


@pytest.fixture
def measured(monkeypatch):
    """The range of the board in an image, by a message of another time."""
    listened, buffers = {}, []
    monkeypatch.setattr(frames, "Buffer", tf2_ros.Buffer)
    monkeypatch.setattr(frames, "TransformListener", lambda buffer, _: buffers.append(buffer))
    monkeypatch.setattr(
        range_sources,
        "subscribe",
        lambda _, kind, topic, on_message: listened.update({kind: on_message}),
    )

    def measure(message, output_frame, ranges, patient=True, known=()):
        parameters = TargetPoseParameters(
            ranges=ranges, scan_tolerance=0.15, output_frame=output_frame, target_height=1.0
        )
        sources = RangeSources(None, parameters, frames.Frames(None), lambda: None)
        sources.camera_info = INFO
        tree = [frame("base", "camera_optical", (-0.5, 0.5, -0.5, 0.5), CAMERA_HEIGHT)]
        buffers[-1].add(TFMessage(transforms=tree), static=True)
        for each in known or (IMAGE, stamp_to_ns(message.header.stamp) // MS):
            buffers[-1].add(turned(each), static=False)
        listened[type(message)](message)
        box = (295.0, 177.5, 50.0, 125.0)
        view = view_box(partial(direction, INFO, (480, 640)), box, (480, 640), 4.0)
        header = header_at(IMAGE * MS)
        return sources.measure(Seen(header, IMAGE * MS, view, box), patient)

    return measure


@pytest.mark.parametrize("milliseconds", [IMAGE - 100, IMAGE, IMAGE + 100])
@pytest.mark.parametrize(("make", "source"), [(cloud_at, "cloud"), (scan_at, "scan")])
def test_a_fixed_output_frame_takes_the_turn_out(measured, make, source, milliseconds):
    """At 1 rad/s and 0.1 s, the board is 0.1 rad beside its box: the wall would count."""
    _, found = measured(make(milliseconds), "odom", (source,))
    assert found.distance == pytest.approx(AWAY, abs=0.02)
    _, moved = measured(make(milliseconds), "", (source,))
    assert (moved.distance > 8) == (milliseconds != IMAGE)


def test_a_transform_that_comes_late_is_awaited_and_then_given_up(measured):
    late = cloud_at(IMAGE + 120)
    with pytest.raises(ValueError, match="cloud: no transform from base to odom"):
        measured(late, "odom", ("cloud", "size"), known=[IMAGE])
    source, _ = measured(late, "odom", ("cloud", "size"), patient=False, known=[IMAGE])
    assert source == "size"
    late.header.frame_id = "lidar"  # which TF does not know: nothing to wait for
    source, _ = measured(late, "odom", ("cloud", "size"))
    assert source == "size"
