"""Gives the node a target from a terminal, and says what the node answered.

    ros2 run spmtrack_ros select_target --box X Y W H [--topic IMAGE] [--preview out.jpg]

Exit code 0: accepted; 1: refused; 2: wrong arguments, or no node, image or detection; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection2DArray

from spmtrack_core.data.image_messages import compressed_to_array
from spmtrack_core.data.recording import check_image_path, write_image
from spmtrack_core.files import check_output, user_path
from spmtrack_core.geometry.drawing import GREEN, ORANGE, WHITE, draw_box
from spmtrack_core.geometry.image import Image
from spmtrack_ros.conversions import bbox_to_xywh, best_class, fill_bbox, stamp_to_ns
from spmtrack_ros.images import image_to_array
from spmtrack_ros.program import Parser
from spmtrack_ros.srv import InitTarget, RemoveTarget

_ANSWER = 70.0  # s; the node answers within its init_timeout, which is 60 s at most
_KINDS = {
    "sensor_msgs/msg/Image": ImageMessage,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
}
_GRID = 100  # px
_CLASS_HELP = "with --detector-topic: class of the detection; may be repeated"
_PREVIEW_HELP = "image to write: that of --topic with the box, or without a target with a grid"


class Client(Node):
    """A client of a tracker node, which waits at most ``timeout`` s for what it needs."""

    def __init__(self, tracker: str, timeout: float) -> None:
        super().__init__("select_target")
        self._tracker, self._timeout = tracker.rstrip("/"), timeout

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """The answer of a service of the tracker; ``TimeoutError`` where there is none."""
        name = f"{self._tracker}/{service}"
        client = self.create_client(kind, name)
        if not client.wait_for_service(self._timeout):
            raise TimeoutError(
                f"no node offers {client.srv_name}: start it, or name it with --node; waited "
                f"{self._timeout:g} s"
            )
        answer = client.call_async(request)
        self._spin(answer.done, _ANSWER, f"no answer of {client.srv_name}")
        return answer.result()

    def newest(self, kind: Any, topic: str, wanted: Callable[[Any], bool], what: str) -> Any:
        """The next message on a topic that is ``wanted``; ``TimeoutError`` where none comes."""
        received: list[Any] = []
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        subscription = self.create_subscription(kind, topic, received.append, qos)
        self._spin(
            lambda: bool(received and wanted(received[-1])), self._timeout, f"no {what} on {topic}"
        )
        self.destroy_subscription(subscription)
        return received[-1]

    def image_kind(self, topic: str) -> Any:
        """The type of an image topic; ``ValueError`` for a topic of another type."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [info.topic_type for info in self.get_publishers_info_by_topic(topic)]
            return bool(found)

        self._spin(look, self._timeout, f"nobody publishes {topic}")
        if found[0] not in _KINDS:
            raise ValueError(f"{topic} is {found[0]}: expected {' or '.join(_KINDS)}")
        return _KINDS[found[0]]

    def _spin(self, done: Callable[[], bool], timeout: float, problem: str) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{problem} within {timeout:g} s")
            rclpy.spin_once(self, timeout_sec=0.05)


def run(options: argparse.Namespace, client: Client) -> int:
    """Do what the options ask for; return the exit code.

    Raises ``TimeoutError``, ``ValueError`` or ``OSError`` with one sentence.
    """
    if options.remove is not None:
        answer = client.call(
            RemoveTarget, "remove_target", RemoveTarget.Request(id=options.remove)
        )
        return report(RemoveTarget, answer, f"removed {options.remove or 'all targets'}")
    request = InitTarget.Request(id=options.id, label=options.label)
    image, header = None, Header()
    if options.topic:
        kind = client.image_kind(options.topic)
        message = client.newest(kind, options.topic, lambda message: True, "image")
        header = message.header
        if options.preview:
            is_raw = kind is ImageMessage
            image = image_to_array(message) if is_raw else compressed_to_array(message)
    if options.detector_topic:
        best = best_detection(client, options)
        request.bbox, header = best.bbox, best.header
        request.label = request.label or best_class(best, options.classes)[0]
    elif options.box:
        fill_bbox(request.bbox, tuple(options.box))
    elif options.point:
        center = request.bbox.center.position
        center.x, center.y = options.point
        request.point = True
    else:  # only a look
        assert image is not None
        write_image(options.preview, with_grid(image))
        print(f"wrote {options.preview}, {image.shape[1]} x {image.shape[0]} px")
        return 0
    request.header = header
    answer = client.call(InitTarget, "init_target", request)
    box = "x={:.1f} y={:.1f} w={:.1f} h={:.1f}".format(*bbox_to_xywh(answer.bbox))
    caught_up = f"score {answer.score:.2f}, {answer.frames_caught_up} images caught up"
    code = report(InitTarget, answer, f"following '{answer.id}': {box}, {caught_up}")
    if image is not None:
        write_image(options.preview, preview(image, request, answer))
        print(f"wrote {options.preview}")
    return code


def best_detection(client: Client, options: argparse.Namespace) -> Any:
    """The detection with the best score, of the chosen classes, in the next message with any."""

    def scored(message: Any) -> list[Any]:
        return [each for each in message.detections if best_class(each, options.classes)[0]]

    what = "detection" + (f" of class {' or '.join(options.classes)}" if options.classes else "")
    array = client.newest(
        Detection2DArray, options.detector_topic, lambda message: bool(scored(message)), what
    )
    best = max(scored(array), key=lambda each: best_class(each, options.classes)[1])
    if not stamp_to_ns(best.header.stamp):
        best.header = array.header
    return best


def report(kind: Any, answer: Any, success: str) -> int:
    """Print an answer; return the exit code."""
    response = kind.Response
    codes = {getattr(response, name): name for name in dir(response) if name.startswith("CODE_")}
    code = codes.get(answer.code, "CODE_?").removeprefix("CODE_")
    text = success if answer.success else "refused"
    print(f"{text} ({code}, {answer.code})" + (f": {answer.message}" if answer.message else ""))
    return 0 if answer.success else 1


def preview(image: Image, request: Any, answer: Any) -> Image:
    """The image with the box that the target has in it, or that was refused."""
    color = GREEN if answer.success else ORANGE
    bbox: BoundingBox2D = answer.bbox if answer.success else request.bbox
    label = answer.id if answer.success else "refused"
    if request.point and not answer.success:
        x, y = bbox.center.position.x, bbox.center.position.y
        return draw_box(image, (x - 4, y - 4, 8, 8), label, color)
    return draw_box(image, bbox_to_xywh(bbox), label, color)


def with_grid(image: Image) -> Image:
    """The image with a line every 100 px, for reading off a box."""
    drawn = image.copy()
    height, width = image.shape[:2]
    for x in range(_GRID, width, _GRID):
        cv2.line(drawn, (x, 0), (x, height), WHITE, 1)
        drawn = draw_box(drawn, (x, 0, 0, 0), str(x), WHITE)
    for y in range(_GRID, height, _GRID):
        cv2.line(drawn, (0, y), (width, y), WHITE, 1)
        drawn = draw_box(drawn, (0, y, 0, 0), str(y), WHITE)
    return drawn


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; raise ``ValueError`` for wrong options."""
    lines = (__doc__ or "").split("\n")
    parser = Parser("select_target", description=lines[0], epilog=" ".join(lines[4:]))
    what = parser.add_mutually_exclusive_group()
    add = what.add_argument
    add("--box", nargs=4, type=float, metavar=("X", "Y", "W", "H"), help="box of the target, px")
    add("--point", nargs=2, type=float, metavar=("X", "Y"), help="point on the target, px")
    add("--detector-topic", help="take the best detection of a vision_msgs/Detection2DArray")
    add("--remove", nargs="?", const="", metavar="ID", help="remove this target, or all")
    add = parser.add_argument
    add("--class", dest="classes", action="append", default=[], metavar="NAME", help=_CLASS_HELP)
    add("--topic", help="image topic: the target is started in its newest image, of that stamp")
    add("--id", default="", help="id of the target; without: the target replaces the primary one")
    add("--label", default="", help="label of the target")
    add("--preview", type=user_path, metavar="FILE", help=_PREVIEW_HELP)
    add("--node", default="spmtrack", help="name of the node, with its namespace")
    add("--timeout", type=float, default=10.0, help="s to wait for the node, image or detection")
    options = parser.parse_args(arguments)
    given = any((options.box, options.point, options.detector_topic, options.remove is not None))
    if options.preview and not options.topic:
        raise ValueError("--preview needs --topic, the topic of the image")
    if not given and not options.preview:
        raise ValueError("give one of --box, --point, --detector-topic, --remove or --preview")
    if options.classes and not options.detector_topic:
        raise ValueError("--class needs --detector-topic")
    if not 0 < options.timeout < 3600:
        raise ValueError(f"--timeout is {options.timeout:g} s: expected 0 to 3600")
    return options


def main(args: list[str] | None = None) -> int:
    """Run with the command line's arguments; return the exit code."""
    arguments = sys.argv if args is None else ["select_target", *args]
    try:
        options = parse(remove_ros_args(arguments)[1:])
        if options.preview:
            check_image_path(options.preview)
            check_output(options.preview)
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        client = Client(options.node, options.timeout)
        try:
            return run(options, client)
        finally:
            client.destroy_node()
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        print(f"select_target: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
