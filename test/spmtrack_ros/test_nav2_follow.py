"""The node `nav2_follow` in another process, with a following server that stands in for Nav2."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("nav2_msgs.action", reason="nav2_msgs is absent: build third_party/nav2_msgs")

from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool

from test.spmtrack_ros import following_server
from test.spmtrack_ros.following_server import FollowingServer
from test.spmtrack_ros.motion_peer import Surroundings, header_at, start
from test.spmtrack_ros.peer import output_of, start_process, stop_node

pytestmark = pytest.mark.ros


@pytest.fixture
def world():
    world = Surroundings()
    yield world
    world.close()


@pytest.fixture
def serve(world):
    """Starts a following server, which would outlive its node."""
    servers = []

    def starter(name="follow_object"):
        servers.append(FollowingServer(world.node, name))
        return servers[-1]

    yield starter
    for each in servers:
        each.server.destroy()


@pytest.fixture
def run(world):
    processes = []

    def starter(*parameters, remap=()):
        processes.append(start("nav2_follow", *parameters, "retry_period:=0.3", remap=remap))
        client = world.node.create_client(SetBool, "/nav2_follow/enable")
        assert world.until(client.service_is_ready, 60.0), output_of(processes[-1])
        return processes[-1]

    yield starter
    for process in processes:
        code, output = stop_node(process)
        assert code == 0 and "Traceback" not in output, output


def show_poses(world, condition, timeout=5.0):
    """Publish poses until the condition holds."""
    for _ in range(round(timeout / 0.1)):
        world.publish("pose", PoseStamped(header=header_at(world.now())))
        if world.until(condition, 0.1):
            return True
    return False


def test_a_goal_while_enabled_again_after_a_failure_and_none_after_disabling(world, serve, run):
    server = serve()
    process = run("max_duration:=30.0")
    assert not show_poses(world, lambda: server.goals, 1.0)  # off by default
    world.call(SetBool, "/nav2_follow/enable", data=True)
    assert show_poses(world, lambda: server.active)
    assert (server.goals[0].pose_topic, server.goals[0].tracked_frame) == ("/pose", "")
    assert server.goals[0].max_duration.sec == 30
    assert not show_poses(world, lambda: len(server.goals) > 1, 0.6)  # one is enough
    server.active.set_result("abort")
    assert show_poses(world, lambda: len(server.goals) == 2 and server.active)
    assert "gave up with error 902: no object" in output_of(process)
    world.call(SetBool, "/nav2_follow/enable", data=False)
    assert world.until(lambda: server.cancelled == 1)
    assert not show_poses(world, lambda: len(server.goals) > 2, 0.6)


def test_a_frame_and_a_goal_that_ends_with_the_node(world, serve, run):
    server = serve()
    process = run("follow_by:=frame", "tf_frame:=cup", "enabled:=true")
    assert show_poses(world, lambda: server.active)
    assert (server.goals[0].pose_topic, server.goals[0].tracked_frame) == ("", "cup")
    process.terminate()
    assert world.until(lambda: server.cancelled == 1)


def test_an_action_of_another_name_by_remapping(world, serve, run):
    server = serve("/robot/follow_object")
    run("enabled:=true", remap=["follow_object:=/robot/follow_object"])
    assert show_poses(world, lambda: server.active)


def test_a_server_that_is_absent_or_rejects_is_told(world, serve, run):
    process = run("enabled:=true")
    show_poses(world, lambda: False, 0.6)
    assert "no action server /follow_object: start Nav2's following server" in output_of(process)
    server = serve()
    server.accept = False
    assert show_poses(world, lambda: len(server.goals) >= 2)
    assert world.until(lambda: "rejected the goal" in output_of(process))


def test_following_goes_on_after_the_server_was_killed_and_started_again(world, run):
    def serving(process):
        return show_poses(world, lambda: "goal" in output_of(process), 10.0)

    command = [sys.executable, following_server.__file__]
    servers = [start_process(command)]
    process = run("enabled:=true")
    try:
        assert serving(servers[0])
        servers[0].kill()  # without a word: DDS holds it for alive for a while
        servers.append(start_process(command))
        assert serving(servers[1])
        assert "has ended or was started again" in output_of(process)
    finally:
        for each in servers:
            each.kill()
            each.wait()


def test_a_server_that_ends_well_is_seen_at_once_and_enabling_again_helps(world, serve, run):
    server = FollowingServer(world.node)
    process = run("enabled:=true")
    assert show_poses(world, lambda: server.active)
    server.server.destroy()
    assert show_poses(world, lambda: "no action server /follow_object" in output_of(process))
    again = serve()
    assert show_poses(world, lambda: again.active)
    for on in (False, True):
        world.call(SetBool, "/nav2_follow/enable", data=on)
    assert show_poses(world, lambda: len(again.goals) == 2)


def test_a_goal_without_an_answer_is_sent_again_and_its_late_answer_cancelled(world, serve, run):
    hung = Node("hung", context=world.context)
    server = FollowingServer(hung)
    process = run("enabled:=true")
    assert show_poses(world, lambda: "no answer to the goal within 3 s" in output_of(process))
    executor = SingleThreadedExecutor(context=world.context)
    executor.add_node(hung)

    def cancelled():
        executor.spin_once(timeout_sec=0.01)
        return server.cancelled

    try:
        assert show_poses(world, cancelled)
        assert len(server.goals) == 2
        assert not show_poses(world, lambda: cancelled() > 1, 0.5)
    finally:
        executor.shutdown()
        server.server.destroy()
        hung.destroy_node()


def test_without_nav2_the_node_ends_with_one_line(tmp_path, monkeypatch):
    (tmp_path / "nav2_msgs").mkdir()
    (tmp_path / "nav2_msgs" / "__init__.py").touch()  # hides the real one
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    process = start("nav2_follow")
    assert process.wait(60) == 2
    output = output_of(process)
    assert "install Nav2 with opennav_following" in output and output.count("\n") == 1
