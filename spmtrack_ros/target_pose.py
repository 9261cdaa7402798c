"""The ROS 2 node `target_pose`: from the target's box to its position in space.

    ros2 run spmtrack_ros target_pose --ros-args -r detection:=/spmtrack/detection \
        -r camera_info:=/camera/camera_info -r depth:=/camera/depth/image_rect

The mathematics is in ``ranging``; this node knows messages and frames. It loads no PyTorch.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, TwistStamped, Vector3Stamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header, String
from vision_msgs.msg import Detection2D, Detection3D, ObjectHypothesisWithPose
from visualization_msgs.msg import Marker

from spmtrack_ros.camera import direction, frame_problem, image_size
from spmtrack_ros.conversions import bbox_to_xywh, stamp_to_ns
from spmtrack_ros.diagnostics import OK, WARN
from spmtrack_ros.frames import Frames, LateTransform
from spmtrack_ros.kalman import ConstantVelocity
from spmtrack_ros.parameters import read_parameters
from spmtrack_ros.program import run_program, spin
from spmtrack_ros.range_sources import NotYet, RangeSources, Seen, TargetPoseParameters
from spmtrack_ros.ranging import Range, View, position, view_bearing, view_box
from spmtrack_ros.throttle import Throttle
from spmtrack_ros.topics import publish_diagnostics, subscribe

_BEARING_JITTER = 0.1  # of the angle that the target fills
_MAX_GAP = 1.0  # s without a position after which the velocity starts again
_PATIENCE = 0.2  # s; a box that is newer by more ends the wait for depth or TF
_SILENCE = 1.0  # s without a box after which diagnostics call the target not seen
_UNKNOWN_ANGLE = float(np.pi**2 / 3)  # variance of an angle of which nothing is known


class TargetPose(Node):
    """Publishes where the target is, for every image in which it is seen and has a range."""

    def __init__(self) -> None:
        """Raises ``ValueError`` for an unusable parameter."""
        super().__init__("target_pose")
        self.parameters = settings = read_parameters(self, TargetPoseParameters)
        self._waiting: deque[Seen] = deque()  # the oldest first
        self._id = ""
        self._last_box = -(10**18)  # ns
        self._source, self._counts = "", dict.fromkeys(settings.ranges, 0)
        self._problem, self._throttle = "", Throttle(10.0)
        self._filter = ConstantVelocity(3, settings.acceleration, _MAX_GAP)
        self._open_outputs()
        self._open_inputs()

    def _open_outputs(self) -> None:
        overridable = {"qos_overriding_options": QoSOverridingOptions.with_default_policies()}

        def publisher(kind: Any, name: str, qos: QoSProfile) -> Any:
            return self.create_publisher(kind, name, qos, **overridable)

        qos = QoSProfile(depth=10)
        self._pose = publisher(PoseStamped, "~/pose", qos)
        self._with_covariance = publisher(PoseWithCovarianceStamped, "~/pose_with_covariance", qos)
        self._velocity = publisher(TwistStamped, "~/velocity", qos)
        self._detection = publisher(Detection3D, "~/detection3d", qos)
        self._marker = publisher(Marker, "~/marker", QoSProfile(depth=1))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._source_topic = publisher(String, "~/range_source", latched)
        publish_diagnostics(self, "range", self.parameters.diagnostics_period, self._diagnose)

    def _open_inputs(self) -> None:
        self._frames = Frames(self)
        self._sources = RangeSources(self, self.parameters, self._frames, self._retry)
        subscribe(self, CameraInfo, "camera_info", self._on_camera_info)
        if self.parameters.input == "detection":
            subscribe(self, Detection2D, "detection", self._on_detection)
        else:
            subscribe(self, Vector3Stamped, "bearing", self._on_bearing)

    # Messages in

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._sources.camera_info = message

    def _on_detection(self, message: Detection2D) -> None:
        info, settings = self._sources.camera_info, self.parameters

        def view() -> View:
            if info is None:
                raise ValueError("no camera_info has arrived")
            size = image_size(info)
            return view_box(
                lambda point: direction(info, size, point, settings.rectified),
                bbox_to_xywh(message.bbox),
                size,
                settings.box_jitter,
            )

        self._see(message.header, view, message)

    def _on_bearing(self, message: Vector3Stamped) -> None:
        angle, vector = self.parameters.bearing_angle, message.vector
        ray = (vector.x, vector.y, vector.z)
        self._see(message.header, lambda: view_bearing(ray, angle, _BEARING_JITTER * angle), None)

    def _see(
        self, header: Header, make_view: Callable[[], View], detection: Detection2D | None
    ) -> None:
        self._last_box = self.get_clock().now().nanoseconds
        try:
            view = make_view()
            box = None if detection is None else bbox_to_xywh(detection.bbox)
            seen = Seen(header, stamp_to_ns(header.stamp), view, box, detection)
        except ValueError as error:
            self._refuse(str(error))
            return
        self._waiting.append(seen)
        self._retry()

    def _retry(self) -> None:
        """Measure the boxes that wait, in their order, as a box or a sensor's message has come."""
        while self._waiting:
            seen = self._waiting.popleft()
            if not self._measure(seen):
                self._waiting.appendleft(seen)
                return

    def _measure(self, seen: Seen) -> bool:
        """Publish or refuse; False to wait for what may still come."""
        newest = not self._waiting
        last = seen if newest else self._waiting[-1]
        behind = (last.stamp_ns - seen.stamp_ns) / 1e9
        patient = newest or (last.id == seen.id and 0 < behind <= _PATIENCE)
        try:
            source, measured = self._sources.measure(seen, patient)
            # lost meanwhile, or the clock was set
            if last.id != seen.id or not 0 <= behind <= _SILENCE:
                text = f"a box waited until that of target {last.id} came, {behind:.1f} s later"
                raise ValueError(f"{source}: {text}")
            self._publish(seen, source, measured)
            info = self._sources.camera_info
            used = info is not None and (seen.detection is not None or source == "depth")
            self._problem = frame_problem(info, seen.header.frame_id) if used else ""
        except ValueError as error:
            late = patient and isinstance(error, NotYet | LateTransform)
            if late or (newest and self._sources.waits):
                return False
            self._refuse(str(error))
        return True

    # Results out

    def _publish(self, seen: Seen, source: str, measured: Range) -> None:
        settings = self.parameters
        point, covariance = position(seen.view, measured, settings.focal_spread)
        header = copy(seen.header)
        rotation = np.eye(3)
        if settings.output_frame:
            frame, stamp = settings.output_frame, header.stamp
            transform = self._frames.transform(frame, header.frame_id, stamp)
            rotation = transform.rotation
            point, covariance = transform(point), rotation @ covariance @ rotation.T
            header.frame_id = frame
        if not (np.isfinite(point).all() and np.isfinite(covariance).all()):
            raise ValueError("the position is not finite")
        self._counts[source] += 1
        self._tell_source(source)

        pose = PoseStamped(header=header)
        at = pose.pose.position
        at.x, at.y, at.z = point.tolist()
        pose.pose.orientation.w = 1.0
        with_covariance = PoseWithCovarianceStamped(header=header)
        with_covariance.pose.pose = pose.pose
        spread = np.diag(np.full(6, _UNKNOWN_ANGLE))
        spread[:3, :3] = covariance
        with_covariance.pose.covariance = spread.ravel().tolist()
        self._pose.publish(pose)
        self._with_covariance.publish(with_covariance)
        self._publish_velocity(seen, header, point, covariance)

        detection = Detection3D(header=header, id=seen.id)
        for each in seen.detection.results if seen.detection else ():
            result = ObjectHypothesisWithPose(pose=with_covariance.pose)
            result.hypothesis = each.hypothesis
            detection.results.append(result)
        detection.bbox.center = pose.pose
        width, height = seen.view.size(measured.distance)
        size = np.abs(rotation) @ (width, height, width)
        detection.bbox.size.x, detection.bbox.size.y, detection.bbox.size.z = size.tolist()
        self._detection.publish(detection)
        if self._marker.get_subscription_count():
            self._publish_marker(detection)
        if settings.publish_tf:
            try:
                self._frames.publish(header, settings.tf_frame, point)
            except ValueError as error:
                self._warn(str(error))

    def _publish_velocity(
        self, seen: Seen, header: Header, point: np.ndarray, covariance: np.ndarray
    ) -> None:
        if seen.id != self._id:
            self._id = seen.id
            self._filter.reset()
        time = seen.stamp_ns / 1e9
        self._filter.update(time, point, covariance)
        state, _ = self._filter.predict(time)
        message = TwistStamped(header=header)
        linear = message.twist.linear
        linear.x, linear.y, linear.z = state[3:].tolist()
        self._velocity.publish(message)

    def _publish_marker(self, detection: Detection3D) -> None:
        marker = Marker(header=detection.header, ns="target", type=Marker.CUBE)
        marker.pose, marker.scale = detection.bbox.center, detection.bbox.size
        marker.color.g, marker.color.a = 1.0, 0.5
        marker.lifetime.sec = 1
        self._marker.publish(marker)

    def _refuse(self, problem: str) -> None:
        self._problem = problem
        self._tell_source("none")
        self._warn(f"no range: {problem}")

    def _warn(self, problem: str) -> None:
        if self._throttle.is_due(problem):
            self.get_logger().warning(problem)

    def _tell_source(self, source: str) -> None:
        if source != self._source:
            self._source = source
            self._source_topic.publish(String(data=source))

    def _diagnose(self) -> tuple[int, str, dict[str, str]]:
        """Level, message and values for /diagnostics."""
        now = self.get_clock().now().nanoseconds
        level = OK
        text = "no range" if self._source in ("", "none") else f"range by {self._source}"
        if not 0 <= now - self._last_box <= _SILENCE * 1e9:
            text = "no target is seen"
        elif self._problem:
            level, text = WARN, f"{text}: {self._problem}"
        counts = {f"ranges by {source}": str(count) for source, count in self._counts.items()}
        return level, text, counts


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM: exit code 0, or 2 for a wrong parameter."""
    return run_program("target_pose", TargetPose, spin, args)


if __name__ == "__main__":
    sys.exit(main())
