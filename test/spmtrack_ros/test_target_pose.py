"""The node `target_pose` in another process, over real DDS."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is absent: build third_party/tf2_msgs")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import (
    PoseStamped,
    PoseWithCovarianceStamped,
    TransformStamped,
    TwistStamped,
    Vector3Stamped,
)
from sensor_msgs.msg import Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3D
from visualization_msgs.msg import Marker

from spmtrack_ros.conversions import stamp_to_ns
from test.spmtrack_ros.motion_peer import (
    LATCHED,
    Surroundings,
    detection_at,
    header_at,
    start,
)
from test.spmtrack_ros.peer import MS, stop_node
from test.spmtrack_ros.wrong_parameters import assert_refused

pytestmark = pytest.mark.ros
BOX = (420.0, 190.0, 100.0, 100.0)  # its center 150 px right of the middle: x = 0.3 z
PLACE = (1.2, 0.0, 4.0)


class Running:
    """The node with its outputs collected."""

    def __init__(self, world, process):
        self.world, self.process = world, process
        self.pose = world.collect(PoseStamped, "/target_pose/pose")
        self.spread = world.collect(PoseWithCovarianceStamped, "/target_pose/pose_with_covariance")
        self.velocity = world.collect(TwistStamped, "/target_pose/velocity")
        self.detection = world.collect(Detection3D, "/target_pose/detection3d")
        self.marker = world.collect(Marker, "/target_pose/marker")
        self.source = world.collect(String, "/target_pose/range_source", LATCHED)
        self.diagnostics = world.collect(DiagnosticArray, "/diagnostics")
        self.tf = world.collect(TFMessage, "/tf")
        world.wait_for(process, "/target_pose/pose")

    def see(self, milliseconds, box=BOX, target_id="1"):
        self.world.publish("detection", detection_at(milliseconds * MS, box, target_id))

    def posed(self, milliseconds, timeout=5.0):
        """The position for the image of this stamp; None if there is none."""

        def found():
            return [p for p in self.pose if stamp_to_ns(p.header.stamp) == milliseconds * MS]

        if not self.world.until(found, timeout):
            return None
        (only,) = found()
        return only.pose.position.x, only.pose.position.y, only.pose.position.z

    def says(self, words):
        def found():
            return any(words in s.message for each in self.diagnostics for s in each.status)

        return self.world.until(found)


@pytest.fixture
def run():
    world, processes = Surroundings(settling=0.8), []

    def starter(*parameters, tf=False, calibrated=True):
        processes.append(start("target_pose", *parameters, "diagnostics_period:=0.1", tf=tf))
        running = Running(world, processes[-1])
        if calibrated:
            world.calibrate()
        return running

    yield starter
    world.close()
    for process in processes:
        code, output = stop_node(process)
        assert code == 0 and "Traceback" not in output, output


def depth_image(milliseconds, depth, encoding="32FC1"):
    array = np.full((480, 640), 9.0)
    array[190:290, 420:520] = depth
    array[0, 0] = np.nan
    kind = np.float32
    if encoding == "16UC1":
        array, kind = np.nan_to_num(array) * 1000, np.uint16
    message = Image(header=header_at(milliseconds * MS), height=480, width=640)
    message.encoding, message.step = encoding, 640 * np.dtype(kind).itemsize
    message.data = array.astype(kind).tobytes()
    return message


def test_a_depth_image_gives_everything_with_the_stamp_of_the_image(run):
    node = run("publish_tf:=true", "tf_frame:=cup", tf=True)
    for index, encoding in enumerate(("32FC1", "16UC1")):
        stamp = 1000 + index
        node.world.publish("depth", depth_image(stamp, 4.0, encoding))
        node.see(stamp)
        assert node.posed(stamp) == pytest.approx(PLACE, abs=1e-3)
    world = node.world
    assert world.until(lambda: all((node.spread, node.velocity, node.detection, node.marker)))
    header = node.pose[-1].header
    assert header.frame_id == "camera_optical"
    for messages in (node.spread, node.velocity, node.detection, node.marker):
        assert world.until(lambda each=messages: each[-1].header == header)
    covariance = np.reshape(node.spread[-1].pose.covariance, (6, 6))
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert node.spread[-1].pose.pose == node.pose[-1].pose
    detection = node.detection[-1]
    assert detection.id == "1" and detection.bbox.center == node.pose[-1].pose
    assert detection.bbox.size.x == pytest.approx(0.8) == detection.bbox.size.y  # 100 px at 4 m
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("person", 0.9)
    assert world.until(lambda: node.tf)
    assert node.tf[-1].transforms[0].child_frame_id == "cup"
    assert world.until(lambda: node.source) and node.source[-1].data == "depth"
    assert node.says("range by depth")


def test_velocity_by_the_stamps(run):
    node = run()
    for index in range(20):
        stamp = 1000 + 70 * index
        node.world.publish("depth", depth_image(stamp, 4.0 + 0.07 * index))
        node.see(stamp)
        assert node.posed(stamp) is not None
    assert node.world.until(lambda: len(node.velocity) == 20)
    linear = node.velocity[-1].twist.linear
    assert (linear.x, linear.y, linear.z) == pytest.approx((0.3, 0, 1.0), abs=0.1)
    node.world.publish("depth", depth_image(stamp + 70, 4.0))
    node.see(stamp + 70, target_id="2")  # another target has another velocity
    assert node.posed(stamp + 70)
    assert node.world.until(lambda: len(node.velocity) == 21)
    assert node.velocity[-1].twist.linear.z == 0


def test_a_depth_image_of_another_time_is_refused_and_a_late_one_awaited(run):
    node = run("depth_tolerance:=0.02")
    node.world.publish("depth", depth_image(1000, 4.0))
    node.see(1050)
    node.world.settle()
    assert not [each for each in node.diagnostics if b"\0" != each.status[0].level]  # it waits
    node.see(1300)
    assert node.says("the closest depth image is 0.050 s away, expected 0.02 s")
    assert node.pose == []
    node.see(1310)
    node.world.settle()
    node.world.publish("depth", depth_image(1310, 4.0))  # the boxes came first
    assert node.posed(1300) == node.posed(1310) == pytest.approx(PLACE, abs=1e-3)
    node.see(1400)
    node.world.settle()
    node.see(1700)  # gives up the one before
    assert node.world.until(lambda: node.source and node.source[-1].data == "none")
    node.world.publish("depth", depth_image(1400, 4.0))
    assert node.posed(1400, timeout=0.3) is None


def test_the_first_range_that_there_is_counts(run):
    node = run("ranges:=[depth, size]", "target_height:=0.8", "max_range:=5.0")
    node.see(1000)
    assert node.posed(1000) == pytest.approx(PLACE, abs=1e-3)
    assert node.world.until(lambda: node.source and node.source[-1].data == "size")
    node.world.publish("depth", depth_image(1100, 3.0))
    node.see(1100)
    assert node.posed(1100)[2] == pytest.approx(3.0)
    node.see(1150)  # its depth image comes later
    node.world.settle()
    node.world.publish("depth", depth_image(1150, 3.0))
    assert node.posed(1150)[2] == pytest.approx(3.0)
    node.see(1200)
    assert node.posed(1200, timeout=0.3) is None
    node.see(1450, box=(420, 215, 50, 50))  # 8 m away
    assert node.posed(1200)[2] == pytest.approx(4.0)  # no longer awaited
    node.see(1700, box=(420, 215, 50, 50))
    assert node.says("size: the range is 8.")
    assert node.posed(1450, timeout=0.3) is None
    node.see(2400)  # the depth camera has ended
    assert node.posed(2400)[2] == pytest.approx(4.0)
    node.world.publish("depth", depth_image(2500, 3.0))
    node.see(2550)  # the last box before the target is lost
    node.world.settle()
    node.see(4000, target_id="2")
    assert node.posed(4000) and node.posed(2550, timeout=0.3) is None
    node.world.publish("depth", depth_image(4100, 3.0))
    node.see(4150, target_id="2")
    node.world.settle()
    node.see(4170, target_id="3")
    node.world.publish("depth", depth_image(4170, 3.0))
    assert node.posed(4170) and node.posed(4150, timeout=0.3) is None


def optical_to(parent, child, x, y, z):
    """A camera that looks forward, x m ahead, y m left, z m above the parent's frame."""
    message = TransformStamped(header=header_at(0, parent), child_frame_id=child)
    shift, turn = message.transform.translation, message.transform.rotation
    shift.x, shift.y, shift.z = x, y, z
    turn.x, turn.y, turn.z, turn.w = -0.5, 0.5, -0.5, 0.5
    return message


def level(parent, child, x, y, z):
    message = optical_to(parent, child, x, y, z)
    turn = message.transform.rotation
    turn.x, turn.y, turn.z, turn.w = 0.0, 0.0, 0.0, 1.0
    return message


def test_scan_cloud_and_ground_by_tf(run):
    node = run("ranges:=[cloud, scan, ground]", "output_frame:=base_footprint", tf=True)
    world = node.world

    def hear_tf(milliseconds):
        camera = optical_to("base_footprint", "camera_optical", 0.1, 0.0, 0.4)
        camera.header = header_at(milliseconds * MS, "base_footprint")
        world.publish("/tf", TFMessage(transforms=[camera]))

    def follow(stamps):
        """The first of these stamps with a pose."""
        return next((each for each in stamps if node.see(each) or node.posed(each, 0.5)), None)

    node.see(600)
    world.settle()
    node.see(900)  # gives up the one before, and has no reason to wait for TF
    assert node.says("no point cloud has arrived; scan: no scan has arrived; ground: no transform")
    laser = level("base_footprint", "laser", -0.1, 0.0, 0.2)
    world.publish("/tf_static", TFMessage(transforms=[laser]), LATCHED)
    hear_tf(950)
    assert follow(range(960, 1040, 10))  # until TF has been heard
    node.see(1100)  # later than small_tf bridges, so that it waits for TF
    world.settle()
    hear_tf(1100)
    assert follow(range(1110, 1190, 10))
    # by the ground: the lower side is 50 px below the middle, so 0.4 m down at 4 m
    assert node.posed(1100) == pytest.approx((4.1, -1.2, 0.4), abs=0.01)
    assert node.pose[-1].header.frame_id == "base_footprint"
    assert world.until(lambda: node.source and node.source[-1].data == "ground")

    scan = LaserScan(header=header_at(1300 * MS, "laser"), angle_min=-1.0, range_max=30.0)
    scan.angle_increment, angles = 0.01, -1.0 + 0.01 * np.arange(201)
    scan.ranges = (4.2 / np.cos(angles)).tolist()  # a wall, 4 m before the camera
    hear_tf(1300)
    world.publish("scan", scan)
    world.settle()
    stamp = follow(range(1300, 1340, 10))
    assert node.posed(stamp) == pytest.approx((4.1, -1.2, 0.4), abs=0.1)
    assert world.until(lambda: node.source[-1].data == "scan")

    y, z = np.meshgrid(np.linspace(-3, 1, 81), np.linspace(-1, 1, 41))
    points = np.stack((np.full(y.size, 3.2), y.ravel(), z.ravel()), axis=1).astype(np.float32)
    points[::7] = np.nan
    cloud = PointCloud2(header=header_at(1400 * MS, "laser"), height=1, width=len(points))
    cloud.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    cloud.point_step, cloud.row_step, cloud.data = 12, 12 * len(points), points.tobytes()
    hear_tf(1400)
    world.publish("points", cloud)
    world.settle()
    stamp = follow(range(1400, 1440, 10))
    assert node.posed(stamp) == pytest.approx((3.1, -0.9, 0.4), abs=0.05)
    assert world.until(lambda: node.source[-1].data == "cloud")


def test_a_bearing_has_a_range_by_depth_but_no_size(run):
    node = run("input:=bearing", "ranges:=[depth, size]", "target_height:=1.0")
    bearing = Vector3Stamped()
    bearing.vector.x, bearing.vector.z = 0.3, 1.0
    for stamp in (1000, 1050):  # the second one gives up the first one
        bearing.header = header_at(stamp * MS)
        node.world.publish("bearing", bearing)
        node.world.settle()
    assert node.says("size: a bearing has no size")
    for stamp in (1100, 1200, 1300):  # the first message may come before the node listens
        bearing.header = header_at(stamp * MS)
        node.world.publish("bearing", bearing)
        node.world.publish("depth", depth_image(stamp, 4.0))
        place = node.posed(stamp)
        if place:
            break
    assert place == pytest.approx(PLACE, abs=1e-3)


def test_without_calibration_tf_or_valid_boxes_there_is_silence_with_a_reason(run):
    node = run("ranges:=[ground]", calibrated=False)
    node.see(1000)
    assert node.says("no camera_info has arrived")
    node.world.calibrate()
    node.see(1100)
    assert node.says(
        "no transform from camera_optical to base_footprint: tf2_ros is not installed"
    )
    node.see(1200, box=(np.nan, 1, 2, 3))
    assert node.says("box is [nan")
    rotated = detection_at(1300 * MS, BOX)
    rotated.bbox.center.theta = 0.1
    node.world.publish("detection", rotated)
    assert node.says("box is rotated")
    assert node.pose == []


def test_a_camera_info_without_a_size_is_told_and_a_good_one_helps(run):
    node = run("ranges:=[depth, size]", "target_height:=0.8", calibrated=False)
    for index, bad in enumerate(({"height": 0}, {"width": 0}, {"height": 1, "binning": 2})):
        node.world.calibrate(**bad)
        node.diagnostics.clear()
        stamp = 1000 + 100 * index
        node.world.publish("depth", depth_image(stamp, 4.0))
        node.see(stamp)
        assert node.says("set its size")
    node.world.calibrate()
    node.see(stamp + 1)
    assert node.posed(stamp + 1) == pytest.approx(PLACE, abs=1e-3)
    assert len(node.pose) == 1
    node.world.calibrate(frame="another_optical")
    node.see(stamp + 2)
    assert node.posed(stamp + 2) == pytest.approx(PLACE, abs=1e-3)
    assert node.says("range by depth: camera_info of the frame another_optical is used for images")


def test_a_lost_target_is_silence_and_no_warning(run):
    node = run("ranges:=[size]", "target_height:=0.8")
    node.see(1000)
    assert node.posed(1000)
    node.diagnostics.clear()
    assert node.says("no target is seen")
    assert len(node.pose) == 1


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (["ranges:=[sonar]"], "'ranges' is ['sonar']: expected some of depth, cloud"),
        (["ranges:=[size]"], "set target_height or target_width"),
        (["min_range:=30.0"], "'min_range' is 30: expected less than max_range, 20"),
        (["camera_pitch:=2.0"], "'camera_pitch' is 2.0: expected -1.5 to 1.5"),
        (["input:=image"], "'image': expected detection or bearing"),
    ],
)
def test_wrong_parameters_end_the_node_with_one_line(parameters, words):
    assert_refused("target_pose", start("target_pose", *parameters), words)


def test_the_nodes_load_no_pytorch():
    code = "import sys, spmtrack_ros.target_pose, spmtrack_ros.visual_servo; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
