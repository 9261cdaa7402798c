"""The ROS 2 node `spmtrack`: translates between messages and the session, which decides.

    ros2 run spmtrack_ros tracker_node --ros-args -r image:=/camera/image_raw -p weights:=nano

One thread spins and receives, the session's worker thread runs the network and publishes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NoReturn

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Vector3Stamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.task import Future as RosFuture
from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

import spmtrack_core
from spmtrack_core.geometry.drawing import GREEN, ORANGE, WHITE, draw_box
from spmtrack_ros.camera import direction
from spmtrack_ros.conversions import (
    Image,
    bbox_to_xywh,
    compressed_to_array,
    fill_bbox,
    fill_compressed,
    fill_detection,
    fill_image,
    fill_stamp,
    image_to_array,
    stamp_to_ns,
)
from spmtrack_ros.diagnostics import Publisher, RateWindow, why_no_image
from spmtrack_ros.msg import TrackState, TrackStateArray
from spmtrack_ros.parameters import TrackerParameters, read_parameters
from spmtrack_ros.program import run_program
from spmtrack_ros.session import Code, FrameReport, InitRequest, Reply, Session, State, Target
from spmtrack_ros.srv import InitTarget, RemoveTarget


class TrackerNode(Node):
    """VideoTracker one target through the images of a topic."""

    def __init__(self) -> None:
        """Load the weights and open all topics.

        Raises ``ValueError`` or ``FileNotFoundError`` for an unusable parameter.
        """
        super().__init__("spmtrack")
        self.parameters = settings = read_parameters(self, TrackerParameters)
        self._tracker = self._load()
        self._weights_threshold = self._tracker.config.lost_threshold
        self._set_threshold()
        self._last_header = Header()
        self._last_report: FrameReport | None = None
        self._camera_info: CameraInfo | None = None
        self._last_seen: tuple[str, State] | None = None
        self._detector_request: Future[Reply] | None = None
        self._rates = RateWindow(time.monotonic())
        compressed = settings.image_transport == "compressed"
        self._decode = compressed_to_array if compressed else image_to_array

        overridable = QoSOverridingOptions.with_default_policies()
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

        def publisher(kind: Any, name: str, qos: QoSProfile) -> Any:
            return self.create_publisher(kind, name, qos, qos_overriding_options=overridable)

        self._detection = publisher(Detection2D, "~/detection", QoSProfile(depth=10))
        self._detections = publisher(Detection2DArray, "~/detections", QoSProfile(depth=10))
        self._status = publisher(TrackStateArray, "~/status", latched)
        self._bearing = publisher(Vector3Stamped, "~/bearing", QoSProfile(depth=10))
        self._debug_images = []
        if settings.debug_image:
            newest = QoSProfile(depth=1)
            self._debug_images = [
                (publisher(ImageMessage, "~/debug_image", newest), ImageMessage, fill_image),
                (
                    publisher(CompressedImage, "~/debug_image/compressed", newest),
                    CompressedImage,
                    fill_compressed,
                ),
            ]

        self.session = Session(
            self._tracker,
            self._decode,
            on_report=self._on_report,
            on_change=self._publish_status,
            on_error=self._on_error,
            buffer_size=settings.frame_buffer,
            enabled=settings.autostart,
        )

        reliability = ReliabilityPolicy[settings.image_reliability.upper()]
        self._images = self.create_subscription(
            CompressedImage if compressed else ImageMessage,
            # Resolved before the suffix is added, so that a remapping of `image` holds for both.
            self.resolve_topic_name("image") + ("/compressed" if compressed else ""),
            self._on_image,
            QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=reliability),
            qos_overriding_options=overridable,
        )
        self.create_subscription(
            CameraInfo,
            "camera_info",
            self._on_camera_info,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            qos_overriding_options=overridable,
        )
        self.create_subscription(
            Detection2D,
            "~/init_detection",
            self._on_init_detection,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            qos_overriding_options=overridable,
        )
        # Calls that wait for the worker are coroutines; images keep arriving meanwhile.
        waiting = ReentrantCallbackGroup()
        self.create_service(
            InitTarget, "~/init_target", self._on_init_target, callback_group=waiting
        )
        self.create_service(RemoveTarget, "~/remove_target", self._on_remove_target)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/enable", self._on_enable)
        if settings.diagnostics_period > 0:
            self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
            # on the steady clock: a simulated clock that stands still is worth a report
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self.create_timer(settings.diagnostics_period, self._on_diagnostics, clock=steady)

        self.add_on_set_parameters_callback(self._on_parameters)
        self._publish_status()
        if settings.has_init_box:
            x, y, w, h = settings.init_box
            request = InitRequest((x, y, w, h), label=settings.label)
            self.session.init(request, float("inf")).add_done_callback(self._log_reply)

    def close(self) -> None:
        """End the worker, after which the node can be destroyed."""
        self.session.close()

    def _load(self) -> Any:
        settings, started = self.parameters, time.perf_counter()
        # Imports PyTorch, which takes seconds: wrong parameters are reported before.
        tracker = spmtrack_core.load_tracker(
            settings.weights, settings.device, precision=settings.precision
        )
        # The first inference allocates memory and selects kernels: better without a target.
        tracker.warm_up()
        loaded = time.perf_counter() - started
        self.get_logger().info(
            f"weights '{settings.weights}' on {tracker.device}, loaded in {loaded:.1f} s"
        )
        return tracker

    def _set_threshold(self) -> None:
        given, own = self.parameters.lost_threshold, self._weights_threshold
        config = replace(self._tracker.config, lost_threshold=given if given >= 0 else own)
        self._tracker.config = config  # an image in progress keeps the old one

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        """Apply live parameters; rclpy rejects the others and values out of range."""
        values = {each.name: each.value for each in changes if hasattr(self.parameters, each.name)}
        try:
            self.parameters = self.parameters.changed(values)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._set_threshold()
        return SetParametersResult(successful=True)

    # Images in

    def _on_image(self, message: Any) -> None:
        self.session.push(stamp_to_ns(message.header.stamp), message)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    # Results out, in the worker thread

    def _on_report(self, report: FrameReport) -> None:
        header, target = report.frame.message.header, report.target
        self._last_header, self._last_report = header, report
        array = Detection2DArray(header=header)
        if target is not None and target.state is State.TRACKING:
            detection = fill_detection(
                Detection2D(),
                ObjectHypothesisWithPose(),
                header,
                target.box_xywh,
                target.id,
                target.label,
                target.score,
            )
            self._detection.publish(detection)
            array.detections = [detection]
            self._publish_bearing(report, target)
        self._detections.publish(array)
        self._publish_status()
        now = self.get_clock().now().nanoseconds
        self._rates.add((now - report.frame.stamp_ns) / 1e9, report.seconds)
        self._log_change(target)
        watched = [each for each in self._debug_images if each[0].get_subscription_count()]
        if watched:
            with contextlib.suppress(ValueError):  # an unreadable image is not drawn
                image = report.image
                if image is None:
                    image = self._decode(report.frame.message)
                drawn = draw_target(image, target)
                for topic, kind, fill in watched:
                    topic.publish(fill(kind(), drawn, header))

    def _publish_bearing(self, report: FrameReport, target: Target) -> None:
        info, image = self._camera_info, report.image
        if info is None or image is None:
            return
        x, y, w, h = target.box_xywh
        center = (x + w / 2, y + h / 2)
        try:
            ray = direction(info, image.shape[:2], center, self.parameters.rectified)
        except ValueError as error:
            self.get_logger().warning(f"no bearing: {error}", throttle_duration_sec=10.0)
            return
        message = Vector3Stamped(header=report.frame.message.header)
        message.vector.x, message.vector.y, message.vector.z = ray
        self._bearing.publish(message)

    def _publish_status(self) -> None:
        """Publish the present state with the header of the newest image.

        The session calls one listener at a time, so the state latched last is the newest.
        """
        target, report = self.session.target, self._last_report
        message = TrackStateArray(header=self._last_header, enabled=self.session.enabled)
        if target is not None:
            state = TrackState(
                header=target.frame.message.header,
                id=target.id,
                label=target.label,
                state=target.state,
            )
            state.score = target.score
            fill_bbox(state.bbox, target.box_xywh)
            message.targets = [state]
            if report is not None:
                message.processing_time, message.message = report.seconds, report.error
        self._status.publish(message)

    def _log_change(self, target: Target | None) -> None:
        before, self._last_seen = self._last_seen, (target.id, target.state) if target else None
        if target is None or before is None or before[0] != target.id or before[1] == target.state:
            return
        change = "lost" if target.state is State.LOST else "found again"
        self.get_logger().info(f"'{target.id}' {change} (score {target.score:.2f})")

    def _on_error(self, text: str) -> None:
        if self.context.ok():  # publishing fails while the process is shutting down
            self.get_logger().error(text, throttle_duration_sec=1.0)

    # Requests

    async def _on_init_target(
        self, request: InitTarget.Request, response: InitTarget.Response
    ) -> InitTarget.Response:
        answer: RosFuture = RosFuture()
        executor = self.executor
        started = self._init(
            request.header, request.bbox, request.id, request.label, request.normalized
        )
        # Set in the worker thread; the task wakes the executor up.
        started.add_done_callback(
            lambda done: executor.create_task(answer.set_result, done.result())
        )
        reply: Reply = await answer
        response.success = reply.code is Code.OK
        response.code, response.message, response.id = reply.code, reply.message, reply.id
        fill_stamp(response.init_stamp, reply.stamp_ns)
        response.score, response.frames_caught_up = reply.score, reply.frames_caught_up
        return response

    def _on_init_detection(self, message: Detection2D) -> None:
        label = message.results[0].hypothesis.class_id if message.results else ""
        # Only the newest waits: a detector may send faster than a busy tracker can start.
        request = self._init(
            message.header, message.bbox, message.id, label, False, self._detector_request
        )
        if not request.done():  # a rejected one has replaced nothing
            self._detector_request = request

    def _init(
        self,
        header: Any,
        bbox: Any,
        target_id: str,
        label: str,
        normalized: bool,
        instead_of: Future[Reply] | None = None,
    ) -> Future[Reply]:
        try:
            box = bbox_to_xywh(bbox)
        except ValueError as error:
            started: Future[Reply] = Future()
            started.set_result(Reply(Code.INVALID_BOX, str(error)))
        else:
            stamp_ns = stamp_to_ns(header.stamp)
            label = label or self.parameters.label
            request = InitRequest(box, stamp_ns, target_id, label, normalized)
            started = self.session.init(request, self.parameters.init_timeout, instead_of)
        started.add_done_callback(self._log_reply)
        return started

    def _log_reply(self, done: Future[Reply]) -> None:
        reply = done.result()
        if reply.code is Code.OK:
            text = f"score {reply.score:.2f}, {reply.frames_caught_up} images caught up"
            text = f"{text}; {reply.message}" if reply.message else text
            self.get_logger().info(f"following '{reply.id}' ({text})")
        elif self.context.ok():
            text = f"no target started: {reply.message}"
            self.get_logger().warning(text, throttle_duration_sec=1.0)

    def _on_remove_target(
        self, request: RemoveTarget.Request, response: RemoveTarget.Response
    ) -> RemoveTarget.Response:
        reply = self.session.remove(request.id)
        response.success = reply.code is Code.OK
        response.code, response.message = reply.code, reply.message
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.session.reset()
        response.success = True
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.session.enable(request.data)
        response.success = True
        return response

    def _on_diagnostics(self) -> None:
        topic, kind = self._images.topic_name, self._images.msg_type
        publishers = [
            Publisher(
                info.node_name,
                info.topic_type,
                info.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
            )
            for info in self.get_publishers_info_by_topic(topic)
        ]
        reliable = self._images.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        expected = f"sensor_msgs/msg/{kind.__name__}"
        session = self.session
        level, text, values = self._rates.report(
            time.monotonic(),
            session.counters,
            session.enabled,
            session.target,
            why_no_image(topic, expected, reliable, publishers),
        )
        status = DiagnosticStatus(level=bytes([level]), message=text)
        status.name = f"{self.get_fully_qualified_name()}: tracker"
        status.hardware_id = str(self._tracker.device)
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def draw_target(image: Image, target: Target | None) -> Image:
    """A copy of the image with the target's box, if visible, and a caption."""
    if target is None:
        return draw_box(image, None, "no target", WHITE)
    tracking = target.state is State.TRACKING
    text = f"{target.id} {target.label} {target.state.name.lower()} {target.score:.2f}"
    return draw_box(
        image, target.box_xywh if tracking else None, text, GREEN if tracking else ORANGE
    )


def work(node: TrackerNode) -> int:
    """Spin until a signal arrives."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    finally:
        node.close()
        executor.shutdown()
    return 0


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until SIGINT or SIGTERM: exit code 0, or 2 for a wrong parameter."""
    code = run_program("spmtrack", TrackerNode, work, args)
    # The node is closed. Unloading PyTorch takes seconds on a busy machine, and `ros2 launch`
    # escalates to SIGTERM after five.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
