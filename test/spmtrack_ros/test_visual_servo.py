"""The node `visual_servo` in another process, over real DDS."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool

from spmtrack_ros.msg import TrackState, TrackStateArray
from test.spmtrack_ros import faulty_servo
from test.spmtrack_ros.motion_peer import LATCHED, Surroundings, detection_at, header_at, start
from test.spmtrack_ros.peer import output_of, stop_node
from test.spmtrack_ros.wrong_parameters import assert_refused

pytestmark = pytest.mark.ros
NS = 10**9
ZERO = (0.0, 0.0)


class Running:
    """The node, with its commands as (arrival in s, first, second)."""

    def __init__(self, world, process, kind):
        self.world, self.process, self.commands, self.frames = world, process, [], set()
        world.node.create_subscription(kind, "/visual_servo/cmd_vel", self.on_command, 10)
        self.joints = world.collect(Float64MultiArray, "/visual_servo/joint_commands")
        self.diagnostics = world.collect(DiagnosticArray, "/diagnostics")
        world.wait_for(process, "/visual_servo/cmd_vel")

    def on_command(self, message):
        if hasattr(message, "header"):
            self.frames.add(message.header.frame_id)
        twist = getattr(message, "twist", message)
        numbers = (
            *(twist.linear.x, twist.linear.y, twist.linear.z),
            *(twist.angular.x, twist.angular.y, twist.angular.z),
        )
        assert all(map(math.isfinite, numbers))
        self.commands.append((time.monotonic(), twist.linear.x or twist.angular.y, numbers[-1]))

    def enable(self, on=True):
        assert self.world.call(SetBool, "/visual_servo/enable", data=on).success

    def state(self, state, primary=True, target_id="1"):
        message = TrackStateArray(enabled=True)
        message.targets = [TrackState(id=target_id, state=state, primary=primary)]
        self.world.publish("status", message, LATCHED)

    def pose(self, x=0.5, z=4.0, age=0.05, covariance=0.001, frame="camera_optical", now=None):
        message = PoseWithCovarianceStamped()
        message.header = header_at((now or self.world.now()) - int(age * NS), frame)
        message.pose.pose.position.x, message.pose.pose.position.z = x, z
        message.pose.covariance = np.diag(np.full(6, covariance)).ravel().tolist()
        self.world.publish("pose", message)

    def box(self, box=(420.0, 190.0, 100.0, 100.0), age=0.05):
        self.world.publish("detection", detection_at(self.world.now() - int(age * NS), box))

    def feed(self, send, seconds):
        """Send ten measurements a second."""
        for _ in range(round(10 * seconds)):
            send()
            self.world.until(lambda: False, 0.1)

    @property
    def last(self):
        return self.commands[-1][1:] if self.commands else ZERO

    def drives(self, send, how=None):
        """Whether measurements move the robot, also where a busy machine takes seconds for it.

        ``how`` says whether it moves as it should.
        """
        return any(self.feed(send, 0.8) or (how or self.moves)() for _ in range(8))

    def moves(self):
        return self.last != ZERO

    def stands_after(self, timeout):
        """Whether zeros come within that time and nothing else after them."""
        self.world.until(lambda: not self.moves(), timeout)
        before = len(self.commands)
        self.world.until(lambda: len(self.commands) > before + 3, 5.0)
        return len(self.commands) > before + 3 and all(
            each[1:] == ZERO for each in self.commands[before:]
        )

    def zero_after(self, event):
        """Follow for a second; then the event must stop the robot. `make follow` has the times."""
        assert self.drives(self.pose)
        event()
        assert self.stands_after(2.0)

    def says(self, words):
        def found():
            return any(words in s.message for each in self.diagnostics for s in each.status)

        return self.world.until(found)


@pytest.fixture
def run():
    world, processes = Surroundings(), []

    def starter(*parameters, kind=TwistStamped, calibrated=True):
        processes.append(start("visual_servo", *parameters, "diagnostics_period:=0.1"))
        node = Running(world, processes[-1], kind)
        if calibrated:
            world.calibrate()
        return node

    yield starter
    world.close()
    for process in processes:
        code, output = stop_node(process)
        assert code == 0 and "Traceback" not in output, output


def test_nothing_is_commanded_until_enabled_and_one_zero_when_disabled(run):
    node = run(calibrated=False)
    node.state(TrackState.TRACKING)
    node.feed(node.pose, 0.5)
    assert node.commands == [] and node.says("disabled")
    node.enable()
    node.feed(node.pose, 0.3)
    assert node.says("no camera_info says that camera_optical is the camera: set base_frame")
    assert node.commands and not node.moves()
    node.world.calibrate()
    # it is far, and on the right
    assert node.drives(node.pose, lambda: node.last[0] > 0 > node.last[1])
    node.feed(node.pose, 0.3)
    assert node.says("following")
    assert node.frames == {"base_link"}
    node.enable(False)
    node.feed(node.pose, 0.2)
    last = len(node.commands)
    assert node.commands[-1][1:] == ZERO
    node.feed(node.pose, 0.3)
    assert len(node.commands) == last  # another node may drive


def test_speed_and_acceleration_keep_their_limits(run):
    node = run("max_speed:=0.4", "max_acceleration:=0.5", "max_turn:=0.6", "enabled:=true")
    node.state(TrackState.TRACKING)
    node.feed(lambda: node.pose(x=3.0, z=8.0), 2.5)
    forward = np.array([each[1] for each in node.commands])
    turn = np.array([each[2] for each in node.commands])
    assert 0.2 < forward.max() <= 0.4 and turn.min() == pytest.approx(-0.6)
    # of the time between two commands the node knows more than this test: half a period of slack
    assert np.abs(np.diff(forward)).max() <= 0.5 * 0.2 and np.abs(np.diff(forward)).mean() < 0.025


class TestOneNode:
    """What must stop a robot, and what must not reach it, with one node for all."""

    @pytest.fixture(scope="class")
    def shared(self):
        world = Surroundings()
        process = start(
            "visual_servo", "command_timeout:=0.3", "stamp_timeout:=0.5", "diagnostics_period:=0.1"
        )
        running = Running(world, process, TwistStamped)
        world.calibrate()
        yield running
        world.close()
        code, output = stop_node(process)
        assert code == 0 and "Traceback" not in output, output

    @pytest.fixture
    def node(self, shared):
        shared.state(TrackState.TRACKING)
        shared.enable()
        shared.commands.clear()
        shared.diagnostics.clear()
        yield shared
        shared.enable(False)

    def test_a_pose_in_another_frame_than_the_camera_needs_the_base_frame(self, node):
        node.feed(lambda: node.pose(frame="odom"), 0.6)
        assert not node.moves()
        assert node.says("the pose is in odom and not in camera_optical: set base_frame")
        assert node.drives(node.pose)

    def test_lost_is_zero_at_once(self, node):
        node.zero_after(lambda: node.state(TrackState.LOST))
        assert node.says("lost")
        node.feed(node.pose, 0.3)
        assert not node.moves()
        node.state(TrackState.TRACKING)
        # no primary target: it was removed
        node.zero_after(lambda: node.state(TrackState.TRACKING, primary=False))

    def test_another_target_starts_anew(self, node):
        node.zero_after(lambda: node.state(TrackState.TRACKING, target_id="2"))
        assert node.says("no target")  # and not silence
        assert node.drives(node.pose)

    def test_silence_is_zero(self, node):
        node.zero_after(lambda: None)
        assert node.says("silence")

    @pytest.mark.parametrize(("age", "words"), [(0.8, "old stamp"), (-0.5, "future stamp")])
    def test_stamps_of_another_time_are_zero(self, node, age, words):
        node.feed(lambda: node.pose(age=age), 0.6)
        assert node.commands and not node.moves() and node.says(words)
        assert node.drives(node.pose)

    def test_nan_and_infinity_never_leave_the_node(self, node):
        for bad in ({"x": math.nan}, {"z": math.inf}, {"covariance": math.nan}, {"z": 1e300}):
            node.feed(lambda bad=bad: node.pose(**bad), 0.3)  # on_command checks all numbers
        assert node.says("expected finite numbers")
        assert node.drives(node.pose)


def test_a_simulated_clock_that_stands_still_is_zero(run):
    node, seconds = run("enabled:=true", "use_sim_time:=true"), 100.0

    def tick():
        nonlocal seconds
        seconds += 0.1
        node.world.publish("/clock", Clock(clock=header_at(int(seconds * NS)).stamp))
        node.pose(now=int(seconds * NS))

    assert node.drives(tick)
    assert node.stands_after(10.0) and node.says("the simulated clock stands still")
    assert node.drives(tick)


def test_odometry_is_used_and_a_broken_one_told(run):
    """A robot that turns to the left by itself: the target stays where it was."""
    node = run("enabled:=true", "distance:=4.0", "heading_gain:=1.0", "latency_compensation:=true")
    node.state(TrackState.TRACKING)
    yaw = 0.0

    def turned():
        nonlocal yaw
        yaw += 0.02
        message = Odometry(header=header_at(node.world.now(), "odom"))
        message.pose.pose.orientation.z = math.sin(yaw / 2)
        message.pose.pose.orientation.w = math.cos(yaw / 2)
        node.world.publish("odom", message)

    def turns_back():
        """To the right, by 0.24 rad in 0.36 s without a further image."""
        turned()
        node.pose(x=0.0, z=4.0, age=0.0)
        for _ in range(12):
            turned()
            node.world.until(lambda: False, 0.03)
        return min(command[2] for command in node.commands) < -0.05

    assert any(turns_back() for _ in range(8))  # on a busy machine, a pose grows old meanwhile
    broken = Odometry(header=header_at(node.world.now(), "odom"))
    broken.pose.pose.position.x = math.nan
    node.world.publish("odom", broken)
    assert node.says("odometry: a place is [")
    broken.pose.pose.orientation.w = 0.0  # of a driver that leaves it empty
    node.world.publish("odom", broken)
    assert node.says("odometry: quaternion [0.0, 0.0, 0.0, 0.0]: expected a positive")


def test_the_box_gives_direction_and_distance(run):
    place = ("camera_forward:=1.0", "camera_pitch:=0.5")  # which changes no box
    node = run("enabled:=true", "distance_from:=box", "box_height:=0.4", *place)
    node.feed(lambda: node.box((270, 144, 100, 192)), 0.8)  # as high as wanted
    assert not any(forward for _, forward, _ in node.commands)
    # 100 of 480 px: half as large as wanted, so too far
    assert node.drives(node.box, lambda: node.last[0] > 0 > node.last[1])
    cut = 100, 4, 300, 100  # no reason to drive
    assert node.drives(lambda: node.box(cut), lambda: node.last[0] == 0 < node.last[1])
    for bad in (1e-300, 0.0, math.nan, math.inf):
        node.diagnostics.clear()
        node.box((100, 100, 300, bad))
        assert node.says("expected a positive size")
    node.world.calibrate(frame="another_optical")
    node.box()
    assert node.says("following: camera_info of the frame another_optical is used for images")


def test_only_turning_with_plain_twists(run):
    parameters = ("enabled:=true", "distance_from:=none", "command_type:=twist")
    node = run(*parameters, kind=Twist)
    assert node.drives(node.box, lambda: node.last[0] == 0 > node.last[1])
    assert node.frames == set()


def test_a_pan_tilt_unit(run):
    node = run("enabled:=true", "mode:=pan_tilt", "joint_commands:=position")
    box = 500, 300, 60, 60  # below the middle, and on the right
    assert node.drives(lambda: node.box(box), lambda: node.last[0] > 0 > node.last[1])
    assert node.world.until(lambda: node.joints)
    angles = np.array([each.data for each in node.joints])
    assert (np.diff(angles[:, 0]) <= 1e-9).all() and angles[-1, 0] < -0.05 < 0 < angles[-1, 1]


class TestFailures:
    @pytest.fixture
    def fail(self):
        """A node that fails by itself, called with the way in which it shall."""
        world = Surroundings()
        process = start(faulty_servo.__file__, "enabled:=true", "diagnostics_period:=0.1")
        node = Running(world, process, TwistStamped)
        world.calibrate()
        node.state(TrackState.TRACKING)
        assert node.drives(node.pose)

        def how(fault):
            node.commands.clear()
            message = Odometry(header=header_at(world.now(), "odom"))
            message.pose.pose.position.x = fault
            world.publish("odom", message)
            return node

        yield how
        world.close()
        stop_node(process)

    def test_a_handler_that_fails_stops_the_robot_until_the_next_measurement(self, fail):
        node = fail(faulty_servo.HANDLER)
        words = "a message or request failed: KeyError: 'of a handler'"
        assert node.world.until(lambda: words in output_of(node.process))
        assert node.world.until(lambda: ZERO in [each[1:] for each in node.commands])
        assert node.says("no target")
        assert node.drives(node.pose)
        code, output = stop_node(node.process)
        assert code == 0 and "Traceback" not in output

    def test_an_end_by_an_error_is_a_zero_and_one_line(self, fail):
        node = fail(faulty_servo.PROCESS)
        assert node.world.until(lambda: node.process.poll() is not None)
        assert node.process.returncode == 1, output_of(node.process)
        lines = output_of(node.process).splitlines()
        assert "a message or request failed: KeyError: 'of a handler'" in lines[0]
        assert lines[1] == "visual_servo: error: RuntimeError: of the servo"
        assert lines[2:] == ["visual_servo: error: at the end: RuntimeError: of the servo"]
        assert node.world.until(lambda: node.commands) and not node.moves()


def test_the_end_of_the_node_is_a_zero(run):
    node = run("enabled:=true")
    node.state(TrackState.TRACKING)
    assert node.drives(node.pose)
    node.process.terminate()
    assert node.world.until(lambda: not node.moves(), 3.0)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (["mode:=fly"], "'fly': expected drive or pan_tilt"),
        (["max_speed:=-1.0"], "'max_speed' is -1.0: expected 0 to 10"),
        (["max_speed:=.nan"], "'max_speed'"),
        (["control_rate:=1.0"], "'control_rate' is 1.0: expected 10 to 200"),
        (["pan_range:=[1.0, 2.0]"], "'pan_range' is [1.0, 2.0]: expected two angles around 0"),
        (["distance_deadband:=2.0"], "expected less than distance, 1.5"),
    ],
)
def test_wrong_parameters_end_the_node_with_one_line(parameters, words):
    assert_refused("visual_servo", start("visual_servo", *parameters), words)
