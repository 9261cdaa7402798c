"""The node in another process, over real DDS, seen from a camera and a client in this one."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, PointStamped, Vector3Stamped
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import MarkerArray

from spmtrack_core.config import TrackerConfig
from spmtrack_core.data.image_messages import compressed_to_array
from spmtrack_core.data.video import open_frames
from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy
from spmtrack_core.session.init_request import Code
from spmtrack_core.tracking.followed import Reason, State
from spmtrack_core.tracking.loading import BUNDLED_WEIGHTS
from spmtrack_ros.conversions import bbox_to_xywh, fill_bbox, fill_stamp, stamp_to_ns
from spmtrack_ros.msg import TrackState, TrackStateArray
from spmtrack_ros.parameters import TrackerParameters
from spmtrack_ros.srv import InitTarget, RemoveTarget, SetPrimary
from spmtrack_ros.tracker_node import TrackerNode
from test.spmtrack_ros.peer import (
    BOX,
    LATCHED,
    MS,
    RELIABLE,
    Peer,
    connected,
    picture,
    start_node,
    stop_node,
)
from test.spmtrack_ros.wrong_parameters import assert_refused

pytestmark = pytest.mark.ros
OTHER_BOX = (150.0, 100.0, 40.0, 30.0)
NAN = float("nan")


@pytest.fixture(scope="module")
def running(tiny_checkpoint):
    parameters = ("diagnostics_period:=0.2", "init_timeout:=1.5", RELIABLE)
    process = start_node(*parameters, weights=tiny_checkpoint)
    peer = Peer()
    peer.collect(DiagnosticArray, "/diagnostics")
    with connected(peer, process, absent=("Traceback", "publishing failed")):
        yield peer


@pytest.fixture
def peer(running):
    """The node without a target, its topics drained."""
    running.start_over()
    return running


def test_codes_and_states_are_those_of_the_interfaces():
    for code in Code:
        places = [
            kind
            for kind in (InitTarget, RemoveTarget, SetPrimary)
            if hasattr(kind.Response, f"CODE_{code.name}")
        ]
        assert places, code
        for place in places:
            assert getattr(place.Response, f"CODE_{code.name}") == code
    for state in State:
        assert getattr(TrackState, state.name) == state
    for reason in Reason:
        assert getattr(TrackState, f"REASON_{reason.name}") == reason


def test_every_image_has_its_heartbeat_without_a_target(peer):
    for stamp in (10, 20, 30):
        assert peer.send(picture(stamp), stamp).detections == []
    assert peer.detection == []
    assert len(peer.detections) == 3


def test_a_target_is_published_with_the_header_of_its_image(peer):
    peer.send(picture(0), 5)
    reply = peer.init(label="box", id="mine")
    assert (reply.success, reply.code, reply.message) == (True, Code.OK, "")
    assert (reply.id, stamp_to_ns(reply.init_stamp), reply.frames_caught_up) == ("mine", 5 * MS, 0)
    for stamp in (10, 20, 30):
        heartbeat = peer.send(picture(0), stamp)
        (detection,) = heartbeat.detections
        assert detection.header == heartbeat.header
        assert detection.header.frame_id == "front_camera"
        assert peer.until(lambda found=detection: found in peer.detection)
        x, y, w, h = bbox_to_xywh(detection.bbox)
        assert 0 <= x < x + w <= 240 and 0 <= y < y + h <= 180
        (result,) = detection.results
        assert (detection.id, result.hypothesis.class_id) == ("mine", "box")
        assert 0 <= result.hypothesis.score <= 1
    assert peer.until(lambda: peer.status and stamp_to_ns(peer.status[-1].header.stamp) == 30 * MS)
    (state,) = peer.status[-1].targets
    assert (state.id, state.state, state.header) == ("mine", TrackState.TRACKING, detection.header)
    assert peer.status[-1].processing_time > 0


def test_a_target_in_an_earlier_image_catches_up(peer):
    for stamp in (10, 20, 30, 40):
        peer.send(picture(0), stamp)
    reply = peer.init(stamp_ms=20)
    assert reply.success and stamp_to_ns(reply.init_stamp) == 20 * MS
    assert reply.frames_caught_up == 2

    def present():
        (state,) = peer.status[-1].targets or [TrackState()]
        return stamp_to_ns(state.header.stamp) == 40 * MS

    assert peer.until(present)  # not the image of the box
    assert len(peer.send(picture(0), 50).detections) == 1
    stamps = [stamp_to_ns(each.header.stamp) // MS for each in peer.detections]
    assert stamps == [10, 20, 30, 40, 50]


def test_several_targets_in_the_order_given(peer):
    peer.send(picture(0), 10)
    for name in ("one", "two", "three"):
        assert peer.init(id=name).success
    detections = peer.send(picture(0), 20).detections
    assert [each.id for each in detections] == ["one", "two", "three"]
    assert peer.until(lambda: peer.detection and peer.detection[-1] == detections[0])
    assert peer.until(lambda: stamp_to_ns(peer.status[-1].header.stamp) == 20 * MS)
    targets = peer.status[-1].targets
    assert [(each.id, each.primary) for each in targets] == [
        ("one", True),
        ("two", False),
        ("three", False),
    ]
    assert all(0 < each.age < 60 and each.frames_lost == 0 for each in targets)
    assert all(stamp_to_ns(each.last_seen) == 20 * MS for each in targets)

    reply = peer.call(SetPrimary, "set_primary", id="four")
    assert (reply.success, reply.code) == (False, Code.UNKNOWN_ID) and "'three'" in reply.message
    assert peer.call(SetPrimary, "set_primary", id="two").success
    detections = peer.send(picture(0), 30).detections
    assert peer.until(lambda: peer.detection[-1] == detections[1])

    assert peer.call(RemoveTarget, "remove_target", id="two").success
    detections = peer.send(picture(0), 40).detections
    assert [each.id for each in detections] == ["one", "three"]
    assert peer.until(lambda: peer.detection[-1] == detections[0])
    renewed = peer.init().id  # without an id: instead of the primary target
    assert [each.id for each in peer.send(picture(0), 50).detections] == [renewed, "three"]
    assert peer.call(RemoveTarget, "remove_target").success
    assert peer.send(picture(0), 60).detections == []


def test_too_many_targets(peer):
    peer.send(picture(0), 10)
    assert all(peer.init(id=f"{number}").success for number in range(8))
    assert peer.init(id="8").code == Code.TOO_MANY_TARGETS
    assert peer.init(id="7").success and peer.init().success
    assert len(peer.send(picture(0), 20).detections) == 8


def test_a_burst_of_calls_from_several_clients_is_answered(peer):
    peer.send(picture(0), 10)
    deep = QoSProfile(depth=1000)  # by default a client keeps 10 answers
    clients = [
        peer.node.create_client(InitTarget, "/spmtrack/init_target", qos_profile=deep)
        for _ in range(4)
    ]
    assert all(client.wait_for_service(10) for client in clients)
    request = InitTarget.Request(id="one")
    fill_bbox(request.bbox, BOX)
    answers = [client.call_async(request) for _ in range(50) for client in clients]
    assert peer.until(lambda: all(answer.done() for answer in answers), 60)
    assert {answer.result().code for answer in answers} <= {Code.OK, Code.TIMEOUT}
    assert answers[0].result().code == Code.OK
    for client in clients:
        peer.node.destroy_client(client)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"box": (NAN, 50.0, 40.0, 30.0)}, Code.INVALID_BOX),
        ({"box": (60.0, 50.0, float("inf"), 30.0)}, Code.INVALID_BOX),
        ({"box": (60.0, 50.0, 0.0, 30.0)}, Code.INVALID_BOX),
        ({"box": (60.0, 50.0, 40.0, -1.0)}, Code.INVALID_BOX),
        ({"theta": 0.5}, Code.INVALID_BOX),
        ({"box": (300.0, 50.0, 40.0, 30.0)}, Code.BOX_OUTSIDE_IMAGE),
        ({"box": (60.0, 50.0, 2.0, 30.0)}, Code.BOX_TOO_SMALL),
        ({"box": (0.0, 0.0, 240.0, 180.0)}, Code.BOX_TOO_LARGE),
        ({"frame_id": "map"}, Code.WRONG_FRAME_ID),
        ({"id": "a" * 1000}, Code.INVALID_ID),
        ({"label": "a\nb"}, Code.INVALID_ID),
        ({"stamp_ms": 7}, Code.STAMP_NOT_BUFFERED),
        ({"stamp_ms": 999}, Code.STAMP_NOT_BUFFERED),  # an image that never comes
    ],
)
def test_nonsense_is_refused_and_the_node_goes_on(peer, request_, code):
    peer.send(picture(0), 5)
    peer.send(picture(0), 10)
    reply = peer.init(**request_)
    assert (reply.success, reply.code, reply.id) == (False, code, "")
    assert reply.message
    assert peer.send(picture(0), 20).detections == []
    assert peer.init().success
    assert len(peer.send(picture(0), 30).detections) == 1


def test_no_image_at_all(peer):
    assert peer.init().code == Code.NO_IMAGE


def test_images_that_cannot_be_read(peer):
    peer.send(picture(0), 10, encoding="h264")
    assert peer.until(
        lambda: peer.status and "h264" in peer.status[-1].message
    )  # without a target
    reply = peer.init()
    assert reply.code == Code.INVALID_IMAGE and "h264" in reply.message
    peer.send(picture(0), 20)
    assert peer.init().success
    assert peer.send(picture(0), 30, encoding="h264").detections == []
    assert peer.until(lambda: peer.status and "h264" in peer.status[-1].message)
    assert peer.status[-1].targets[0].state == TrackState.LOST
    assert len(peer.send(picture(0), 40).detections) == 1


def test_remove_reset_and_enable(peer):
    peer.send(picture(0), 10)
    target = peer.init().id
    assert peer.call(RemoveTarget, "remove_target", id="other").code == Code.UNKNOWN_ID
    assert len(peer.send(picture(0), 20).detections) == 1
    assert peer.call(RemoveTarget, "remove_target", id=target).success
    assert peer.send(picture(0), 30).detections == []

    assert peer.init().id != target
    assert peer.call(SetBool, "enable", data=False).success
    assert peer.until(lambda: peer.status and not peer.status[-1].enabled)
    assert peer.init().code == Code.DISABLED
    assert peer.call(SetBool, "enable", data=True).success
    assert len(peer.send(picture(0), 40).detections) == 1

    assert peer.call(Trigger, "reset").success
    assert peer.send(picture(0), 50).detections == []


def test_the_lost_threshold_can_be_set_while_the_target_is_followed(peer):
    def set_threshold(value):
        parameter = Parameter("lost_threshold", value=value).to_parameter_msg()
        (result,) = peer.call(SetParameters, "set_parameters", parameters=[parameter]).results
        return result

    peer.send(picture(0), 10)
    target = peer.init().id
    assert len(peer.send(picture(0), 20).detections) == 1
    assert set_threshold(1.0).successful
    assert peer.send(picture(0), 30).detections == []
    assert peer.until(lambda: peer.status[-1].targets[0].state == State.LOST)
    for wrong, words in [(1.5, "range"), ("high", "expected a number"), (float("nan"), "range")]:
        result = set_threshold(wrong)
        assert not result.successful and words in result.reason, result
    assert set_threshold(-1).successful  # that of the weights
    assert peer.send(picture(0), 40).detections[0].id == target


def test_the_search_for_a_lost_target_is_that_of_the_weights_unless_it_is_set():
    weights = TrackerConfig(recovery="scan", lost_threshold=0.4)
    node = SimpleNamespace(_weights_config=weights, _tracker=SimpleNamespace())
    for recovery, expected in (("weights", "scan"), ("none", "none"), ("scan", "scan")):
        TrackerNode._configure_tracker(node, TrackerParameters(recovery=recovery))
        assert node._tracker.config == replace(weights, recovery=expected)


def test_the_published_policy_is_one_switch():
    weights = TrackerConfig(recovery="scan", window_weight=0.6, reference_rule="template_twice")
    node = SimpleNamespace(_weights_config=weights, _tracker=SimpleNamespace())
    given = TrackerParameters(policy="published", recovery="scan", reference_min_confidence=0.5)
    TrackerNode._configure_tracker(node, given)
    assert node._tracker.config.in_force() == TrackerConfig(policy="published")
    TrackerNode._configure_tracker(node, TrackerParameters(reference_min_confidence=0.5))
    assert node._tracker.config.in_force() == replace(weights, reference_min_confidence=0.5)


def target_of(peer, publisher, message, patience=0.5):
    """The only target, once a message that is published best effort has started it."""
    for _ in range(50):
        publisher.publish(message)
        if peer.until(lambda: peer.status and peer.status[-1].targets, patience):
            break
    (target,) = peer.status[-1].targets
    return target


def ids_after_repeating(peer, publisher, message):
    """The targets in a new image, after a detector has repeated itself."""
    for _ in range(10):
        publisher.publish(message)
        peer.until(lambda: False, 0.02)
    return [each.id for each in peer.send(picture(0), 30).detections]


def test_init_by_detection_message(peer):
    peer.send(picture(0), 10)
    message = Detection2D(id="from_detector")
    fill_bbox(message.bbox, BOX)
    publisher = peer.node.create_publisher(Detection2D, "/spmtrack/init_detection", 1)
    assert peer.until(publisher.get_subscription_count)
    target_of(peer, publisher, message)
    assert peer.send(picture(0), 20).detections[0].id == "from_detector"
    message.id, message.bbox = "", peer.detections[-1].detections[0].bbox
    assert ids_after_repeating(peer, publisher, message) == ["from_detector"]
    peer.node.destroy_publisher(publisher)


def detection(box, name, score):
    message = Detection2D()
    fill_bbox(message.bbox, box)
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = name, score
    message.results = [result]
    return message


def test_wrong_detections_of_an_array_decide_nothing(peer):
    peer.send(picture(0), 10)
    rotated, nowhere, flat, anonymous = (detection(BOX, "cup", 0.9) for _ in range(4))
    rotated.bbox.center.theta = 0.3
    nowhere.bbox.center.position.x = NAN
    flat.bbox.size_y = 0.0
    anonymous.results[0].hypothesis.score = NAN
    good = detection(OTHER_BOX, "cup", 0.6)
    array = Detection2DArray(detections=[rotated, good, nowhere, flat, anonymous])
    publisher = peer.node.create_publisher(Detection2DArray, "/spmtrack/init_detections", 1)
    assert peer.until(publisher.get_subscription_count)
    target = target_of(peer, publisher, array)
    assert bbox_to_xywh(target.bbox) == OTHER_BOX
    good.bbox = peer.send(picture(0), 20).detections[0].bbox
    # a NaN overlaps nothing, but the good one is followed already
    assert ids_after_repeating(peer, publisher, array) == [target.id]
    peer.node.destroy_publisher(publisher)


def test_init_by_an_array_of_detections(peer):
    classes = Parameter("init_classes", value=["cup", "dog"]).to_parameter_msg()
    assert peer.call(SetParameters, "set_parameters", parameters=[classes]).results[0].successful
    peer.send(picture(0), 10)
    array = Detection2DArray()
    array.detections = [
        detection((10.0, 10.0, 20.0, 20.0), "car", 0.9),  # another class
        detection(BOX, "cup", 0.6),
        detection(OTHER_BOX, "dog", 0.8),
        detection((10.0, 10.0, 20.0, 20.0), "dog", 0.1),
    ]
    publisher = peer.node.create_publisher(Detection2DArray, "/spmtrack/init_detections", 1)
    assert peer.until(publisher.get_subscription_count)
    target = target_of(peer, publisher, array)
    assert (target.label, bbox_to_xywh(target.bbox)) == ("dog", OTHER_BOX)
    box = peer.send(picture(0), 20).detections[0].bbox
    array.detections[1].results[0].hypothesis.score = 0.9  # the other one is better now
    array.detections[2].bbox = box
    assert ids_after_repeating(peer, publisher, array) == [target.id]
    peer.node.destroy_publisher(publisher)


def test_a_camera_that_dies_and_comes_back(peer):
    timeout = Parameter("image_timeout", value=0.3).to_parameter_msg()
    assert peer.call(SetParameters, "set_parameters", parameters=[timeout]).results[0].successful
    peer.send(picture(0), 10)
    target = peer.init().id
    peer.send(picture(0), 20)

    def lost_after_the_second():  # on a busy machine perhaps before it as well
        (state,) = peer.status[-1].targets
        seen = stamp_to_ns(state.last_seen) == 20 * MS
        return seen and (state.state, state.reason) == (State.LOST, Reason.NO_IMAGE)

    assert peer.until(lost_after_the_second)
    peer.detections.clear()
    assert [each.id for each in peer.send(picture(0), 20).detections] == [target]
    timeout.value.double_value = 2.0
    peer.call(SetParameters, "set_parameters", parameters=[timeout])


def test_debug_image_while_subscribed(peer):
    peer.send(picture(0), 10)
    assert peer.init().success
    images = []
    subscription = peer.node.create_subscription(Image, "/spmtrack/debug_image", images.append, 1)
    for stamp in range(20, 520, 10):  # until the node knows of the subscription
        peer.send(picture(0), stamp)
        if peer.until(lambda: images, 0.2):
            break
    assert images[0].header in [each.header for each in peer.detections]
    peer.send(picture(0), 600, encoding="h264")  # cannot be drawn, and is no harm
    assert (images[-1].encoding, images[-1].height, images[-1].width) == ("rgb8", 180, 240)
    peer.node.destroy_subscription(subscription)


@pytest.fixture
def patient(peer):
    """Random weights may propose the whole image; two passes take long on a busy machine."""

    def set_limits(part, timeout):
        values = {"init_max_part": part, "init_timeout": timeout}
        changes = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        results = peer.call(SetParameters, "set_parameters", parameters=changes).results
        assert all(each.successful for each in results)

    set_limits(1.0, 30.0)
    yield peer
    set_limits(TrackerParameters().init_max_part, 1.5)


def test_a_point_of_a_client_is_answered_with_the_box_that_is_proposed(patient):
    peer = patient
    peer.send(picture(0), 10)
    point = (70.0, 60.0, 0.0, 0.0)
    reply = peer.init(point, stamp_ms=10, timeout=40.0, point=True, id="mine")
    assert reply.success, reply
    assert (reply.success, reply.id, stamp_to_ns(reply.init_stamp)) == (True, "mine", 10 * MS)
    x, y, w, h = bbox_to_xywh(reply.bbox)
    assert 0 <= x < x + w <= 240 and 0 <= y < y + h <= 180
    (state,) = peer.status[-1].targets
    assert bbox_to_xywh(state.bbox) == pytest.approx((x, y, w, h))
    assert peer.init(box=(240.0, 60.0, 0.0, 0.0), point=True).code == Code.BOX_OUTSIDE_IMAGE


@pytest.mark.parametrize(
    ("kind", "topic"),
    [
        (PointStamped, "/spmtrack/init_point"),
        (Point, "/image_mouse_left"),  # of rqt_image_view
        (Point, "/spmtrack/debug_image_mouse_left"),
    ],
)
def test_clicks_start_a_target(patient, kind, topic):
    peer = patient
    publisher = peer.node.create_publisher(kind, topic, 1)
    assert peer.until(publisher.get_subscription_count)
    for stamp in (10, 20):
        peer.send(picture(0), stamp)
    message = kind()
    place = message.point if kind is PointStamped else message
    place.x, place.y = 70.0, 60.0
    if kind is PointStamped:
        message.header.frame_id = "front_camera"
        fill_stamp(message.header.stamp, 10 * MS)
    target = target_of(peer, publisher, message, patience=1.0)
    assert stamp_to_ns(target.last_seen) == 20 * MS
    peer.node.destroy_publisher(publisher)


def test_debug_image_as_jpeg(peer):
    peer.send(picture(0), 10)
    assert peer.init().success
    images = []
    topic = "/spmtrack/debug_image/compressed"
    subscription = peer.node.create_subscription(CompressedImage, topic, images.append, 1)
    for stamp in range(20, 520, 10):
        peer.send(picture(0), stamp)
        if peer.until(lambda: images, 0.2):
            break
    assert images[0].header in [each.header for each in peer.detections]
    assert images[0].format == "jpeg"
    drawn = compressed_to_array(images[0])
    assert drawn.shape == (180, 240, 3) and not np.allclose(drawn, picture(0), atol=60)
    peer.node.destroy_subscription(subscription)


def test_bearing_with_camera_info(peer):
    bearings, markers = (
        peer.collect(Vector3Stamped, "bearing"),
        peer.collect(MarkerArray, "markers"),
    )
    camera = peer.node.create_publisher(CameraInfo, "camera_info", 1)
    assert peer.until(camera.get_subscription_count)
    info = CameraInfo(width=240, height=180, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [200.0, 0.0, 119.5, 0.0, 200.0, 89.5, 0.0, 0.0, 1.0]

    peer.send(picture(0), 10)
    assert peer.init().success
    for stamp in range(20, 520, 10):  # best effort
        camera.publish(info)
        peer.send(picture(0), stamp)
        if peer.until(lambda: bearings, 0.2):
            break
    (heartbeat,) = [each for each in peer.detections if each.header == bearings[0].header]
    centre = heartbeat.detections[0].bbox.center.position
    ray = bearings[0].vector
    assert (ray.x / ray.z, ray.y / ray.z) == pytest.approx(
        ((centre.x - 120) / 200, (centre.y - 90) / 200)
    )
    assert ray.x**2 + ray.y**2 + ray.z**2 == pytest.approx(1)

    assert peer.until(lambda: markers)  # drawn at the default depth of 2 m
    (box, _, arrow, _) = markers[0].markers
    assert (box.ns, box.header.frame_id, arrow.points[1].z) == ("box", "front_camera", 2.0)

    info.width = 640  # of another camera: no bearing, and no harm
    for stamp in range(600, 700, 10):
        camera.publish(info)
        peer.send(picture(0), stamp)
    peer.until(lambda: False, 0.2)
    assert stamp_to_ns(bearings[-1].header.stamp) < 690 * MS
    assert len(peer.send(picture(0), 700).detections) == 1


def test_status_is_latched(peer):
    peer.send(picture(0), 10)
    target = peer.init().id
    late = peer.collect(TrackStateArray, "status", LATCHED)
    assert peer.until(lambda: late)
    assert [each.id for each in late[-1].targets] == [target]


def test_diagnostics_count_and_explain_silence(peer):
    reports = peer.collect(DiagnosticArray, "/diagnostics")

    def counts():
        values = {each.key: each.value for each in reports[-1].status[0].values}
        return int(values["images received"]), int(values["images processed"])

    assert peer.until(lambda: reports)
    before = counts()
    peer.send(picture(0), 10)
    assert peer.until(lambda: counts() == (before[0] + 1, before[1] + 1))
    reports.clear()

    def silent():
        texts = [report.status[0].message for report in reports]
        return any("no image arrives" in text for text in texts)

    assert peer.until(silent)
    status = reports[-1].status[0]
    assert status.level == b"\x01" and "check whether the camera sends any" in status.message
    assert {each.key: each.value for each in status.values}["state"] == "IDLE"


def test_compressed_images_init_box_after_enable_and_sigterm(tiny_checkpoint):
    parameters = ["image_transport:=compressed", "init_box:=[60,50,40,30]", "label:=kite"]
    # a clock that stands still stops neither images nor diagnostics
    parameters += ["autostart:=false", "use_sim_time:=true", "diagnostics_period:=0.2"]
    process = start_node(*parameters, weights=tiny_checkpoint, name="two")
    peer = Peer("two", CompressedImage, "image/compressed")
    try:
        peer.wait_for_node(process, reset=False)
        reports = peer.collect(DiagnosticArray, "/diagnostics")
        assert peer.until(lambda: any(r.status[0].name == "/two: tracker" for r in reports))
        assert peer.call(SetBool, "enable", data=True).success
        message = CompressedImage(format="jpeg")
        message.data = cv2.imencode(".jpg", picture(0))[1].tobytes()
        for stamp in range(100):  # the first ones may be lost while the peers are connecting
            fill_stamp(message.header.stamp, (1 + stamp) * MS)
            peer.camera.publish(message)
            if peer.until(lambda: peer.detection, 0.1):
                break
        first = peer.detection[0]
        assert bbox_to_xywh(first.bbox) == BOX
        assert first.results[0].hypothesis.class_id == "kite"
    finally:
        peer.close()
        code, output = stop_node(process, signal.SIGTERM)
    assert code == 0 and "Traceback" not in output, output
    assert "loaded in" in output


@pytest.mark.parametrize(
    ("parameter", "words"),
    [("frame_buffer:=0", "frame_buffer"), ("weights:=/no/such/file", "/no/such/file")],
)
def test_a_wrong_parameter_ends_with_one_line_and_code_2(tiny_checkpoint, parameter, words):
    assert_refused("spmtrack", start_node(parameter, weights=tiny_checkpoint), words)


def follow(source, frames):
    """Mean IoU of nano over the frames after the first, each sent when the one before is done."""
    if not (BUNDLED_WEIGHTS / "nano.safetensors").is_file():
        pytest.skip("the bundled weights nano are absent")
    sequence = open_frames(str(source), frames)
    process = start_node(RELIABLE, weights="nano", name="three")
    ious = []
    with connected(Peer("three"), process) as peer:
        for index, (frame, box) in enumerate(zip(sequence, sequence.boxes_xywh, strict=True)):
            heartbeat = peer.send(frame, 10 * (index + 1))
            if index == 0:
                assert peer.init(tuple(map(float, box)), stamp_ms=10).success
                continue
            found = [bbox_to_xywh(each.bbox) for each in heartbeat.detections]
            iou = iou_xyxy(xywh_to_xyxy(found[0]), xywh_to_xyxy(box)) if found else 0.0
            ious.append(float(iou))
    return float(np.mean(ious))


def test_the_built_in_scene_is_followed():
    assert follow("synthetic", 60) >= 0.5


def test_a_real_sequence_is_followed():
    default = Path(__file__).parents[3] / "shared" / "sequences"
    folder = Path(os.environ.get("SPMTRACK_SEQUENCES", default)) / "car_chase"
    if not folder.is_dir():
        pytest.skip("the sequence car_chase is absent from SPMTRACK_SEQUENCES")
    assert follow(folder, 60) >= 0.35
