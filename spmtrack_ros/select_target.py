"""Gives the node a target from a terminal, and says what the node answered.

    ros2 run spmtrack_ros select_target --box X Y W H [--topic IMAGE] [--preview out.jpg]

Exit code 0: accepted; 1: refused; 2: wrong arguments, or no node, image or detection; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import rclpy
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection2DArray

from spmtrack_core.data.image_messages import compressed_to_array
from spmtrack_core.data.recording import check_image_path, write_image
from spmtrack_core.files import check_output, user_path
from spmtrack_core.geometry.drawing import GREEN, ORANGE, WHITE, draw_box
from spmtrack_core.geometry.image import Image
from spmtrack_core.session.frame_buffer import Frame, FrameBuffer
from spmtrack_ros.conversions import (
    bbox_to_xywh,
    best_class,
    fill_bbox,
    fill_stamp,
    stamp_text,
    stamp_to_ns,
)
from spmtrack_ros.image_topic import ImageTopic
from spmtrack_ros.images import image_to_array
from spmtrack_ros.program import Parser, one_line
from spmtrack_ros.srv import InitTarget, RemoveTarget

_ANSWER = 70.0  # s; the node answers within its init_timeout, which is 60 s at most
_BUFFER = 150, 200e6  # images, bytes: they wait here for a detection
_DEPTH = 10  # images that may arrive at once without the loss of one
_TRANSPORTS = {
    "sensor_msgs/msg/Image": "raw",
    "sensor_msgs/msg/CompressedImage": "compressed",
}
_GRID = 100  # px
_CLASS_HELP = "with --detector-topic: class of the detection; may be repeated"
_STAMP_HELP = (
    "with --box or --point: stamp of the image that it is read from, as --preview prints it; the "
    "node's frame_buffer must still hold that image"
)
_PREVIEW_HELP = "image to write: that of --topic with the box, or without a target with a grid"


class Client(Node):
    """A client of a tracker node, which waits at most ``timeout`` s for what it needs."""

    def __init__(self, tracker: str, timeout: float) -> None:
        super().__init__("select_target")
        self._tracker, self._timeout = tracker.rstrip("/"), timeout
        self._received = 0

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
        found: list[Any] = []

        def note(message: Any) -> None:
            if wanted(message):
                found[:] = [message]

        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        subscription = self.create_subscription(kind, topic, note, qos)
        self._spin(lambda: bool(found), self._timeout, f"no {what} on {topic}")
        self.destroy_subscription(subscription)
        return found[0]

    def watch(self, topic: str, buffer: FrameBuffer, depth: int = 1) -> None:
        """Collect the images of a topic in ``buffer``; ``ValueError`` for one of another type.

        The subscription is reliable where all publishers are: large images get lost otherwise.
        """
        self._buffer = buffer
        found: list[Any] = []

        def look() -> bool:
            found[:] = self.get_publishers_info_by_topic(topic)
            return bool(found)

        self._spin(look, self._timeout, f"nobody publishes {topic}")
        kind = found[0].topic_type
        if kind not in _TRANSPORTS:
            raise ValueError(f"{topic} is {kind}: expected {' or '.join(_TRANSPORTS)}")
        policies = {info.qos_profile.reliability for info in found}
        reliable = policies == {ReliabilityPolicy.RELIABLE}
        reliability = "reliable" if reliable else "best_effort"
        transport = _TRANSPORTS[kind]
        self._images = ImageTopic(self, self._on_image, transport, reliability, topic, depth)

    def image(self, stamp_ns: int = 0) -> Any:
        """The message with the image of this stamp, of 0 the newest one.

        ``TimeoutError`` where none comes, with the most likely cause.
        """
        which = f" of the stamp {stamp_text(stamp_ns)}" if stamp_ns else ""
        problem = f"no image{which} on {self._images.subscription.topic_name}"
        try:
            self._spin(lambda: bool(self._buffer.since(stamp_ns)), self._timeout, problem)
        except TimeoutError as error:
            if self._received:
                raise
            why = self._images.why_silent(self._images.publishers())
            raise TimeoutError(f"{error}: {why}") from None
        return self._buffer.since(stamp_ns)[0].message

    def _on_image(self, message: Any) -> None:
        self._received += 1
        stamp_ns, size = stamp_to_ns(message.header.stamp), len(message.data)
        self._buffer.add(Frame(self._received, stamp_ns, message, size=size))

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
    message, header, first_ns = None, Header(), 0
    if options.topic and options.detector_topic:
        if options.preview:  # the image of a detection comes before it
            client.watch(options.topic, FrameBuffer(*_BUFFER), _DEPTH)
            first_ns = stamp_to_ns(client.image().header.stamp)
    elif options.topic:
        client.watch(options.topic, FrameBuffer(1))
        message = client.image()
        header = message.header
    if options.stamp:
        fill_stamp(header.stamp, options.stamp)
    if options.detector_topic:
        best = best_detection(client, options, first_ns)
        request.bbox, header = best.bbox, best.header
        request.label = request.label or best_class(best, options.classes)[0]
    elif options.box:
        fill_bbox(request.bbox, tuple(options.box))
    elif options.point:
        center = request.bbox.center.position
        center.x, center.y = options.point
        request.point = True
    else:  # only a look
        image = _decoded(message)
        write_image(options.preview, with_grid(image))
        stamp = stamp_text(stamp_to_ns(header.stamp))
        print(f"wrote {options.preview}, {image.shape[1]} x {image.shape[0]} px, stamp {stamp}")
        return 0
    request.header = header
    answer = client.call(InitTarget, "init_target", request)
    text = ""
    if answer.success:
        box = "x={:.1f} y={:.1f} w={:.1f} h={:.1f}".format(*bbox_to_xywh(answer.bbox))
        caught_up = f"score {answer.score:.2f}, {answer.frames_caught_up} images caught up"
        text = f"following '{answer.id}': {box}, {caught_up}"
    code = report(InitTarget, answer, text)
    if options.preview:
        try:
            message = message or client.image(stamp_to_ns(header.stamp))
        except TimeoutError as error:  # the answer counts
            print(f"select_target: no preview: {error}", file=sys.stderr)
            return code
        write_image(options.preview, preview(_decoded(message), request, answer))
        print(f"wrote {options.preview}")
    return code


def _decoded(message: Any) -> Image:
    is_raw = isinstance(message, ImageMessage)
    return image_to_array(message) if is_raw else compressed_to_array(message)


def _stamp_of(text: str) -> int:
    """ns; for argparse."""
    if not re.fullmatch(r"\d{1,10}\.\d{9}", text, re.ASCII) or int(text[:-10]) >= 1 << 31:
        raise argparse.ArgumentTypeError(
            f"expected seconds with nine decimals, as --preview prints them; got {text!r}"
        )
    return int(text.replace(".", ""))


def best_detection(client: Client, options: argparse.Namespace, first_ns: int = 0) -> Any:
    """The detection with the best score, of the chosen classes, in the next message with any.

    Those in images a little older than the one of stamp ``first_ns`` are left out: that was the
    first image to arrive.
    """

    def score(detection: Any) -> float:
        return best_class(detection, options.classes)[1]

    def scored(message: Any) -> list[Any]:
        return [each for each in message.detections if score(each) > -math.inf]

    def wanted(message: Any) -> bool:
        older = first_ns - stamp_to_ns(message.header.stamp)
        # by more: the detector has another clock
        return bool(scored(message)) and not 0 < older < options.timeout * 1e9

    what = "detection" + (f" of class {' or '.join(options.classes)}" if options.classes else "")
    array = client.newest(Detection2DArray, options.detector_topic, wanted, what)
    best = max(scored(array), key=score)
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
    bbox.center.theta = 0.0  # a rotated box is refused: drawn without its angle
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
    add("--stamp", type=_stamp_of, metavar="SEC.NSEC", help=_STAMP_HELP)
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
    if options.stamp and (options.topic or not (options.box or options.point)):
        raise ValueError("--stamp is for --box or --point, without --topic")
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
    except (OSError, ValueError, RuntimeError, NameValidationException) as error:
        print(f"select_target: error: {one_line(error)}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
