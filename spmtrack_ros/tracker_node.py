"""The ROS 2 node `spmtrack`: translates between messages and the session, which decides.

    ros2 run spmtrack_ros tracker_node --ros-args -r image:=/camera/image_raw -p weights:=nano

One thread spins and receives, the session's worker thread runs the network and publishes.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from geometry_msgs.msg import Point, PointStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo
from vision_msgs.msg import Detection2D, Detection2DArray

import spmtrack_core
from spmtrack_core.session.frame_buffer import FrameBuffer
from spmtrack_core.session.image_step import ImageStep
from spmtrack_core.session.listeners import Listeners
from spmtrack_core.session.session import Session
from spmtrack_core.session.snapshot import FrameReport
from spmtrack_ros.conversions import stamp_to_ns
from spmtrack_ros.diagnostics import OK, RateWindow
from spmtrack_ros.image_topic import ImageTopic, image_codec
from spmtrack_ros.outputs import Outputs
from spmtrack_ros.parameters import TrackerParameters, read_parameters
from spmtrack_ros.program import run_program, spin
from spmtrack_ros.services import Services
from spmtrack_ros.throttle import Throttle
from spmtrack_ros.topics import publish_diagnostics, subscribe

# After each image the executor looks through all entities, for a millisecond. With Python's 5 ms
# the worker, which has the image by then, would wait for the end of it.
_SWITCH_INTERVAL = 1e-4  # s
_LAST_ANSWERS = 0.4  # s for the executor to answer calls that wait at the end


class TrackerNode(LifecycleNode):
    """Follows the targets of clients through the images of a topic.

    A managed node: configure loads the weights, activate subscribes to the images, deactivate
    keeps the weights, cleanup frees them.
    """

    def __init__(self) -> None:
        """Read the parameters and, unless `lifecycle_autostart` is false, configure and activate.

        Raises ``ValueError`` or ``FileNotFoundError`` for an unusable parameter.
        """
        super().__init__("spmtrack")
        self.parameters = read_parameters(self, TrackerParameters)
        self.session: Session | None = None
        self.active = False
        self._tracker: Any = None
        self._inputs: list[Any] = []
        self._opened: list[Callable[[], None]] = []  # undo what configure has done
        self._outputs: Any = None
        self._offered: Any = None
        self.add_on_set_parameters_callback(self._on_parameters)
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self._faults = Throttle(1.0)
        self._failure: Exception | None = None
        self._starting = self.parameters.lifecycle_autostart
        if self._starting:
            for step in (self.trigger_configure, self.trigger_activate):
                step()
                if self._failure is not None:
                    raise self._failure
        self._starting = False

    def close(self) -> None:
        """Answer all clients and end the session, after which the node can be destroyed."""
        if self.session is not None:
            self.session.close()
            late = time.monotonic() + _LAST_ANSWERS
            while self._offered and not self._offered.answered and time.monotonic() < late:
                time.sleep(0.01)  # the executor still spins

    def _on_change_state(self, request: Any, response: Any) -> Any:
        """Refuse a transition that the present state does not have; rclpy would end the node."""
        try:
            return self._change_state(request, response)
        except RuntimeError:
            wanted = request.transition.label or request.transition.id
            _, state = self._state_machine.current_state
            self.get_logger().warning(f"there is no transition '{wanted}' from the state {state}")
            response.success = False
            return response

    # Transitions. rclpy hides exceptions of these methods: they are logged here.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights; open publishers and services."""
        return self._change("configure", self._load, self._open_outputs, self._open_services)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        return self._change("activate", self._open_inputs, self._on_change)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and give up all targets; the weights stay in memory."""
        return self._change("deactivate", self._close_inputs)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the weights; close publishers and services."""
        return self._change("clean up", self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The same in any state, for good."""
        return self._change("shut down", self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what there is, so that the node can be configured again."""
        return self._change("recover", self._release)

    def _change(self, name: str, *steps: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            for step in steps:
                step()
            return TransitionCallbackReturn.SUCCESS
        except Exception as error:
            if self._starting:
                self._failure = error  # raised by the constructor
            else:
                self.get_logger().error(f"cannot {name}: {error}")
        if name != "configure":
            return TransitionCallbackReturn.ERROR
        self._release()  # after the handler: the error's traceback refers to the network
        return TransitionCallbackReturn.FAILURE  # and so back to unconfigured

    def _load(self) -> None:
        settings, started = self.parameters, time.perf_counter()
        # May import PyTorch, which takes seconds: wrong parameters are reported before.
        self._tracker = spmtrack_core.load_tracker(
            settings.weights,
            settings.device,
            precision=settings.precision,
            runtime=settings.runtime,
            threads=settings.threads,
        )
        # The first inference allocates memory and selects kernels: better without a target.
        self._tracker.warm_up()
        loaded = time.perf_counter() - started
        self.get_logger().info(
            f"weights '{settings.weights}' on {self._tracker.device}, loaded in {loaded:.1f} s; "
            f"runtime {self._tracker.runtime}, threads {self._tracker.threads or 'by default'}"
        )
        self._weights_config = self._tracker.config
        self._configure_tracker(settings)
        self._decode, check = image_codec(settings.image_transport, settings.max_pixels)
        self.session = Session(
            ImageStep(self._tracker, self._decode, check),
            Listeners(self._on_report, self._on_change, self._on_error, self.get_logger().warning),
            FrameBuffer(settings.frame_buffer, 1e6 * settings.frame_buffer_mb),
            settings.limits,
            settings.autostart,
        )
        self._rates = RateWindow(
            time.monotonic(),
            settings.processing_timeout,
            settings.latency_warning,
            settings.latency_error,
        )

    def _open_outputs(self) -> None:
        self._outputs = Outputs(self, self._decode, self.parameters)
        self._opened.append(self._outputs.close)
        period, device = self.parameters.diagnostics_period, str(self._tracker.device)
        self._opened.append(
            publish_diagnostics(self, "tracker", period, self._diagnose, hardware_id=device)
        )

    def _open_services(self) -> None:
        assert self.session is not None
        self._offered = Services(self, self.session, lambda: self.parameters, lambda: self.active)
        self._opened.append(self._offered.close)

    def _open_inputs(self) -> None:
        settings = self.parameters
        self._images = ImageTopic(
            self, self._on_image, settings.image_transport, settings.image_reliability
        )
        self._inputs.append(self._images.subscription)
        if self.session is not None:
            self._rates.restart(self.session.snapshot())
        # where rqt_image_view publishes clicks into the images it shows
        clicks = f"{self.resolve_topic_name('image')}_mouse_left"
        for kind, topic, callback in (
            (CameraInfo, "camera_info", self._on_camera_info),
            (Detection2D, "~/init_detection", self._offered.init_from_detection),
            (Detection2DArray, "~/init_detections", self._offered.init_from_detections),
            (PointStamped, "~/init_point", self._offered.init_from_point),
            (Point, clicks, self._offered.init_from_click),
            (Point, "~/debug_image_mouse_left", self._offered.init_from_click),
        ):
            self._inputs.append(subscribe(self, kind, topic, callback))
        self.active = True
        self._offered.start_init_box()

    def _close_inputs(self) -> None:
        self.active = False
        for each in self._inputs:
            self.destroy_subscription(each)
        self._inputs = []
        if self.session is not None:
            self.session.reset()

    def _release(self) -> None:
        self._close_inputs()
        if self.session is not None:
            self.session.close()
        while self._opened:
            self._opened.pop()()
        # whatever leads to the network, or its memory stays taken
        self.session = self._tracker = self._outputs = self._offered = None
        gc.collect()  # the network is a web of references
        if torch := sys.modules.get("torch"):
            torch.cuda.empty_cache()

    # Parameters

    def _configure_tracker(self, parameters: TrackerParameters) -> None:
        names = (
            "lost_threshold",
            "found_margin",
            "confidence_weight",
            "reference_min_confidence",
            "recovery",
            "policy",
        )
        values = {name: getattr(parameters, name) for name in names}
        of_weights = (-1.0, "weights")
        given = {name: value for name, value in values.items() if value not in of_weights}
        # an image in progress keeps the old values
        self._tracker.config = replace(self._weights_config, **given)

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        """Apply live parameters; rclpy rejects the others and values out of range."""
        values = {each.name: each.value for each in changes if hasattr(self.parameters, each.name)}
        try:
            parameters = self.parameters.changed(values)
            if self.session is not None:
                self._configure_tracker(parameters)
                self.session.limits = parameters.limits
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.parameters = parameters
        return SetParametersResult(successful=True)

    # Images in

    def _on_image(self, message: Any) -> None:
        header, stamp_ns = message.header, stamp_to_ns(message.header.stamp)
        if self.session is not None:
            self.session.push(stamp_ns, message, header.frame_id, len(message.data))
        age = (self.get_clock().now().nanoseconds - stamp_ns) / 1e9
        self._rates.add(age=age)
        size = (message.width, message.height) if hasattr(message, "width") else None
        self._rates.see(time.monotonic(), stamp_ns, header.frame_id, size)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._outputs.camera_info = message

    # Results out, mostly in the worker thread

    def _on_report(self, report: FrameReport) -> None:
        if self.session is not None:
            self._outputs.publish_report(report, self.session.snapshot())
        age = (self.get_clock().now().nanoseconds - report.frame.stamp_ns) / 1e9
        inside = time.monotonic() - report.frame.arrival
        self._rates.add(
            latency=age,
            processing=report.seconds,
            inference=report.inference,
            overhead=inside - report.inference,
        )

    def _on_change(self) -> None:
        if self.session is not None:
            self._outputs.publish_status(self.session.snapshot())

    def _on_error(self, text: str) -> None:
        # publishing fails while the process is shutting down
        if self.context.ok() and self._faults.is_due(text):
            self.get_logger().error(text)

    def _diagnose(self) -> tuple[int, str, dict[str, str]]:
        """Level, message and values for /diagnostics."""
        if self.session is None or not self.active:
            return OK, "not active", {}
        publishers = self._images.publishers()
        level, text, values = self._rates.report(
            self.session.snapshot(),
            self._images.why_silent(publishers),
            publishers,
            self._images.why_lossy(),
        )
        torch = sys.modules.get("torch")  # ONNX Runtime needs none on a GPU either
        if torch and str(self._tracker.device).startswith("cuda"):
            allocated = torch.cuda.memory_allocated(self._tracker.device)
            values["device memory MB"] = f"{allocated / 1e6:.0f}"
        return level, text, values


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until SIGINT or SIGTERM: exit code 0, or 2 for a wrong parameter."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    code = run_program("spmtrack", TrackerNode, spin, args, TrackerNode.close)
    # The node is closed. Unloading PyTorch takes seconds on a busy machine, and `ros2 launch`
    # escalates to SIGTERM after five.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
