"""The simulated robot as ROS 2 sees it: clock, camera, depth camera and motors.

Time is simulated and waits for the nodes: after each image until the tracker and the pose have
answered, and in each period of control until the command has come. So a busy machine changes
nothing but the duration of the run. What a robot would wait for is given as ``latency``: each
image is published that long after its stamp.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray

from scenarios import Scenario
from spmtrack_ros.conversions import bbox_to_xywh, fill_bbox, fill_image, fill_stamp, stamp_to_ns
from spmtrack_ros.msg import TrackState, TrackStateArray
from spmtrack_ros.srv import InitTarget
from world import CAMERA_FORWARD, CAMERA_PITCH, FOCAL, SIZE_WH, Truth, World

TICK = 0.01  # s between messages on /clock
CONTROL = 0.05  # s between commands
ODOMETRY = 2  # ticks between its messages
START = 1.0  # s of simulated time at the beginning: a clock at 0 counts as not set
FRAME = "camera_optical"
_PATIENCE = 20.0  # s of real time for an answer of the tracker
_SHORT = 0.5  # s of real time for what need not come
_STATES = {
    TrackState.TRACKING: "tracking",
    TrackState.UNCERTAIN: "uncertain",
    TrackState.LOST: "lost",
}


@dataclass(frozen=True)
class Row:
    """One image and what became of it."""

    time: float
    """s since the start of the run, of the image's stamp."""
    image: np.ndarray
    truth: Truth
    state: str
    """tracking, uncertain, lost or waiting"""
    id: str
    box_xywh: tuple[float, float, float, float] | None
    processing: float
    """s of real time that the tracker took."""
    position_error: float
    """m along the ground between the published and the true position; NaN without one."""
    normalized_error: float
    """Square of that error by the published covariance: 2 on average if that is honest."""


@dataclass(frozen=True)
class Sample:
    """The robot at one tick."""

    time: float
    truth: Truth
    forward: float
    turn: float
    state: str


class Simulator(Node):
    """Publishes what the sensors see, and drives as commanded."""

    def __init__(
        self, world: World, scenario: Scenario, rate: float, latency: float, odometry: bool
    ) -> None:
        """``rate`` in images per s, ``latency`` in s from an image's stamp to its publication."""
        super().__init__("simulator")
        self.rows: list[Row] = []
        self.samples: list[Sample] = []
        self.lost_to_zero: list[float] = []
        """s of simulated time from each LOST to the zero command."""
        self.missed_commands = 0
        self._world, self._scenario, self._latency = world, scenario, latency
        self._ticks_per_image = round(1 / rate / TICK)
        self._tick = 0
        self._pending: deque[tuple[int, Any, Any, np.ndarray, Truth]] = deque()
        self._detections: dict[int, Any] = {}
        self._status: dict[int, Any] = {}
        self._poses: dict[int, Any] = {}
        self._state, self._id = "waiting", ""
        self._lost_since: float | None = None
        self._command, self._command_time = (0.0, 0.0), 0.0
        self._clock_topic = self.create_publisher(Clock, "/clock", 10)
        self._image = self.create_publisher(Image, "image", 10)
        self._depth = self.create_publisher(Image, "depth", 10)
        self._info = self.create_publisher(CameraInfo, "camera_info", 10)
        self._odometry = self.create_publisher(Odometry, "odom", 10) if odometry else None
        hear = self.create_subscription
        hear(Detection2DArray, "spmtrack/detections", self._on_detections, 100)
        hear(TrackStateArray, "spmtrack/status", self._on_status, 100)
        hear(PoseWithCovarianceStamped, "target_pose/pose_with_covariance", self._on_pose, 100)
        hear(TwistStamped, "visual_servo/cmd_vel", self._on_command, 100)
        self._init = self.create_client(InitTarget, "spmtrack/init_target")
        self._enable = self.create_client(SetBool, "visual_servo/enable")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    # Waiting, in real time

    def wait(self, done: Callable[[], Any], seconds: float) -> bool:
        """Spin until something is done; false after ``seconds`` of real time."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def connect(self, check: Callable[[], None], depth: bool, seconds: float) -> None:
        """Wait for the three nodes, which hear depth images if ``depth``.

        ``check`` raises if one of them has ended. Raises ``RuntimeError`` if they do not start in
        time.
        """

        def ready() -> bool:
            check()
            self._publish_clock()
            return (
                self._image.get_subscription_count() > 0
                and self._depth.get_subscription_count() >= depth
                and self._info.get_subscription_count() >= 2
                and self._init.service_is_ready()
                and self._enable.service_is_ready()
                and bool(self.count_publishers("spmtrack/detections"))
                and bool(self.count_publishers("target_pose/pose_with_covariance"))
            )

        if not self.wait(ready, seconds):
            raise RuntimeError(f"the nodes did not start within {seconds:g} s")
        self.wait(lambda: False, 1.0)  # the other side discovers as well

    # The run

    def run(self, check: Callable[[], None], progress: Callable[[float], None]) -> None:
        """The whole scenario; ``progress`` is told the time in s.

        Raises ``RuntimeError`` if the target is rejected or the tracker does not answer.
        """
        while self.time < self._scenario.seconds:
            self._scenario.apply(self._world, self.time)
            if self._tick % self._ticks_per_image == 0:
                self._take_image()
            self._release_images()
            if self._tick % round(CONTROL / TICK) == 0:
                self._wait_for_command()
                check()
                progress(self.time)
            self._world.step(TICK, *self._command)
            self._tick += 1
            self._publish_clock()
            if self._odometry is not None and self._tick % ODOMETRY == 0:
                self._publish_odometry(self._odometry)
            self._executor.spin_once(timeout_sec=0.001)
            truth = self._world.truth()
            self.samples.append(Sample(self.time, truth, *self._command, self._state))

    @property
    def time(self) -> float:
        """s since the start of the run."""
        return self._tick * TICK

    @property
    def _now_ns(self) -> int:
        return round((START + self.time) * 1e9)

    def _publish_clock(self) -> None:
        message = Clock()
        fill_stamp(message.clock, self._now_ns)
        self._clock_topic.publish(message)

    def _publish_odometry(self, topic: Any) -> None:
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id = "odom"
        fill_stamp(message.header.stamp, self._now_ns)
        x, y, yaw = self._world.odometry().tolist()
        at, turn = message.pose.pose.position, message.pose.pose.orientation
        at.x, at.y, turn.z, turn.w = x, y, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))
        topic.publish(message)

    def _take_image(self) -> None:
        header = Header(frame_id=FRAME)
        fill_stamp(header.stamp, self._now_ns)
        image, depth = self._world.image(), self._world.depth()
        message = Image(header=header, height=depth.shape[0], width=depth.shape[1])
        message.encoding, message.step = "32FC1", 4 * depth.shape[1]
        message.data = depth.tobytes()
        frame = fill_image(Image(), image, header)
        self._pending.append((self._now_ns, frame, message, image, self._world.truth()))

    def _release_images(self) -> None:
        while self._pending and self._pending[0][0] + round(self._latency * 1e9) <= self._now_ns:
            stamp, frame, depth, image, truth = self._pending.popleft()
            self._info.publish(_camera_info(frame.header))
            self._depth.publish(depth)
            self._image.publish(frame)
            if not self._id:
                self._start(frame.header, truth)
            self._wait_for_answer(stamp)
            self._keep(stamp, image, truth)

    def _wait_for_answer(self, stamp: int) -> None:
        def answered() -> bool:
            return stamp in self._detections and stamp in self._status

        if not self.wait(answered, _PATIENCE):
            raise RuntimeError(f"the tracker did not answer within {_PATIENCE:g} s")
        if self._detections[stamp].detections:
            self.wait(lambda: stamp in self._poses, _SHORT)

    def _start(self, header: Header, truth: Truth) -> None:
        """Give the target to the tracker and switch the servo on."""
        request = InitTarget.Request(header=header, label="person")
        fill_bbox(request.bbox, truth.box_xywh)
        reply = self._init.call_async(request)
        if not self.wait(reply.done, _PATIENCE) or not reply.result().success:
            text = reply.result().message if reply.done() else "no answer"
            raise RuntimeError(f"the tracker rejected the target: {text}")
        self._id = reply.result().id
        enabled = self._enable.call_async(SetBool.Request(data=True))
        if not self.wait(enabled.done, _PATIENCE):
            raise RuntimeError("visual_servo did not answer ~/enable")

    def _wait_for_command(self) -> None:
        """In every period of control there is one command, once the servo is on."""
        if self.time < 1.0 or not self._id:
            return
        due = START + self.time - CONTROL - TICK / 2
        if not self.wait(lambda: self._command_time > due, _SHORT):
            self.missed_commands += 1

    def _keep(self, stamp: int, image: np.ndarray, truth: Truth) -> None:
        status, detections = self._status.pop(stamp), self._detections.pop(stamp).detections
        box = bbox_to_xywh(detections[0].bbox) if detections else None
        found = detections[0].id if detections else ""
        error, normalized = _error(self._poses.pop(stamp, None), truth)
        seconds = (stamp / 1e9) - START
        state = self._state
        self.rows.append(
            Row(
                seconds, image, truth, state, found, box, status.processing_time, error, normalized
            )
        )

    # Messages in

    def _on_detections(self, message: Detection2DArray) -> None:
        self._detections[stamp_to_ns(message.header.stamp)] = message

    def _on_status(self, message: TrackStateArray) -> None:
        self._status[stamp_to_ns(message.header.stamp)] = message
        if not message.targets:
            return
        state = _STATES[message.targets[0].state]
        if state == "lost" and self._state != "lost":
            self._lost_since = self.time
        self._state = state

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        self._poses[stamp_to_ns(message.header.stamp)] = message

    def _on_command(self, message: TwistStamped) -> None:
        self._command = (message.twist.linear.x, message.twist.angular.z)
        self._command_time = stamp_to_ns(message.header.stamp) / 1e9
        if self._lost_since is not None and self._command == (0.0, 0.0):
            self.lost_to_zero.append(self.time - self._lost_since)
            self._lost_since = None


def _error(pose: Any, truth: Truth) -> tuple[float, float]:
    """Of a ``PoseWithCovarianceStamped`` in the camera's frame: in m, and normalized."""
    if pose is None:
        return np.nan, np.nan
    at = pose.pose.pose.position
    c, s = np.cos(CAMERA_PITCH), np.sin(CAMERA_PITCH)
    to_ground = np.array(((0.0, -s, c), (-1.0, 0.0, 0.0)))
    place = to_ground @ (at.x, at.y, at.z) + (CAMERA_FORWARD, 0.0)
    true = truth.distance * np.array((np.cos(truth.heading), np.sin(truth.heading)))
    spread = to_ground @ np.reshape(pose.pose.covariance, (6, 6))[:3, :3] @ to_ground.T
    error = place - true
    return float(np.hypot(*error)), float(error @ np.linalg.solve(spread, error))


def _camera_info(header: Header) -> CameraInfo:
    width, height = SIZE_WH
    info = CameraInfo(header=header, width=width, height=height, distortion_model="plumb_bob")
    x, y, f = (width - 1) / 2, (height - 1) / 2, float(FOCAL)
    info.k = [f, 0.0, x, 0.0, f, y, 0.0, 0.0, 1.0]
    info.p = [f, 0.0, x, 0.0, 0.0, f, y, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info
