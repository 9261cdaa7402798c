"""The node over real DDS while its tracker throws, hangs or lacks memory, and storms of calls."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

from diagnostic_msgs.msg import DiagnosticArray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from spmtrack_core.session.init_request import Code
from spmtrack_core.tracking.followed import Reason, State
from spmtrack_ros.srv import InitTarget, RemoveTarget, SetPrimary
from test.spmtrack_ros.faulty_node import HANGS, NO_MEMORY, THROWS
from test.spmtrack_ros.peer import BOX, RELIABLE, Peer, start_node, stop_node

pytestmark = pytest.mark.ros


def frame(value=0):
    return np.full((180, 240, 3), value, np.uint8)


@pytest.fixture(scope="module")
def running():
    parameters = ("diagnostics_period:=0.2", "init_timeout:=1.0", "processing_timeout:=0.5")
    program = (str(Path(__file__).with_name("faulty_node.py")),)
    process = start_node(*parameters, RELIABLE, weights="none", name="faulty", program=program)
    peer = Peer("faulty")
    peer.wait_for_node(process)
    yield peer
    peer.close()
    code, output = stop_node(process, signal.SIGTERM)
    assert code == 0 and "Traceback" not in output, output


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
    assert peer.init().code == Code.TIMEOUT
    request = InitTarget.Request()
    request.bbox.size_x = request.bbox.size_y = BOX[2]
    client = peer.clients["init_target"]
    answer = client.call_async(request)
    assert peer.until(answer.done) and answer.result().code == Code.TIMEOUT
    assert peer.call(RemoveTarget, "remove_target").success
