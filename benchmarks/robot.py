"""A camera and a client of the node `spmtrack`, which runs in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2DArray

from spmtrack_core.geometry.image import Image
from spmtrack_ros.conversions import fill_bbox, fill_image, stamp_to_ns
from spmtrack_ros.demo import Child, set_environment
from spmtrack_ros.msg import TrackStateArray
from spmtrack_ros.srv import InitTarget

_STARTUP = 120.0  # s, for a node that loads PyTorch on a busy machine
_ANSWER = 20.0  # s
_DEPTH = 5


class Robot(Node):
    """Sends images and keeps the newest answers of the node."""

    def __init__(self, node: Child) -> None:
        """``node`` is the process of the node."""
        super().__init__("robot")
        self._child = node
        self._images = self.create_publisher(ImageMessage, "image", _DEPTH)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        subscribe = self.create_subscription
        subscribe(Detection2DArray, "spmtrack/detections", self._on_detections, 10)
        subscribe(TrackStateArray, "spmtrack/status", self._on_status, latched)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._clients_by_name: dict[str, Any] = {}
        self._message = ImageMessage()
        self.heartbeat_ns = 0
        """Stamp of the newest image that was reported."""
        self.heartbeats = 0
        self.status = TrackStateArray()
        self.diagnostics: dict[str, str] = {}
        """Values of the newest message."""
        self.windows = 0
        """Number of these messages."""

    def _on_detections(self, message: Detection2DArray) -> None:
        self.heartbeat_ns = stamp_to_ns(message.header.stamp)
        self.heartbeats += 1

    def _on_status(self, message: TrackStateArray) -> None:
        self.status = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics = {each.key: each.value for each in message.status[0].values}
        self.windows += 1

    def until(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Spin until ``condition`` holds; false after ``seconds``.

        Raises ``RuntimeError`` if the node has ended.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._child.check()
            rclpy.spin_once(self, timeout_sec=min(left, 0.02))
        return True

    def show(self, image: Image, size_wh: tuple[int, int]) -> None:
        """The camera sees this image, scaled to ``size_wh``, from now on."""
        self._message = fill_image(
            ImageMessage(), cv2.resize(image, size_wh), Header(frame_id="camera")
        )

    def send(self) -> int:
        """Publish the image; return its stamp in ns, which is the present time."""
        now = self.get_clock().now()
        self._message.header.stamp = now.to_msg()
        self._images.publish(self._message)
        return int(now.nanoseconds)

    def send_and_wait(self, seconds: float = 5.0) -> bool:
        """Publish the image; return whether it was reported within ``seconds``."""
        sent = self.send()
        return self.until(lambda: self.heartbeat_ns >= sent, seconds)

    def send_at(self, rate: float, done: Callable[[], Any]) -> int:
        """Publish ``rate`` images a second until ``done``; return how many."""
        due, count = time.monotonic(), 0
        while not done():
            self.send()
            count += 1
            due = max(due + 1 / rate, time.monotonic() - 1)  # no burst after a long pause
            # spins at least once, also where publishing takes longer than it should
            rclpy.spin_once(self, timeout_sec=0)
            self.until(lambda: False, due - time.monotonic())
        return count

    @property
    def pid(self) -> int:
        """The node's process."""
        return self._child.pid

    def ask(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service of the node; the future of its answer."""
        if name not in self._clients_by_name:
            # the default depth of 10 loses answers that come at once
            deep = QoSProfile(depth=1000)
            self._clients_by_name[name] = self.create_client(
                kind, f"spmtrack/{name}", qos_profile=deep
            )
        client = self._clients_by_name[name]
        self.until(client.service_is_ready, _ANSWER)
        return client.call_async(request)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service and wait; raises ``RuntimeError`` without an answer."""
        answer = self.ask(kind, name, request)
        if not self.until(answer.done, _ANSWER):
            raise RuntimeError(f"{name} did not answer within {_ANSWER:g} s")
        return answer.result()

    def restart(self, boxes: list[tuple[float, float, float, float]]) -> None:
        """Follow targets in these boxes, xywh in pixels of the present image, and no others."""
        self.call(Trigger, "reset", Trigger.Request())
        # the first images may be lost while the connection is made
        if not self.until(lambda: self.send_and_wait(1.0), _ANSWER):
            raise RuntimeError(f"no image was processed within {_ANSWER:g} s")
        for index, box in enumerate(boxes):
            name, kind, request = init_request(f"t{index}", box)
            reply = self.call(kind, name, request)
            if not reply.success:
                raise RuntimeError(f"target {index} was not started: {reply.message}")


@contextmanager
def robot(**parameters: Any) -> Iterator[Robot]:
    """A robot whose node runs with these parameters, in a ROS domain of their own."""
    set_environment()
    with TemporaryDirectory() as folder:
        with Child("tracker_node", Path(folder) / "node.log", parameters) as child:
            rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
            try:
                found = Robot(child)
                ready = found.create_client(Trigger, "spmtrack/reset").service_is_ready
                if not found.until(ready, _STARTUP):
                    raise RuntimeError(f"the node did not start within {_STARTUP:g} s")
                yield found
                found.destroy_node()
            finally:
                rclpy.try_shutdown()


def init_request(
    target_id: str, box: tuple[float, float, float, float]
) -> tuple[str, type, InitTarget.Request]:
    """Name, type and request of the call that starts a target in the newest image."""
    request = InitTarget.Request(id=target_id)
    fill_bbox(request.bbox, box)
    return "init_target", InitTarget, request


def after(seconds: float) -> Callable[[], bool]:
    """A condition that holds in so many seconds."""
    due = time.monotonic() + seconds
    return lambda: time.monotonic() >= due


def grid(count: int, size_wh: tuple[int, int]) -> list[tuple[float, float, float, float]]:
    """Up to 8 boxes, xywh in pixels, in two rows of an image; each covers 2 % of it."""
    if not 1 <= count <= 8:
        raise ValueError(f"targets must be 1 to 8; got {count}")
    w, h = size_wh
    side_w, side_h = 0.125 * w, 0.16 * h
    centers = [
        ((0.5 + column) * w / 4, (0.5 + row) * h / 2) for row in (0, 1) for column in range(4)
    ]
    return [(x - side_w / 2, y - side_h / 2, side_w, side_h) for x, y in centers[:count]]
