"""Names and quality of service of the node's topics, as docs/ros.md has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

import spmtrack_core
from spmtrack_ros.annotations import ImageAnnotations
from spmtrack_ros.tracker_node import TrackerNode
from test.spmtrack_ros.faulty_node import FaultyTracker
from test.spmtrack_ros.peer import RELIABLE, Peer, connected, picture, start_node

pytestmark = pytest.mark.ros
DOCS = (Path(__file__).parents[2] / "docs" / "ros.md").read_text(encoding="utf-8")
FAULTY = str(Path(__file__).with_name("faulty_node.py"))
OF_EVERY_NODE = {"rosout", "parameter_events", "clock"}
UNLIKE_THE_DOCS = {"diagnostics": "/diagnostics", "image_mouse_left": "<image>_mouse_left"}


def documented(section):
    """Topic: (type, reliable, latched, depth) of the table in this section."""
    (text,) = re.findall(rf"^## {section}\n(.*?)^## ", DOCS, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(\S+)` \| (\w+)/(\w+) \| ([\w ]+), (\d+)(, latched)? \|", text, re.M)
    assert len(rows) >= 8
    return {
        name: (f"{package}/msg/{kind}", reliability == "reliable", bool(latched), int(depth))
        for name, package, kind, reliability, depth, latched in rows
    }


def topics_of(ends, infos, spin):
    """The same of publishers or subscriptions, as the ``infos`` of another node have it."""
    found = {}
    for end in ends:
        name = end.topic_name.removeprefix("/").replace("seen/", "~/")
        if name in OF_EVERY_NODE:
            continue
        for _ in range(100):  # until it is discovered
            if seen := infos(end.topic_name):
                break
            spin()
        (info,) = seen
        found[UNLIKE_THE_DOCS.get(name, name)] = (
            info.topic_type,
            info.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
            info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
            end.qos_profile.depth,  # which is not told to others
        )
    return found


@pytest.fixture
def seen(monkeypatch):
    """What a node with these parameters publishes, and what it subscribes to."""
    monkeypatch.setattr(spmtrack_core, "load_tracker", lambda *_, **__: FaultyTracker())
    context = Context()
    rclpy.init(context=context)
    observer = Node("observer", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(observer)

    def run(*parameters):
        given = [each for parameter in parameters for each in ("-p", parameter)]
        rclpy.init(args=["--ros-args", "-r", "__node:=seen", *given])
        node = TrackerNode()

        def spin():
            executor.spin_once(timeout_sec=0.05)

        try:
            return (
                topics_of(node.publishers, observer.get_publishers_info_by_topic, spin),
                topics_of(node.subscriptions, observer.get_subscriptions_info_by_topic, spin),
            )
        finally:
            node.close()
            node.destroy_node()
            rclpy.shutdown()

    yield run
    executor.shutdown()
    observer.destroy_node()
    context.try_shutdown()


def test_topics_and_their_qos_are_those_of_the_docs(seen):
    published, subscribed = seen()
    expected = documented("Published topics")
    if ImageAnnotations is None:  # foxglove_msgs is absent
        del expected["~/annotations"]
    assert published == expected
    expected = documented("Subscribed topics")
    del expected["image/compressed"]
    assert subscribed == expected


def test_compressed_and_reliable_images_and_an_override(seen):
    override = "qos_overrides./seen/markers.publisher.reliability:=best_effort"
    published, subscribed = seen(override, "image_transport:=compressed", RELIABLE)
    expected = documented("Subscribed topics")["image/compressed"]
    assert subscribed["image/compressed"] == (expected[0], True, *expected[2:])
    assert "image" not in subscribed
    expected = documented("Published topics")["~/markers"]
    assert published["~/markers"] == (expected[0], False, *expected[2:])


@pytest.fixture
def in_a_namespace():
    program = (FAULTY, "--ros-args", "-r", "__ns:=/robot1", "--")
    process = start_node(RELIABLE, weights="none", name="eye", program=program)
    with connected(Peer("robot1/eye", topic="/robot1/image"), process) as peer:
        yield peer


def test_the_node_in_a_namespace(in_a_namespace):
    peer = in_a_namespace
    name, namespace = "eye", "/robot1"
    assert (name, namespace) in peer.node.get_node_names_and_namespaces()
    for names in (
        peer.node.get_publisher_names_and_types_by_node(name, namespace),
        peer.node.get_subscriber_names_and_types_by_node(name, namespace),
        peer.node.get_service_names_and_types_by_node(name, namespace),
    ):
        outside = {each for each, _ in names if not each.startswith("/robot1/")}
        assert outside <= {"/diagnostics", *(f"/{each}" for each in OF_EVERY_NODE)}
    peer.send(picture(0), 10)
    assert peer.init(id="a").success
    assert [each.id for each in peer.send(picture(0), 20).detections] == ["a"]
    assert peer.until(lambda: peer.status[-1].targets)


def test_annotations_arrive(in_a_namespace):
    pytest.importorskip("foxglove_msgs", reason="foxglove_msgs is absent: an optional package")
    peer = in_a_namespace
    annotations = peer.collect(ImageAnnotations, "annotations")
    peer.send(picture(0), 10)
    assert peer.init(id="a", label="cup").success
    for stamp in range(20, 520, 10):  # until the node knows of the subscription
        peer.send(picture(0), stamp)
        if peer.until(lambda: annotations and annotations[-1].texts, 0.2):
            break
    (label,), (box,) = annotations[-1].texts, annotations[-1].points
    assert label.text.split()[:2] == ["a", "cup"] and len(box.points) == 4
    assert label.timestamp in [each.header.stamp for each in peer.detections]
