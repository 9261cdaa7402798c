"""The node under a lifecycle manager, and its end in every phase."""

from __future__ import annotations

import shutil
import signal
import time
import weakref
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")
pytest.importorskip("lifecycle_msgs", reason="lifecycle_msgs is absent: no ROS 2 here")

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

import spmtrack_core
from spmtrack_core.session.init_request import Code
from spmtrack_ros.conversions import fill_image
from spmtrack_ros.srv import InitTarget
from spmtrack_ros.tracker_node import TrackerNode
from test.spmtrack_ros.faulty_node import FaultyTracker
from test.spmtrack_ros.peer import (
    RELIABLE,
    STARTUP,
    Peer,
    connected,
    output_of,
    picture,
    start_node,
    stop_node,
)

pytestmark = pytest.mark.ros


class Manager(Peer):
    """A client of the node's lifecycle services as well."""

    def state(self):
        return self.call(GetState, "get_state").current_state.id

    def change(self, transition):
        request = Transition(id=transition)
        return self.call(ChangeState, "change_state", STARTUP, transition=request).success

    def send_until_answered(self, stamp):
        """The subscription of a node that was just activated takes a moment to be discovered."""
        assert self.until(self.camera.get_subscription_count)
        for each in range(stamp, stamp + 100):
            self.send(picture(0), each, wait=False)
            if self.until(lambda: self.detections, 0.2):
                return
        pytest.fail("no heartbeat")


def test_the_life_of_a_managed_node(tiny_checkpoint, tmp_path):
    weights = tmp_path / "weights.safetensors"
    process = start_node("lifecycle_autostart:=false", RELIABLE, weights=weights, name="managed")
    manager = Manager("managed")
    try:
        client = manager.node.create_client(GetState, "/managed/get_state")
        assert client.wait_for_service(STARTUP), output_of(process)
        assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
        assert not manager.change(Transition.TRANSITION_CONFIGURE)  # there is no such file
        assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
        assert "cannot configure: no weights" in output_of(process)

        shutil.copy(tiny_checkpoint, weights)
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.state() == State.PRIMARY_STATE_INACTIVE
        assert manager.init().code == Code.NOT_READY

        for stamp in (1000, 2000):  # also the second time
            manager.detections.clear()
            assert manager.change(Transition.TRANSITION_ACTIVATE)
            manager.send_until_answered(stamp)
            assert manager.init().success
            assert manager.change(Transition.TRANSITION_DEACTIVATE)
            assert manager.until(lambda: manager.status and not manager.status[-1].targets)
            assert manager.init().code == Code.NOT_READY

        assert manager.change(Transition.TRANSITION_CLEANUP)
        assert manager.until(lambda: not manager.node.count_publishers("/managed/detections"))
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.change(Transition.TRANSITION_ACTIVATE)
        manager.detections.clear()
        manager.send_until_answered(3000)
        manager.clients.pop("init_target")  # of the services before the cleanup
        assert manager.init().success
        assert manager.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert manager.state() == State.PRIMARY_STATE_FINALIZED
    finally:
        manager.close()
        code, output = stop_node(process)
    assert code == 0 and "Traceback" not in output, output


def test_cleanup_lets_go_of_the_network(monkeypatch):
    """Untested here is the memory of a GPU, which is given back once nothing refers to it."""
    rclpy.init(args=["--ros-args", "-p", "init_box:=[10, 10, 50, 50]"])
    try:
        monkeypatch.setattr(spmtrack_core, "load_tracker", lambda *_, **__: FaultyTracker())
        node = TrackerNode()
        for _ in range(2):
            network = weakref.ref(node._tracker)
            node.session.push(1, fill_image(Image(), picture(0), Header()))
            deadline = time.monotonic() + 10
            while not node.session.snapshot().targets and time.monotonic() < deadline:
                time.sleep(0.01)
            assert node.session.snapshot().targets
            node.trigger_deactivate()
            node.trigger_cleanup()
            assert network() is None
            node.trigger_configure()
            node.trigger_activate()
        node.close()
        node.destroy_node()
    finally:
        rclpy.shutdown()


@pytest.fixture
def in_process(monkeypatch):
    """A node in this process with a tracker that needs no weights."""
    monkeypatch.setattr(spmtrack_core, "load_tracker", lambda *_, **__: FaultyTracker())
    rclpy.init(args=["--ros-args", "-r", "__node:=here", "-p", "init_timeout:=60.0"])
    node = TrackerNode()
    yield node
    node.close()
    node.destroy_node()
    rclpy.shutdown()


def test_a_failed_configure_lets_go_of_the_network(in_process, monkeypatch):
    """The error's traceback refers to it: out of memory, it would stay in memory."""
    networks = []

    class TooLarge(FaultyTracker):
        def warm_up(self):
            networks.append(weakref.ref(self))
            raise RuntimeError("out of memory")

    monkeypatch.setattr(spmtrack_core, "load_tracker", lambda *_, **__: TooLarge())
    in_process.trigger_deactivate()
    in_process.trigger_cleanup()
    assert in_process.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert networks and networks[0]() is None


def shut_down(node):
    node.trigger_shutdown()


def clean_up(node):
    node.trigger_deactivate()
    node.trigger_cleanup()


def fail(node):
    reset = node.session.reset

    def once():
        node.session.reset = reset
        raise RuntimeError("of a transition")

    node.session.reset = once
    assert node.trigger_deactivate() == TransitionCallbackReturn.ERROR


@pytest.mark.parametrize("leave", [shut_down, clean_up, fail])
def test_a_waiting_caller_is_answered_when_the_services_close(in_process, leave):
    executor = SingleThreadedExecutor()
    executor.add_node(in_process)
    peer = Peer("here")

    def until(condition):
        def spun():
            executor.spin_once(timeout_sec=0.02)
            return condition()

        return peer.until(spun)

    try:
        client = peer.node.create_client(InitTarget, "/here/init_target")
        resets = peer.node.create_client(Trigger, "/here/reset")
        assert until(lambda: client.service_is_ready() and resets.service_is_ready())
        answers = [client.call_async(future_request()) for _ in range(2)]
        assert until(lambda: in_process._offered._unanswered == 2)
        # the node does not spin meanwhile: the middleware holds these calls
        late = [client.call_async(future_request()) for _ in range(5)]
        reset = resets.call_async(Trigger.Request())
        peer.until(lambda: False, 0.2)
        leave(in_process)
        assert until(lambda: all(answer.done() for answer in [*answers, *late, reset]))
        assert {answer.result().code for answer in answers} == {Code.CANCELLED}
        assert {answer.result().code for answer in late} == {Code.NOT_READY}
        assert not reset.result().success and "not active" in reset.result().message
        assert until(lambda: not client.service_is_ready())
    finally:
        peer.close()


def future_request():
    """A target in an image that never comes."""
    request = InitTarget.Request()
    request.header.stamp.sec = 2_000_000_000
    request.bbox.size_x = request.bbox.size_y = 20.0
    return request


def test_a_waiting_caller_is_answered_at_the_end(tiny_checkpoint):
    process = start_node("init_timeout:=60.0", RELIABLE, weights=tiny_checkpoint, name="ending")
    with connected(Peer("ending"), process) as peer:
        client = peer.node.create_client(InitTarget, "/ending/init_target")
        assert client.wait_for_service(10)
        answer = client.call_async(future_request())
        peer.until(lambda: False, 0.5)
        process.send_signal(signal.SIGTERM)
        assert peer.until(answer.done)
        assert answer.result().code == Code.CANCELLED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_pytorch_is_imported(tiny_checkpoint, number):
    process = start_node("runtime:=torch", weights=tiny_checkpoint, name="early")
    maps, deadline = Path(f"/proc/{process.pid}/maps"), time.monotonic() + STARTUP
    while "libtorch" not in maps.read_text():
        assert process.poll() is None and time.monotonic() < deadline, output_of(process)
        time.sleep(0.01)
    assert stop_node(process, number) == (0, "")
