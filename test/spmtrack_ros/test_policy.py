"""config/spmtrack.policy.xml allows each node of the package what its graph shows, and no more."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

import spmtrack_core
from spmtrack_ros import nav2_follow, web
from spmtrack_ros.annotations import ImageAnnotations
from spmtrack_ros.frames import Buffer
from spmtrack_ros.image_topic import ImageTopic
from spmtrack_ros.select_target import Client
from spmtrack_ros.srv import InitTarget, RemoveTarget
from spmtrack_ros.target_pose import TargetPose
from spmtrack_ros.tracker_node import TrackerNode
from spmtrack_ros.video_publisher import VideoPublisher
from spmtrack_ros.visual_servo import VisualServo
from test.spmtrack_ros.faulty_node import FaultyTracker

pytestmark = pytest.mark.ros
POLICY = Path(__file__).parents[2] / "config" / "spmtrack.policy.xml"
OF_THE_TRACKER = {
    "detection": "spmtrack/detection",
    "bearing": "spmtrack/bearing",
    "status": "spmtrack/status",
}
OF_TF2 = {"publish": {"/tf"}, "subscribe": {"/tf", "/tf_static"}}


def make_page():
    if web.LiveServer is None:
        pytest.skip("aiohttp is absent: install the extra live")
    page = web.Web()
    settings = page.parameters
    page._images = ImageTopic(  # as while a page is open
        page, print, settings.image_transport, settings.image_reliability
    )
    return page


def make_client():
    client = Client("spmtrack", 0.2)
    for kind, name in ((InitTarget, "init_target"), (RemoveTarget, "remove_target")):
        with contextlib.suppress(TimeoutError):
            client.call(kind, name, kind.Request())
    topics = {"image": Image, "image/compressed": CompressedImage, "detections": Detection2DArray}
    for topic, kind in topics.items():
        with contextlib.suppress(TimeoutError):
            client.newest(kind, topic, bool, "message")
    return client


def make_follower():
    if nav2_follow.FollowObject is None:
        pytest.skip("nav2_msgs is absent: build third_party/nav2_msgs")
    return nav2_follow.Nav2Follow()


# node: how it is made, and the parameters of the ways to run it
NODES = {
    "spmtrack": (TrackerNode, [{}, {"image_transport": "compressed"}]),
    "spmtrack_web": (make_page, [{"port": 0}, {"port": 0, "image_transport": "compressed"}]),
    "select_target": (make_client, [{}]),
    "target_pose": (
        TargetPose,
        [{"ranges": "[depth, cloud, scan]"}, {"input": "bearing", "ranges": "[depth]"}],
    ),
    "visual_servo": (
        VisualServo,
        [{}, {"distance_from": "box"}, {"mode": "pan_tilt"}],
    ),
    "nav2_follow": (make_follower, [{}]),
    "video_publisher": (VideoPublisher, [{}]),
}
OPTIONAL = {
    "spmtrack": {"publish": {"/spmtrack/annotations"} if ImageAnnotations is None else set()},
    "target_pose": OF_TF2 if Buffer is None else {},
    "visual_servo": {"subscribe": OF_TF2["subscribe"]} if Buffer is None else {},
}
"""What the policy allows and only other packages bring about."""


def allowed(name):
    profile = next(
        each
        for each in ElementTree.parse(POLICY).iter("profile")
        if each.get("node") == name and each.get("ns") == "/"
    )
    found = {}
    for kind in ("topic", "service", "action"):
        for rules in profile.findall(f"{kind}s"):
            ((right, verdict),) = rules.attrib.items()
            assert verdict == "ALLOW"
            found[right] = {
                f"/{name}{each.text[1:]}" if each.text[0] == "~" else f"/{each.text}"
                for each in rules.findall(kind)
            }
    return found


def used(node, name):
    """As ``allowed``, as another ``node`` sees it; an action shows as its services and topics."""
    lists = {
        "publish": node.get_publisher_names_and_types_by_node,
        "subscribe": node.get_subscriber_names_and_types_by_node,
        "reply": node.get_service_names_and_types_by_node,
        "request": node.get_client_names_and_types_by_node,
    }
    if name not in node.get_node_names():
        return {right: set() for right in (*lists, "call")}
    found = {right: {each for each, _ in names(name, "/")} for right, names in lists.items()}
    actions = {each for each in set.union(*found.values()) if "/_action/" in each}
    found = {right: names - actions for right, names in found.items()}
    return found | {"call": {each.partition("/_action/")[0] for each in actions}}


def graph(name, make, parameters):
    """What one run of a node uses."""
    given = [each for item in parameters.items() for each in ("-p", "{}:={}".format(*item))]
    remapped = [part for pair in OF_THE_TRACKER.items() for part in ("-r", "{}:={}".format(*pair))]
    if name == "visual_servo":
        remapped += ["-r", "pose:=target_pose/pose_with_covariance"]
        if "mode" not in parameters:  # as follow.launch.py does
            remapped += ["-r", "~/cmd_vel:=cmd_vel"]
    if name == "nav2_follow":
        remapped += ["-r", "pose:=target_pose/pose"]
    if name == "select_target":
        remapped = []
    rclpy.init(args=["--ros-args", "-r", f"__node:={name}", *given, *remapped])
    node, context = None, Context()
    rclpy.init(context=context)
    observer = Node("observer", context=context)
    try:
        node = make()
        own = {
            # rcl makes the publisher of /rosout, which the node does not list
            "publish": {each.topic_name for each in node.publishers} | {"/rosout"},
            "subscribe": {each.topic_name for each in node.subscriptions},
            "reply": {each.service_name for each in node.services},
            "request": {node.resolve_service_name(each.srv_name) for each in node.clients},
        }
        made = set.union(*own.values())
        deadline = time.monotonic() + 5
        while made - set.union(*used(observer, name).values()) and time.monotonic() < deadline:
            time.sleep(0.02)
        # of a second node of this name in one process, others may see nothing
        seen = used(observer, name)
        return {right: names | own.get(right, set()) for right, names in seen.items()}
    finally:
        observer.destroy_node()
        context.try_shutdown()
        if node is not None:
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()
        rclpy.shutdown()


@pytest.mark.parametrize("name", NODES)
def test_the_policy_allows_what_the_node_does_and_no_more(name, monkeypatch):
    monkeypatch.setattr(spmtrack_core, "load_tracker", lambda *_, **__: FaultyTracker())
    make, runs = NODES[name]
    graphs = [graph(name, make, parameters) for parameters in runs]
    rules = allowed(name)
    for right in ("publish", "subscribe", "reply", "request", "call"):
        seen = set().union(*(each[right] for each in graphs))
        optional = OPTIONAL.get(name, {}).get(right, set())
        expected = rules.get(right, set()) - optional - {"/clock"}
        assert seen == expected, right


def test_every_program_of_the_package_has_an_enclave():
    cmake = (POLICY.parents[1] / "CMakeLists.txt").read_text()
    (programs,) = re.findall(r"set\(executables\s+([\w\s]+)\)", cmake)
    names = {"tracker_node": "spmtrack", "web": "spmtrack_web"}
    expected = {names.get(each, each) for each in programs.split()} - {"demo"}
    enclaves = ElementTree.parse(POLICY).iter("enclave")
    assert {each.get("path").strip("/") for each in enclaves} == expected == set(NODES)
