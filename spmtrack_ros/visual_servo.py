"""The ROS 2 node `visual_servo`: keeps a target in the middle of the image and at a distance.

    ros2 run spmtrack_ros visual_servo --ros-args -r detection:=/spmtrack/detection \
        -r status:=/spmtrack/status -r pose:=/target_pose/pose_with_covariance \
        -r camera_info:=/camera/camera_info

It commands nothing until ~/enable is called. The mathematics is in ``servo``.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2D

from spmtrack_ros.camera import direction, frame_problem, image_size
from spmtrack_ros.conversions import bbox_to_xywh, stamp_to_ns
from spmtrack_ros.diagnostics import OK, WARN
from spmtrack_ros.frames import Frames, Transform, quaternion_to_matrix
from spmtrack_ros.msg import TrackState, TrackStateArray
from spmtrack_ros.parameters import read_parameters
from spmtrack_ros.program import run_program, spin
from spmtrack_ros.servo import DriveServo, PanTiltServo, Watchdog
from spmtrack_ros.servo_parameters import VisualServoParameters
from spmtrack_ros.topics import STEADY, publish_diagnostics, subscribe

_JITTER = 0.01  # rad, standard deviation of a bearing
_BOX_SPREAD = 0.05  # relative standard deviation of a distance by the size of the box
_NO_DISTANCE = 2.0  # m, stands for a distance where only the direction counts
_BORDER = 8.0  # px; the box of a cut target may end before the border of the image
_MIN_SIDE = 1e-3  # px; the distance to a smaller box would not be a number
_CLOCK_TIMEOUT = 2.0  # s by the steady clock; some simulators wait for the nodes for so long


class VisualServo(Node):
    """Sends velocities at a steady rate while it is enabled."""

    def __init__(self) -> None:
        """Raises ``ValueError`` for an unusable parameter."""
        super().__init__("visual_servo")
        self.parameters = settings = read_parameters(self, VisualServoParameters)
        self._pan_tilt = PanTiltServo(settings.pan_tilt) if settings.mode == "pan_tilt" else None
        self._drive = DriveServo(settings.drive)
        self._watchdog = Watchdog(settings.command_timeout, settings.stamp_timeout)
        self._watchdog.enabled = settings.enabled
        self._camera_info: CameraInfo | None = None
        self._target = ""  # id of the primary target
        self._reason = "disabled"
        self._problem = ""
        self._open_outputs()
        self._open_inputs()
        self.create_service(SetBool, "~/enable", self._on_enable)

    def close(self) -> None:
        """Stop the robot, before the node is destroyed."""
        if self._watchdog.enabled:
            self._watchdog.enabled = False
            time.sleep(1 / self.parameters.control_rate)  # for a command on its way
            self._publish_zero()

    def stop(self) -> None:
        """Stop the robot until the next measurement."""
        self._reset()
        if self._watchdog.enabled:
            self._publish_zero()

    def _open_outputs(self) -> None:
        settings = self.parameters
        overridable = {"qos_overriding_options": QoSOverridingOptions.with_default_policies()}
        stamped = settings.mode == "pan_tilt" or settings.command_type == "twist_stamped"
        kind = TwistStamped if stamped else Twist
        self._commands = self.create_publisher(kind, "~/cmd_vel", 10, **overridable)
        if settings.mode == "pan_tilt":
            self._joint_commands = self.create_publisher(
                Float64MultiArray, "~/joint_commands", 10, **overridable
            )
        # A clock that is set back would stop a timer that follows it, and with it the watchdog.
        simulated = self.get_parameter("use_sim_time").value
        clock = self.get_clock() if simulated else STEADY
        self.create_timer(1 / settings.control_rate, self._on_timer, clock=clock)
        self._clock_at, self._clock_moved = 0, time.monotonic()
        self.create_timer(_CLOCK_TIMEOUT / 10, self._check_clock, clock=STEADY)
        publish_diagnostics(self, "servo", settings.diagnostics_period, self._diagnose)

    def _open_inputs(self) -> None:
        settings = self.parameters
        self._frames = Frames(self)
        if settings.mode == "drive" and settings.distance_from == "pose":
            subscribe(self, PoseWithCovarianceStamped, "pose", self._on_pose)
        else:
            subscribe(self, Detection2D, "detection", self._on_detection)
        subscribe(self, CameraInfo, "camera_info", self._on_camera_info)
        if settings.mode == "drive":
            subscribe(self, Odometry, "odom", self._on_odometry)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(TrackStateArray, "status", self._on_status, latched)

    # Messages in

    def _on_enable(self, request: Any, response: Any) -> Any:
        if request.data != self._watchdog.enabled:
            self._reset()
            self._watchdog.enabled = request.data
            if not request.data:
                self._publish_zero()
        response.success = True
        response.message = "enabled" if request.data else "disabled"
        self.get_logger().info(response.message)
        return response

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _on_status(self, message: TrackStateArray) -> None:
        primary = next((each for each in message.targets if each.primary), None)
        lost = primary is None or primary.state == TrackState.LOST or not message.enabled
        target = "" if primary is None else primary.id
        if target != self._target or (lost and not self._watchdog.lost):
            self._reset()
        self._target, self._watchdog.lost = target, lost
        if lost and self._watchdog.enabled:
            self._publish_zero()  # without waiting for the timer

    def _on_odometry(self, message: Odometry) -> None:
        at, turn = message.pose.pose.position, message.pose.pose.orientation
        try:
            ahead = quaternion_to_matrix(turn.x, turn.y, turn.z, turn.w)[:, 0]
            yaw = math.atan2(ahead[1], ahead[0])
            self._drive.odometry(stamp_to_ns(message.header.stamp) / 1e9, at.x, at.y, yaw)
        except ValueError as error:
            self._problem = f"odometry: {error}"

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        info, frame = self._camera_info, message.header.frame_id
        if not self.parameters.base_frame:
            if info is None:
                self._problem = f"no camera_info says that {frame} is the camera: set base_frame"
                return
            camera = info.header.frame_id.lstrip("/")
            if camera not in ("", frame.lstrip("/")):
                self._problem = f"the pose is in {frame} and not in {camera}: set base_frame"
                return
        at = message.pose.pose.position
        covariance = np.reshape(message.pose.covariance, (6, 6))[:3, :3]
        self._observe(message.header, np.array((at.x, at.y, at.z)), covariance)

    def _on_detection(self, message: Detection2D) -> None:
        info = self._camera_info
        if info is None:
            self._problem = "no camera_info has arrived"
            return
        try:
            x, y, w, h = bbox_to_xywh(message.bbox)
            if not (math.isfinite(h) and min(w, h) > _MIN_SIDE):
                raise ValueError(f"box is {[x, y, w, h]}: expected a positive size")
            size = image_size(info)
            center = (x + w / 2, y + h / 2)
            ray = np.array(direction(info, size, center, self.parameters.rectified))
        except ValueError as error:
            self._problem = str(error)
            return
        problem = frame_problem(info, message.header.frame_id)
        if self._pan_tilt is not None:
            self._observe(message.header, ray, np.eye(3), problem=problem)
            return
        settings, away = self.parameters, _NO_DISTANCE
        if settings.distance_from == "box":
            away = settings.distance * settings.box_height * size[0] / h
        cut = y < _BORDER or y + h > size[0] - _BORDER  # a cut box makes the target look far away
        across = (_JITTER * away) ** 2 * (np.eye(3) - np.outer(ray, ray))
        along = (_BOX_SPREAD * away) ** 2 * np.outer(ray, ray)
        self._observe(message.header, away * ray, across + along, not cut, problem)

    def _observe(
        self,
        header: Any,
        point: np.ndarray,
        covariance: np.ndarray,
        approach: bool = True,
        problem: str = "",
    ) -> None:
        """The target is at ``point`` (3,) in the frame of ``header``; warn of ``problem``."""
        stamp = stamp_to_ns(header.stamp) / 1e9
        now = self.get_clock().now().nanoseconds / 1e9
        try:
            if self._pan_tilt is not None:
                self._pan_tilt.observe(stamp, now, point, _JITTER)
            else:
                to_base = self._to_base(header)
                rotation = to_base.rotation[:2]
                if self.parameters.distance_from == "pose":
                    place = to_base(point)[:2]
                else:  # without a range, the distance is that to the camera, along the ground
                    place = rotation @ point
                    place *= np.linalg.norm(point) / max(math.hypot(*place), 1e-6)
                own = (self.parameters.motion_spread * np.linalg.norm(place)) ** 2 * np.eye(2)
                spread = rotation @ covariance @ rotation.T + own
                self._drive.observe(stamp, now, place, spread, approach)
        except ValueError as error:
            self._problem = str(error)
            return
        self._problem = problem
        self._watchdog.feed(stamp, now)

    def _to_base(self, header: Any) -> Transform:
        """From the frame of a header to that of the drive."""
        settings = self.parameters
        if settings.base_frame:
            return self._frames.transform(settings.base_frame, header.frame_id, header.stamp)
        c, s = math.cos(settings.camera_pitch), math.sin(settings.camera_pitch)
        rotation = np.array(((0.0, -s, c), (-1.0, 0.0, 0.0), (0.0, -c, -s)))
        return Transform(rotation, np.array((settings.camera_forward, 0.0, 0.0)))

    # Commands out

    def _reset(self) -> None:
        self._watchdog.starve()
        self._drive.reset()
        if self._pan_tilt is not None:
            self._pan_tilt.reset()

    def _on_timer(self) -> None:
        now = self.get_clock().now().nanoseconds / 1e9
        self._reason = self._watchdog.reason(now)
        if self._reason == "disabled":
            return  # another node may drive now
        servo = self._drive if self._pan_tilt is None else self._pan_tilt
        self._publish(*(servo.stop(now) if self._reason else servo.step(now)))

    def _check_clock(self) -> None:
        """Stop the robot when the simulated clock stands still, and with it the watchdog."""
        clock, now = self.get_clock().now().nanoseconds, time.monotonic()
        if clock != self._clock_at:
            self._clock_at, self._clock_moved = clock, now
        elif self._watchdog.enabled and now - self._clock_moved > _CLOCK_TIMEOUT:
            self._reason = "the simulated clock stands still"
            self.stop()

    def _publish_zero(self) -> None:
        now = self.get_clock().now().nanoseconds / 1e9
        servo = self._drive if self._pan_tilt is None else self._pan_tilt
        try:
            servo.stop(now)
        finally:  # whatever is wrong with the servo
            self._publish(0.0, 0.0)

    def _publish(self, first: float, second: float) -> None:
        """Velocities: forward and turn of a drive, or pan and tilt."""
        if not (math.isfinite(first) and math.isfinite(second)):
            first = second = 0.0
        twist = Twist()
        if self._pan_tilt is None:
            twist.linear.x, twist.angular.z = first, second
        else:
            twist.angular.z, twist.angular.y = first, second
            angles = self._pan_tilt.angles
            wanted = angles if self.parameters.joint_commands == "position" else (first, second)
            if all(map(math.isfinite, wanted)):
                self._joint_commands.publish(Float64MultiArray(data=[*wanted]))
        if self._commands.msg_type is Twist:
            self._commands.publish(twist)
            return
        message = TwistStamped(twist=twist)
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = self.parameters.command_frame
        self._commands.publish(message)

    def _diagnose(self) -> tuple[int, str, dict[str, str]]:
        """Level, message and values for /diagnostics."""
        level, text = OK, self._reason or "following"
        if self._watchdog.enabled and self._problem:
            level, text = WARN, f"{text}: {self._problem}"
        elif self._reason not in ("", "disabled", "lost", "no target"):
            level = WARN
        return level, text, {"enabled": str(self._watchdog.enabled).lower()}


def work(node: VisualServo) -> int:
    """Spin until a signal arrives; the robot stops after a failure."""
    return spin(node, VisualServo.stop)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM: exit code 0, or 2 for a wrong parameter."""
    return run_program("visual_servo", VisualServo, work, args, VisualServo.close)


if __name__ == "__main__":
    sys.exit(main())
