"""The ROS 2 node `spmtrack`: translates between messages and the session, which decides.

    ros2 run spmtrack_ros tracker_node --ros-args -r image:=/camera/image_raw -p weights:=nano

One thread spins and receives, the session's worker thread runs the network and publishes.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import Any, NoReturn

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from vision_msgs.msg import Detection2D, Detection2DArray

import spmtrack_core
from spmtrack_ros.conversions import stamp_to_ns
from spmtrack_ros.diagnostics import Publisher, RateWindow, why_no_image
from spmtrack_ros.frame_buffer import FrameBuffer
from spmtrack_ros.images import compressed_to_array, image_to_array
from spmtrack_ros.listeners import Listeners
from spmtrack_ros.outputs import Outputs
from spmtrack_ros.parameters import TrackerParameters, read_parameters
from spmtrack_ros.program import run_program
from spmtrack_ros.services import Services
from spmtrack_ros.session import Session
from spmtrack_ros.snapshot import FrameReport

_OVERRIDABLE = QoSOverridingOptions.with_default_policies()


class TrackerNode(Node):
    """Follows the targets of clients through the images of a topic."""

    def __init__(self) -> None:
        """Load the weights and open all topics.

        Raises ``ValueError`` or ``FileNotFoundError`` for an unusable parameter.
        """
        super().__init__("spmtrack")
        self.parameters = read_parameters(self, TrackerParameters)
        self._load()
        self._open_outputs()
        self._open_services()
        self._open_inputs()
        self.add_on_set_parameters_callback(self._on_parameters)
        self._on_change()

    def close(self) -> None:
        """End the session, after which the node can be destroyed."""
        self.session.close()

    # The steps of the constructor

    def _load(self) -> None:
        settings, started = self.parameters, time.perf_counter()
        # Imports PyTorch, which takes seconds: wrong parameters are reported before.
        self._tracker = spmtrack_core.load_tracker(
            settings.weights, settings.device, precision=settings.precision
        )
        # The first inference allocates memory and selects kernels: better without a target.
        self._tracker.warm_up()
        loaded = time.perf_counter() - started
        self.get_logger().info(
            f"weights '{settings.weights}' on {self._tracker.device}, loaded in {loaded:.1f} s"
        )
        self._weights_threshold = self._tracker.config.lost_threshold
        self._set_threshold()
        compressed = settings.image_transport == "compressed"
        self._decode = compressed_to_array if compressed else image_to_array
        self.session = Session(
            self._tracker,
            self._decode,
            Listeners(self._on_report, self._on_change, self._on_error, self.get_logger().warning),
            buffer=FrameBuffer(settings.frame_buffer, 1e6 * settings.frame_buffer_mb),
            limits=settings.limits,
            enabled=settings.autostart,
        )
        self._rates = RateWindow(time.monotonic(), settings.processing_timeout)

    def _open_outputs(self) -> None:
        settings = self.parameters
        self._outputs = Outputs(self, self._decode, settings.debug_image, settings.rectified)
        if settings.diagnostics_period > 0:
            self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
            # on the steady clock: a simulated clock that stands still is worth a report
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self.create_timer(settings.diagnostics_period, self._on_diagnostics, clock=steady)

    def _open_services(self) -> None:
        self._offered = Services(self, self.session, lambda: self.parameters)
        self._offered.start_init_box()

    def _open_inputs(self) -> None:
        def subscribe(kind: Any, name: str, callback: Any, reliability: Any = None) -> Any:
            reliability = reliability or ReliabilityPolicy.BEST_EFFORT
            qos = QoSProfile(depth=1, reliability=reliability)
            options = {"qos_overriding_options": _OVERRIDABLE}
            return self.create_subscription(kind, name, callback, qos, **options)

        compressed = self.parameters.image_transport == "compressed"
        # Resolved before the suffix is added, so that a remapping of `image` holds for both.
        topic = self.resolve_topic_name("image") + ("/compressed" if compressed else "")
        reliability = ReliabilityPolicy[self.parameters.image_reliability.upper()]
        kind = CompressedImage if compressed else ImageMessage
        self._images = subscribe(kind, topic, self._on_image, reliability)
        subscribe(CameraInfo, "camera_info", self._on_camera_info)
        subscribe(Detection2D, "~/init_detection", self._offered.init_from_detection)
        subscribe(Detection2DArray, "~/init_detections", self._offered.init_from_detections)

    # Parameters

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
        self.session.limits = self.parameters.limits
        return SetParametersResult(successful=True)

    # Images in

    def _on_image(self, message: Any) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        self.session.push(stamp_ns, message, message.header.frame_id, len(message.data))

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._outputs.camera_info = message

    # Results out, mostly in the worker thread

    def _on_report(self, report: FrameReport) -> None:
        self._outputs.publish_report(report, self.session.snapshot())
        age = (self.get_clock().now().nanoseconds - report.frame.stamp_ns) / 1e9
        self._rates.add(latency=age, processing=report.seconds)

    def _on_change(self) -> None:
        self._outputs.publish_status(self.session.snapshot())

    def _on_error(self, text: str) -> None:
        if self.context.ok():  # publishing fails while the process is shutting down
            self.get_logger().error(text, throttle_duration_sec=1.0)

    def _on_diagnostics(self) -> None:
        subscription = self._images
        publishers = [
            Publisher(
                info.node_name,
                info.topic_type,
                info.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
            )
            for info in self.get_publishers_info_by_topic(subscription.topic_name)
        ]
        hint = why_no_image(
            subscription.topic_name,
            f"sensor_msgs/msg/{subscription.msg_type.__name__}",
            subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
            publishers,
        )
        level, text, values = self._rates.report(self.session.snapshot(), hint)
        status = DiagnosticStatus(level=bytes([level]), message=text)
        status.name = f"{self.get_fully_qualified_name()}: tracker"
        status.hardware_id = str(self._tracker.device)
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


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
