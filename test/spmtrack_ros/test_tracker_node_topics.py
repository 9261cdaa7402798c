"""Topics of the node, over real DDS: targets that they name, and what it publishes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, PointStamped, Vector3Stamped
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import MarkerArray

from spmtrack_core.data.image_messages import compressed_to_array
from spmtrack_core.session.init_request import Code
from spmtrack_ros.conversions import bbox_to_xywh, fill_bbox, fill_stamp, stamp_to_ns
from spmtrack_ros.msg import TrackStateArray
from spmtrack_ros.parameters import TrackerParameters
from test.spmtrack_ros.peer import BOX, LATCHED, MS, picture

pytestmark = pytest.mark.ros

NAN = float("nan")
OTHER_BOX = (150.0, 100.0, 40.0, 30.0)


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
    info.header.frame_id = "left_camera"  # is told, and no more
    log = peer.collect(Log, "/rosout")

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

    told = "camera_info of the frame left_camera is used for images of the frame front_camera"
    assert peer.until(lambda: any(told in each.msg for each in log))

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
