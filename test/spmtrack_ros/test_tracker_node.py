"""The node in another process, over real DDS, seen from a camera and a client of its services."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from spmtrack_core.session.init_request import Code
from spmtrack_core.tracking.followed import Reason, State
from spmtrack_ros.conversions import bbox_to_xywh, fill_bbox, stamp_to_ns
from spmtrack_ros.msg import TrackState
from spmtrack_ros.srv import InitTarget, RemoveTarget, SetPrimary
from test.spmtrack_ros.peer import BOX, MS, picture

pytestmark = pytest.mark.ros

NAN = float("nan")


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
