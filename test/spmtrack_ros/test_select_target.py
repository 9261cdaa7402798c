"""select_target as a user runs it, against a node that answers as it is told."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from spmtrack_core.session.frame_buffer import FrameBuffer
from spmtrack_core.session.init_request import Code
from spmtrack_ros.conversions import (
    bbox_to_xywh,
    fill_bbox,
    fill_compressed,
    fill_detection,
    fill_image,
    fill_stamp,
    stamp_to_ns,
)
from spmtrack_ros.select_target import Client, main, parse, with_grid
from spmtrack_ros.srv import InitTarget, RemoveTarget

pytestmark = pytest.mark.ros
PICTURE = np.full((120, 230, 3), 90, np.uint8)
STAMP_NS = 77_000_000_005


class Tracker(Node):
    """Offers the services of the node and publishes images and detections."""

    def __init__(self, context):
        super().__init__("spmtrack", context=context)
        self.answer = {}
        self.requests = []
        self.create_service(InitTarget, "~/init_target", self.init_target)
        self.create_service(RemoveTarget, "~/remove_target", self.remove_target)
        header = Header(frame_id="camera")
        fill_stamp(header.stamp, STAMP_NS)
        raw = fill_image(Image(), PICTURE, header)
        jpeg = fill_compressed(CompressedImage(), PICTURE, header)
        array = Detection2DArray(header=header)
        for name, score, x in (("cat", 0.6, 10.0), ("dog", 0.9, 40.0), ("cat", 0.8, 70.0)):
            parts = Detection2D(), ObjectHypothesisWithPose(), Header()
            array.detections.append(fill_detection(*parts, (x, 10, 20, 30), "", name, score))
        unnamed = Detection2DArray(header=header)
        for score, x in ((0.5, 10.0), (0.7, 40.0), (float("nan"), 70.0)):
            parts = Detection2D(), ObjectHypothesisWithPose(), Header()
            unnamed.detections.append(fill_detection(*parts, (x, 10, 20, 30), "", "", score))
        published = (
            (self.create_publisher(Detection2DArray, "unnamed", 1), unnamed),
            (self.create_publisher(Image, "image", 1), raw),
            (self.create_publisher(CompressedImage, "image/compressed", 1), jpeg),
            (self.create_publisher(Detection2DArray, "found", 1), array),
            (self.create_publisher(Header, "other", 1), header),
        )
        self.create_timer(0.05, lambda: [topic.publish(message) for topic, message in published])
        # a camera that is faster than the detector: each image has its number as brightness
        self.moving = self.create_publisher(Image, "moving", 10)
        self.slow = self.create_publisher(Detection2DArray, "slow", 1)
        self.create_publisher(Image, "silent", 1)
        lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.lossy = self.create_publisher(Image, "lossy", lossy), raw
        self.number, self.behind = 0, 5
        self.create_timer(0.02, self.move)

    def move(self):
        self.number += 1
        header = Header(frame_id="camera")
        fill_stamp(header.stamp, STAMP_NS + self.number)
        picture = np.full_like(PICTURE, self.number % 200)
        self.moving.publish(fill_image(Image(), picture, header))
        self.lossy[0].publish(self.lossy[1])
        if self.number > self.behind and self.number % 10 == 0:
            fill_stamp(header.stamp, STAMP_NS + self.number - self.behind)
            detection = fill_detection(
                Detection2D(), ObjectHypothesisWithPose(), header, (10, 10, 20, 30), "", "cat", 0.9
            )
            self.slow.publish(Detection2DArray(header=header, detections=[detection]))

    def init_target(self, request, response):
        self.requests.append(request)
        response.success, response.code, response.id = True, Code.OK, request.id or "target-1"
        response.score, response.frames_caught_up = 1.0, 3
        response.bbox = request.bbox
        if request.point:
            fill_bbox(response.bbox, (30, 20, 50, 40))
        for name, value in self.answer.items():
            setattr(response, name, value)
        return response

    def remove_target(self, request, response):
        self.requests.append(request)
        response.success, response.code = request.id != "nobody", Code.OK
        if request.id == "nobody":
            response.code, response.message = Code.UNKNOWN_ID, "no target has the id 'nobody'"
        return response


@pytest.fixture(scope="module")
def serving():
    context = Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    node = Tracker(context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join(5)
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def select(serving, capsys):
    """Runs select_target; exit code, stdout, stderr, and the requests that the node got."""
    serving.answer, serving.requests = {}, []

    def call(*arguments, **answer):
        serving.answer = answer
        code = main([str(each) for each in arguments])
        return SimpleNamespace(
            code=code, requests=list(serving.requests), **capsys.readouterr()._asdict()
        )

    return call


BOX = ("--box", 10, 20.5, 30, 40)


def test_a_box_is_given_and_the_answer_printed(select):
    done = select(*BOX, "--id", "mine", "--label", "cup")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "following 'mine': x=10.0 y=20.5 w=30.0 h=40.0, score 1.00, 3 images caught up (OK, 0)\n"
    )
    (request,) = done.requests
    assert bbox_to_xywh(request.bbox) == (10, 20.5, 30, 40)
    assert (request.id, request.label, request.point) == ("mine", "cup", False)
    assert stamp_to_ns(request.header.stamp) == 0  # the node's newest image


def test_a_box_starts_in_the_image_that_it_was_read_from(select, tmp_path):
    seen = select("--topic", "moving", "--preview", tmp_path / "now.png")
    assert seen.code == 0
    stamp = seen.out.split()[-1]
    done = select(*BOX, "--stamp", stamp)
    assert done.code == 0, done.err
    (request,) = done.requests
    number = stamp_to_ns(request.header.stamp) - STAMP_NS
    picture = cv2.imread(str(tmp_path / "now.png"))
    assert picture[110, 50, 0] == number % 200 and stamp == f"77.{number + 5:09d}"


def test_the_preview_of_a_detection_is_the_image_that_it_was_found_in(select, tmp_path):
    path = tmp_path / "out.png"
    done = select("--detector-topic", "slow", "--topic", "moving", "--preview", path)
    assert (done.code, done.err) == (0, "")
    number = stamp_to_ns(done.requests[0].header.stamp) - STAMP_NS
    assert cv2.imread(str(path))[110, 200, 0] == number % 200


def test_a_preview_whose_image_is_gone_is_not_written_and_the_answer_counts(
    select, serving, tmp_path, monkeypatch
):
    monkeypatch.setattr(serving, "behind", -(10**9))  # the clock of the detector is another one
    path = tmp_path / "out.png"
    arguments = ("--detector-topic", "slow", "--topic", "moving", "--preview", path)
    done = select(*arguments, "--timeout", 5)
    assert (done.code, path.exists()) == (0, False), done.err
    assert "no preview: no image of the stamp 78.0000" in done.err and done.err.count("\n") == 1


def test_a_rotated_box_that_is_refused_is_drawn(select, serving, tmp_path, monkeypatch):
    send = serving.slow.publish

    def rotated(array):
        array.detections[0].bbox.center.theta = 0.3
        send(array)

    monkeypatch.setattr(serving, "slow", SimpleNamespace(publish=rotated))
    answer = {"success": False, "code": int(Code.INTERNAL_ERROR), "message": "box is rotated"}
    preview = ("--topic", "moving", "--preview", tmp_path / "out.png")
    done = select("--detector-topic", "slow", *preview, **answer)
    assert (done.code, done.err) == (1, "")
    assert cv2.imread(str(tmp_path / "out.png")).shape == PICTURE.shape


@pytest.mark.parametrize(
    ("topic", "policy"),
    [("moving", ReliabilityPolicy.RELIABLE), ("lossy", ReliabilityPolicy.BEST_EFFORT)],
)
def test_images_are_received_as_reliably_as_they_are_sent(serving, topic, policy):
    rclpy.init()
    client = Client("spmtrack", 10.0)
    try:
        client.watch(topic, FrameBuffer(1))
        assert client._images.subscription.qos_profile.reliability == policy
        assert client.image().height == PICTURE.shape[0]
    finally:
        client.destroy_node()
        rclpy.try_shutdown()


def test_a_refusal_is_exit_code_1_with_code_and_reason(select):
    answer = {"success": False, "code": int(Code.BOX_TOO_SMALL), "message": "box is too small"}
    done = select(*BOX, **answer)
    assert (done.code, done.out) == (1, "refused (BOX_TOO_SMALL, 9): box is too small\n")


def test_what_is_unusual_in_a_success_is_told(select):
    done = select(*BOX, message="started, but lost again while catching up")
    assert done.code == 0
    assert done.out.endswith("(OK, 0): started, but lost again while catching up\n")


@pytest.mark.parametrize("topic", ["image", "/image/compressed"])
def test_the_newest_image_of_a_topic_is_the_image_of_the_box(select, tmp_path, topic):
    done = select(*BOX, "--topic", topic, "--preview", tmp_path / "out.png")
    assert done.code == 0, done.err
    (request,) = done.requests
    assert stamp_to_ns(request.header.stamp) == STAMP_NS
    assert request.header.frame_id == "camera"
    picture = cv2.imread(str(tmp_path / "out.png"))[..., ::-1]
    assert picture.shape == PICTURE.shape
    assert picture[40, 10, 1] > 150 > picture[40, 100, 1]  # the left edge is green


def test_a_point_gets_the_box_that_the_node_proposes(select, tmp_path):
    done = select("--point", 55, 40, "--topic", "image", "--preview", tmp_path / "out.png")
    assert (done.code, "x=30.0 y=20.0 w=50.0 h=40.0" in done.out) == (0, True)
    (request,) = done.requests
    assert request.point
    assert (request.bbox.center.position.x, request.bbox.center.position.y) == (55, 40)
    picture = cv2.imread(str(tmp_path / "out.png"))[..., ::-1]
    assert picture[50, 30, 1] > 150 > picture[50, 10, 1]


@pytest.mark.parametrize(
    ("classes", "x", "label"),
    [((), 40, "dog"), (("cat",), 70, "cat"), (("cat", "dog"), 40, "dog")],
)
def test_the_best_detection_is_given_with_its_stamp(select, classes, x, label):
    chosen = [word for name in classes for word in ("--class", name)]
    done = select("--detector-topic", "found", *chosen)
    assert done.code == 0, done.err
    (request,) = done.requests
    assert bbox_to_xywh(request.bbox) == (x, 10, 20, 30)
    assert (request.label, stamp_to_ns(request.header.stamp)) == (label, STAMP_NS)


def test_a_detection_needs_a_score_and_no_class(select):
    done = select("--detector-topic", "unnamed")
    assert done.code == 0, done.err
    (request,) = done.requests
    assert (bbox_to_xywh(request.bbox), request.label) == ((40, 10, 20, 30), "")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 0, "removed all targets (OK, 0)\n"),
        (("mine",), 0, "removed mine (OK, 0)\n"),
        (("nobody",), 1, "refused (UNKNOWN_ID, 8): no target has the id 'nobody'\n"),
    ],
)
def test_targets_are_removed(select, arguments, code, said):
    done = select("--remove", *arguments)
    assert (done.code, done.out) == (code, said)
    assert done.requests[0].id == (arguments[0] if arguments else "")


def test_a_preview_alone_shows_the_pixels_and_asks_for_nothing(select, tmp_path):
    done = select("--topic", "image", "--preview", tmp_path / "out.jpg")
    assert (done.code, done.requests) == (0, [])
    assert done.out == f"wrote {tmp_path}/out.jpg, 230 x 120 px, stamp 77.000000005\n"
    drawn = with_grid(PICTURE)
    assert (drawn[110, 100] > 200).all() and (drawn[100, 50] > 200).all()
    assert (drawn[110, 50] == 90).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*BOX, "--node", "/no/such"), "no node offers /no/such/init_target: start it, or name"),
        ((*BOX, "--node", "my-robot"), "Invalid service name: topic name must not contain"),
        (("--detector-topic", "a//b"), "must not contain repeated '/': '/a//b'"),
        ((*BOX, "--topic", "my-camera"), "topic name 'my-camera' is invalid"),
        (
            (*BOX, "--topic", "silent", "--timeout", 5),
            "no image on /silent within 5 s: /spmtrack publishes /silent",
        ),
        ((*BOX, "--stamp", "1.5"), "expected seconds with nine decimals"),
        ((*BOX, "--stamp", "2147483648.000000000"), "expected seconds with nine decimals"),
        ((*BOX, "--stamp", "1.000000000", "--topic", "image"), "--stamp is for --box or --point"),
        (("--remove", "--stamp", "1.000000000"), "--stamp is for --box or --point"),
        ((*BOX, "--topic", "nothing"), "nobody publishes nothing within 0.3 s"),
        (
            (*BOX, "--topic", "other", "--timeout", 30),
            "other is std_msgs/msg/Header: expected sensor_msgs/msg",
        ),
        (("--detector-topic", "found", "--class", "bird"), "no detection of class bird on found"),
        ((*BOX, "--preview", "out.png"), "--preview needs --topic"),
        ((*BOX, "--topic", "image", "--preview", "/proc/x/out.png"), "cannot be written"),
        ((*BOX, "--topic", "image", "--preview", "out.xyz"), "no suffix of a color image"),
        ((), "give one of --box, --point, --detector-topic, --remove or --preview"),
        (("--box", 1, 2, 3), "expected 4 arguments"),
        ((*BOX, "--point", 1, 2), "not allowed with argument --box"),
        ((*BOX, "--class", "cat"), "--class needs --detector-topic"),
        ((*BOX, "--timeout", 0), "--timeout is 0 s: expected 0 to 3600"),
    ],
)
def test_errors_take_one_line_and_exit_code_2(select, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    timeout = () if "--timeout" in arguments else ("--timeout", 0.3)
    done = select(*arguments, *timeout)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("select_target: error: ") and done.err.count("\n") == 1
    assert said in done.err


def test_a_box_may_lie_partly_outside():
    assert parse(["--box", "-3", "-1.5", "20", "20"]).box == [-3, -1.5, 20, 20]
