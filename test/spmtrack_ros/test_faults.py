"""The node over real DDS while its tracker throws, hangs or lacks memory, and storms of calls."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped, Vector3Stamped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lifecycle_msgs.msg import State as LifecycleState
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import MarkerArray

from spmtrack_core.data.image_messages import ENCODINGS
from spmtrack_core.session.init_request import Code
from spmtrack_core.tracking.followed import Reason, State
from spmtrack_ros import program
from spmtrack_ros.conversions import fill_bbox, fill_image, fill_stamp, stamp_to_ns
from spmtrack_ros.srv import InitTarget, RemoveTarget, SetPrimary
from test.spmtrack_ros.faulty_node import HANGS, NO_MEMORY, SLOW, THROWS
from test.spmtrack_ros.peer import (
    BOX,
    MS,
    RELIABLE,
    Peer,
    connected,
    output_of,
    start_node,
    start_process,
)

pytestmark = pytest.mark.ros


def frame(value=0):
    return np.full((180, 240, 3), value, np.uint8)


def header_at(milliseconds, frame_id="front_camera"):
    header = Header(frame_id=frame_id)
    fill_stamp(header.stamp, milliseconds * MS)
    return header


@pytest.fixture(scope="module")
def running():
    parameters = ("diagnostics_period:=0.2", "init_timeout:=1.0", "processing_timeout:=0.5")
    program = (str(Path(__file__).with_name("faulty_node.py")),)
    process = start_node(*parameters, RELIABLE, weights="none", name="faulty", program=program)
    with connected(Peer("faulty"), process, signal.SIGTERM) as peer:
        peer.process = process
        yield peer


@pytest.fixture
def peer(running):
    running.start_over()
    return running


@pytest.mark.parametrize(("fault", "words"), [(THROWS, "illegal"), (NO_MEMORY, "out of memory")])
def test_a_failure_in_one_image_loses_the_targets_there_only(peer, fault, words):
    peer.send(frame(), 10)
    for name in "ab":
        assert peer.init(id=name).success
    assert peer.send(frame(fault), 20).detections == []
    assert peer.until(lambda: words in peer.status[-1].message)
    assert {each.state for each in peer.status[-1].targets} == {State.LOST}
    assert {each.reason for each in peer.status[-1].targets} == {Reason.INTERNAL_ERROR}
    assert [each.id for each in peer.send(frame(), 30).detections] == ["a", "b"]


@pytest.mark.parametrize("fault", [THROWS, NO_MEMORY])
def test_a_failed_start_leaves_the_targets_alone(peer, fault):
    peer.send(frame(), 10)
    assert peer.init(id="a").success
    peer.send(frame(fault), 20)
    assert peer.init(id="b").code == Code.INTERNAL_ERROR
    assert [each.id for each in peer.send(frame(), 30).detections] == ["a"]


def test_each_kind_of_refusal_is_logged(peer):
    """A click or a detection has no other answer."""
    peer.send(frame(), 10)
    peer.until(lambda: False, 1.1)  # the lines of another test are over
    before = len(output_of(peer.process))
    for wrong in ({"id": "a\n"}, {"theta": 0.5}):
        assert not peer.init(**wrong).success
    codes = ("(INVALID_ID)", "(INVALID_BOX)")
    assert peer.until(lambda: all(each in output_of(peer.process)[before:] for each in codes))


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    box=st.tuples(*[st.floats() | st.floats(-300, 300)] * 4),
    theta=st.just(0.0) | st.floats(),
    stamp_ms=st.sampled_from([0, 10, 5]),
    texts=st.tuples(ANY_TEXT, ANY_TEXT, st.sampled_from(["", "front_camera", "map"])),
    normalized=st.booleans(),
)
def test_any_request_is_answered(peer, box, theta, stamp_ms, texts, normalized):
    name, label, frame_id = texts
    peer.detections.clear()
    peer.send(frame(), 10)
    reply = peer.init(box, stamp_ms, theta, frame_id, id=name, label=label, normalized=normalized)
    assert reply.success is (reply.code == Code.OK) and reply.code != Code.INTERNAL_ERROR
    assert reply.success or reply.message
    peer.call(Trigger, "reset")


FLOATS = st.floats() | st.floats(-300, 300)
NUMBERS = st.sampled_from([0, 1, 2, 180, 240, 2**32 - 1])


@st.composite
def detections(draw):
    message = Detection2D(id=draw(ANY_TEXT))
    message.header.stamp.sec = draw(st.integers(-(2**31), 2**31 - 1))
    center = message.bbox.center
    center.position.x, center.position.y, message.bbox.size_x, message.bbox.size_y = (
        draw(FLOATS) for _ in range(4)
    )
    center.theta = draw(st.just(0.0) | st.floats())
    for _ in range(draw(st.integers(0, 2))):
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = draw(ANY_TEXT), draw(st.floats())
        message.results.append(result)
    return message


@st.composite
def calibrations(draw):
    """Mostly of the size of the images, as another one is rejected at once."""
    info = CameraInfo(width=draw(st.just(240) | NUMBERS), height=draw(st.just(180) | NUMBERS))
    models = ["plumb_bob", "rational_polynomial", "equidistant", ""]
    info.distortion_model = draw(st.sampled_from(models))
    info.d = draw(st.lists(FLOATS, max_size=14) | st.just([0.1] * 4))
    info.k = draw(st.lists(FLOATS, min_size=9, max_size=9))
    info.binning_x, info.roi.x_offset = draw(st.just(0) | NUMBERS), draw(st.just(0) | NUMBERS)
    return info


CALLS = {"remove_target": RemoveTarget, "set_primary": SetPrimary}


@pytest.fixture
def senders(peer):
    """Publishers for topics of the node."""
    kinds = {
        "/faulty/init_detections": Detection2DArray,
        "/faulty/init_point": PointStamped,
        "/camera_info": CameraInfo,
    }
    found = {name: peer.node.create_publisher(kind, name, 1) for name, kind in kinds.items()}
    assert peer.until(lambda: all(each.get_subscription_count() for each in found.values()))
    yield found
    for each in found.values():
        peer.node.destroy_publisher(each)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    array=st.lists(detections(), max_size=5),
    point=st.tuples(FLOATS, FLOATS, st.sampled_from(["", "front_camera", "map"])),
    names=st.tuples(ANY_TEXT, ANY_TEXT),
)
def test_any_message_and_any_name_leave_the_node_alive(peer, senders, array, point, names):
    peer.detections.clear()
    peer.send(frame(), 10)
    senders["/faulty/init_detections"].publish(Detection2DArray(detections=array))
    message = PointStamped()
    message.point.x, message.point.y, message.header.frame_id = point
    senders["/faulty/init_point"].publish(message)
    for (name, kind), target in zip(CALLS.items(), names, strict=True):
        reply = peer.call(kind, name, id=target)
        assert reply.success is (reply.code == Code.OK)
    peer.call(Trigger, "reset")
    peer.send(frame(), 20)
    assert peer.init().success
    peer.call(Trigger, "reset")
    assert "failed:" not in output_of(peer.process)


@pytest.fixture
def drawn(peer):
    """Bearings and markers."""
    return peer.collect(Vector3Stamped, "bearing"), peer.collect(MarkerArray, "markers")


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(info=calibrations())
def test_any_calibration_leaves_the_detections_alone(peer, senders, drawn, info):
    for messages in (peer.detections, *drawn):
        messages.clear()
    peer.send(frame(), 10)
    assert peer.init(id="a").success
    senders["/camera_info"].publish(info)
    for stamp in (20, 30, 40):
        assert [each.id for each in peer.send(frame(), stamp).detections] == ["a"]
    peer.call(Trigger, "reset")
    assert "failed:" not in output_of(peer.process)
    bearings, markers = drawn
    for ray in (each.vector for each in bearings):
        assert np.linalg.norm([ray.x, ray.y, ray.z]) == pytest.approx(1)
    for array in markers:
        points = [point for marker in array.markers for point in marker.points]
        assert all(np.isfinite([each.x, each.y, each.z]).all() for each in points)


def test_storms_of_calls_are_answered(peer):
    peer.send(frame(), 10)
    assert peer.init(id="a").success
    parameter = Parameter("label", value="x").to_parameter_msg()
    kinds = {
        "remove_target": (RemoveTarget, RemoveTarget.Request(id="none")),
        "set_primary": (SetPrimary, SetPrimary.Request(id="a")),
        "enable": (SetBool, SetBool.Request(data=True)),
        "set_parameters": (SetParameters, SetParameters.Request(parameters=[parameter])),
    }
    deep, answers = QoSProfile(depth=1000), []
    for name, (kind, request) in kinds.items():
        client = peer.node.create_client(kind, f"/faulty/{name}", qos_profile=deep)
        assert client.wait_for_service(10)
        answers += [client.call_async(request) for _ in range(100)]
    assert peer.until(lambda: all(answer.done() for answer in answers), 60)
    assert [each.id for each in peer.send(frame(), 20).detections] == ["a"]


@pytest.mark.parametrize("fault", ["cut", "long", "empty", "step", "width"])
def test_images_that_cannot_be_read_in_any_encoding(peer, fault):
    width, height, noise = 64, 48, np.random.default_rng(0)
    peer.send(frame(), 10)
    assert peer.init((10, 10, 20, 20), id="a").success
    for number, (name, encoding) in enumerate(ENCODINGS.items()):
        step = width * encoding.channels * np.dtype(encoding.bits).itemsize
        data = noise.bytes(round(height * encoding.rows) * step)
        image = Image(encoding=name, width=width, height=height, step=step)
        image.header = header_at(100 + number)
        image.data = {"cut": data[:-7], "long": data + b"more", "empty": b""}.get(fault, data)
        if fault == "step":
            image.step = 1
        if fault == "width":
            image.width = 2**32 - 1
        peer.camera.publish(image)
        assert peer.heartbeat(image.header).detections == [], name
    assert peer.until(lambda: peer.status[-1].targets[0].reason == Reason.INVALID_IMAGE)
    assert [each.id for each in peer.send(frame(), 500).detections] == ["a"]


def test_a_camera_that_is_faster_than_the_tracker(peer):
    peer.send(frame(), 10)
    assert peer.init(id="a").success
    for stamp in range(20, 1020, 5):
        peer.send(frame(), stamp, wait=False)
    assert peer.until(lambda: stamp_to_ns(peer.detections[-1].header.stamp) == 1015 * MS)
    stamps = [stamp_to_ns(each.header.stamp) for each in peer.detections]
    assert stamps == sorted(set(stamps))


def test_the_newest_of_200_images_a_second(peer):
    """A tracker that needs 50 ms an image."""
    peer.send(frame(), 10)
    assert peer.init(id="a").success
    for stamp in range(20, 1020, 5):
        peer.send(frame(SLOW), stamp, wait=False)
        time.sleep(0.005)
    assert peer.until(lambda: stamp_to_ns(peer.detections[-1].header.stamp) == 1015 * MS)
    stamps = [stamp_to_ns(each.header.stamp) for each in peer.detections]
    assert stamps == sorted(set(stamps)) and len(stamps) < 100
    assert [each.id for each in peer.send(frame(), 2000).detections] == ["a"]


def test_an_image_of_4k(peer):
    image = np.zeros((2160, 3840, 3), np.uint8)
    peer.send(image, 10, encoding="bgr8")
    assert peer.init((3000, 1000, 200, 200)).success


def test_stamps_at_the_ends_of_their_range(peer):
    for sec, nanosec in ((2**31 - 1, 2**32 - 1), (-(2**31), 0), (2**31 - 1, 0)):
        message = fill_image(Image(), frame(), header_at(0))
        message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
        peer.call(Trigger, "reset")  # so that none of them is late
        peer.camera.publish(message)
        peer.heartbeat(message.header)
        assert peer.init().success


def test_a_clock_that_is_set_back(peer):
    peer.send(frame(), 100_000)
    assert peer.init(id="a").success
    peer.send(frame(), 100_010)
    peer.send(frame(), 90_000, wait=False)  # one image alone is late, and changes nothing
    for newest in (100_020, 200_000):
        assert [each.id for each in peer.send(frame(), newest).detections] == ["a"]
        peer.detections.clear()
        for stamp in range(10, 1000, 10):
            peer.send(frame(), stamp, wait=False)
            if peer.until(lambda: peer.detections, 0.05):
                break
        assert [each.id for each in peer.detections[0].detections] == ["a"]
        assert stamp_to_ns(peer.detections[0].header.stamp) < 1000 * MS


def test_images_of_two_cameras_are_reported(peer):
    reports = peer.collect(DiagnosticArray, "/diagnostics")
    other = Node("other_camera", context=peer.context)
    images = other.create_publisher(Image, "image", 10)
    assert peer.until(images.get_subscription_count)
    peer.send(frame(), 10)
    words = "2 publishers: /other_camera, /peer"
    assert peer.until(lambda: any(words in each.status[0].message for each in reports))
    other.destroy_node()
    for stamp in range(20, 100_000, 100):
        message = fill_image(Image(), frame(), header_at(stamp, str(stamp % 200)))
        peer.camera.publish(message)
        if peer.until(lambda: any("2 frame_ids" in each.status[0].message for each in reports), 0):
            return
        peer.until(lambda: False, 0.05)
    pytest.fail("the frame_ids are not reported")


def test_a_camera_process_that_is_killed_and_comes_back(peer):
    """Nothing says goodbye: the other side hears of it only by the silence."""

    def set_image_timeout(seconds):
        parameter = Parameter("image_timeout", value=seconds).to_parameter_msg()
        peer.call(SetParameters, "set_parameters", parameters=[parameter])

    def state():
        return [(each.id, each.state, each.reason) for each in peer.status[-1].targets]

    command = [sys.executable, str(Path(__file__).with_name("camera_process.py"))]
    camera = start_process(command)
    try:
        assert peer.until(lambda: peer.detections, 30)
        assert peer.init(id="a").success
        set_image_timeout(0.3)
        # on a busy machine perhaps lost before the end as well
        assert peer.until(lambda: state() == [("a", State.TRACKING, Reason.NONE)])
        os.kill(camera.pid, signal.SIGKILL)
        camera.wait(5)
        assert peer.until(lambda: state() == [("a", State.LOST, Reason.NO_IMAGE)], 5)
        peer.detections.clear()
        camera = start_process(command)
        assert peer.until(lambda: peer.detections, 30)
        assert [each.id for each in peer.detections[0].detections] == ["a"]
        assert peer.until(lambda: state() == [("a", State.TRACKING, Reason.NONE)])
    finally:
        camera.kill()
        camera.wait(5)
        set_image_timeout(2.0)


def test_a_transition_that_the_state_does_not_have_is_refused(peer):
    """rclpy ends the process."""
    for wrong in (Transition(id=Transition.TRANSITION_CLEANUP), Transition(id=77)):
        assert not peer.call(ChangeState, "change_state", transition=wrong).success
    wrong = Transition(label="fly")
    assert not peer.call(ChangeState, "change_state", transition=wrong).success
    peer.send(frame(), 10)


def test_transitions_in_any_order_while_images_and_calls_arrive(peer):
    chance, stamp, kinds = random.Random(0), 10, ("configure", "activate", "deactivate", "cleanup")

    def change(label):
        transition = Transition(label=label)
        return peer.call(ChangeState, "change_state", transition=transition).success

    for _ in range(40):
        change(chance.choice(kinds))
        peer.send(frame(), (stamp := stamp + 10), wait=False)
        if (
            peer.call(GetState, "get_state").current_state.id
            == LifecycleState.PRIMARY_STATE_UNCONFIGURED
        ):
            continue
        client = peer.node.create_client(InitTarget, "/faulty/init_target")
        assert client.wait_for_service(10)
        request = InitTarget.Request()
        fill_bbox(request.bbox, BOX)
        answer = client.call_async(request)
        assert peer.until(answer.done)
        assert answer.result().code in (Code.OK, Code.NOT_READY, Code.NO_IMAGE)
        peer.node.destroy_client(client)
    for label in ("cleanup", "configure", "activate"):
        change(label)
    peer.clients.clear()
    peer.wait_for_node(process=None)
    peer.send(frame(), stamp + 10)


def test_a_callback_that_fails_does_not_end_the_node(monkeypatch):
    failures = [ValueError("of a callback"), ExternalShutdownException()]
    errors = []

    class Executor:
        def add_node(self, node):
            pass

        def spin(self):
            raise failures.pop(0)

    monkeypatch.setattr(program, "SingleThreadedExecutor", Executor)
    logger = SimpleNamespace(error=lambda text, **_: errors.append(text), debug=str)
    node = SimpleNamespace(context=SimpleNamespace(ok=lambda: True), get_logger=lambda: logger)
    assert program.spin(node) == 0
    assert errors == ["a message or request failed: ValueError: of a callback"]


def test_a_tracker_that_hangs(peer):
    """The last test: the tracker never returns."""
    reports = peer.collect(DiagnosticArray, "/diagnostics")
    peer.send(frame(), 10)
    assert peer.init(id="a").success
    peer.send(frame(HANGS), 20, wait=False)
    assert peer.until(
        lambda: any("busy with one image" in each.status[0].message for each in reports)
    )
    assert reports[-1].status[0].level == b"\x02"
    for stamp in range(30, 5000, 10):  # images go on arriving
        peer.send(frame(), stamp, wait=False)
        if peer.until(lambda: peer.status[-1].targets[0].state == State.LOST, 0.02):
            break
    assert peer.status[-1].targets[0].reason == Reason.NO_IMAGE  # and not TRACKING for ever
    assert peer.init().code == Code.TIMEOUT
    request = InitTarget.Request()
    request.bbox.size_x = request.bbox.size_y = BOX[2]
    client = peer.clients["init_target"]
    answer = client.call_async(request)
    assert peer.until(answer.done) and answer.result().code == Code.TIMEOUT
    assert peer.call(RemoveTarget, "remove_target").success
