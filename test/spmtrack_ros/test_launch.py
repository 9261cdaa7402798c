"""The launch files, performed by the launch system up to the start of the processes."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest

REASON = "the package is absent: it comes with a ROS 2 distribution, not from PyPI"
pytest.importorskip("launch", reason=f"launch: {REASON}")
pytest.importorskip("launch_ros", reason=f"launch_ros: {REASON}")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

import yaml
from ament_index_python.packages import get_packages_with_prefixes
from launch import LaunchContext
from launch.actions import LogInfo
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from launch_ros.actions import Node

from spmtrack_ros.fast_dds import PROFILES_VARIABLE
from spmtrack_ros.nav2_follow import Nav2FollowParameters
from spmtrack_ros.parameters import TrackerParameters
from spmtrack_ros.range_sources import TargetPoseParameters
from spmtrack_ros.servo_parameters import VisualServoParameters

pytestmark = pytest.mark.ros
LAUNCH = Path(__file__).parents[2] / "launch"
TRACKER_ARGUMENTS = {
    *("namespace", "node_name", "image_topic", "camera_info_topic", "params_file"),
    *("rviz", "rviz_config", "fixed_frame", "log_level", "respawn", "on_exit", "use_sim_time"),
    *("web", "web_host", "web_port"),
    *(row.name for row in fields(TrackerParameters)),
}
DEMO_ARGUMENTS = {"source", "box", "output", "rate", "max_frames"}


def load(name):
    description = get_launch_description_from_python_launch_file(str(LAUNCH / name))
    return description, {each.name: each for each in description.get_launch_arguments()}


def perform(name, kind=Node, found=None, **given):
    """The nodes that the launch file would start with these arguments, and the context.

    With another ``kind`` these actions. They are put into the list ``found`` one by one.
    """
    context = LaunchContext()
    context.launch_configurations.update(given)
    context._set_is_shutdown(True)  # so that a node prepares its command but does not start
    found = [] if found is None else found

    def visit(entity):
        found.extend([entity] if isinstance(entity, kind) else [])
        for each in entity.visit(context) or []:
            visit(each)

    visit(load(name)[0])
    return found, context


def command(node):
    """The arguments of the process, after the path of its executable."""
    return node.process_details["cmd"][1:]


def parameters_of(node):
    """The parameters that the process would read from its files, later files winning."""
    words, found = command(node), {}
    for option, value in pairwise(words):
        if option == "--params-file":
            for section in yaml.unsafe_load(Path(value).read_text()).values():
                found |= section["ros__parameters"]
    return found


def test_tracker_arguments_are_all_described():
    _, arguments = load("tracker.launch.py")
    assert set(arguments) == TRACKER_ARGUMENTS
    assert all(each.description for each in arguments.values())
    assert arguments["log_level"].choices and arguments["image_transport"].choices
    assert set(arguments["autostart"].choices) == {"", "true", "false"}
    for row in fields(TrackerParameters):  # empty: the value of params_file is kept
        assert perform_substitutions(LaunchContext(), arguments[row.name].default_value) == ""


def test_demo_starts_tracker_publisher_and_client():
    assert set(load("demo.launch.py")[1]) == TRACKER_ARGUMENTS | DEMO_ARGUMENTS
    given = {"source": "it's 5.mp4", "weights": "5", "box": "1 2 3 4", "node_name": "other"}
    (tracker, publisher, client), _ = perform("demo.launch.py", **given)
    programs = [node.node_executable for node in (tracker, publisher, client)]
    assert programs == ["tracker_node", "video_publisher", "demo"]
    assert parameters_of(tracker)["weights"] == "5"
    assert "__node:=spmtrack" in command(tracker)  # the client uses this name
    assert parameters_of(publisher)["source"] == "it's 5.mp4"
    assert command(client)[:2] == ["it's 5.mp4", "--attach"]


def test_rviz_is_started_on_request_only(monkeypatch, tmp_path):
    assert len(perform("tracker.launch.py")[0]) == 1
    with_rviz(monkeypatch, tmp_path)
    assert len(perform("tracker.launch.py", rviz="true")[0]) == 2


def with_rviz(monkeypatch, folder):
    """An installed package rviz2 as launch sees it."""
    program = folder / "lib" / "rviz2" / "rviz2"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    marker = folder / "share" / "ament_index" / "resource_index" / "packages" / "rviz2"
    marker.parent.mkdir(parents=True)
    marker.touch()
    paths = f"{folder}{os.pathsep}{os.environ['AMENT_PREFIX_PATH']}"
    monkeypatch.setenv("AMENT_PREFIX_PATH", paths)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"init_box": "left top"}, "init_box is 'left top': expected numbers"),
        ({"frame_buffer": "2.5"}, "frame_buffer is '2.5': expected a whole number"),
        ({"lost_threshold": "low"}, "lost_threshold is 'low': expected a number"),
        ({"params_file": "no.yaml"}, "params_file is 'no.yaml': there is no such file"),
        ({"precision": "float8"}, "float8"),
        ({"init_classes": "[cup"}, "init_classes is '[cup': expected texts, such as [one, two]"),
        ({"init_classes": "[[cup]]"}, "init_classes is '[[cup]]': expected texts"),
        ({"init_classes": "[]"}, "init_classes is '[]': expected texts"),
        ({"web": "true", "web_port": "http"}, "web_port is 'http': expected a whole number"),
        # no tracker must be left behind without its RViz
        ({"rviz": "true"}, "the package rviz2 is not installed"),
        ({"file": "follow", "follow_params_file": "no.yaml"}, "follow_params_file is 'no.yaml'"),
        ({"file": "follow", "pan_range": "x"}, "pan_range is 'x': expected numbers"),
        ({"file": "follow", "rectified": "maybe"}, "maybe"),
        ({"file": "demo", "rate": "fast"}, "rate is 'fast': expected a number"),
        ({"file": "demo", "max_frames": "2.5"}, "max_frames is '2.5': expected a whole number"),
    ],
)
def test_wrong_arguments_start_nothing(given, words):
    if "rviz" in given and "rviz2" in get_packages_with_prefixes():
        pytest.skip("rviz2 is installed")
    given, started = {"file": "tracker"} | given, []
    with pytest.raises(RuntimeError, match=re.escape(words)):
        perform(f"{given.pop('file')}.launch.py", found=started, **given)
    assert started == []


@pytest.mark.parametrize(
    ("given", "topic"),
    [
        ({}, "camera_info"),
        ({"image_topic": "/left/image_raw"}, "/left/camera_info"),  # as image_transport has it
        ({"image_topic": "/left/image_raw", "camera_info_topic": "info"}, "info"),
    ],
)
def test_camera_info_is_beside_the_images_unless_given(given, topic):
    (tracker,), _ = perform("tracker.launch.py", **given)
    assert f"camera_info:={topic}" in command(tracker)


def test_rviz_shows_the_image_of_the_node_under_its_name(monkeypatch, tmp_path):
    with_rviz(monkeypatch, tmp_path)
    given = {"rviz": "true", "namespace": "/robot", "node_name": "eye", "use_sim_time": "true"}
    (tracker, rviz), _ = perform("tracker.launch.py", **given)
    assert {"__ns:=/robot", "__node:=eye"} <= set(command(tracker))
    for name in ("debug_image", "markers"):
        assert f"/spmtrack/{name}:=/robot/eye/{name}" in command(rviz)
    assert "/target_pose/marker:=/robot/target_pose/marker" in command(rviz)
    assert "/camera_info:=camera_info" in command(rviz) and "-f" not in command(rviz)
    for node in (tracker, rviz):
        assert parameters_of(node)["use_sim_time"] is True


def test_rviz_in_another_frame(monkeypatch, tmp_path):
    with_rviz(monkeypatch, tmp_path)
    given = {"rviz": "true", "fixed_frame": "eye"}
    (_, rviz), _ = perform("tracker.launch.py", **given)
    words = command(rviz)
    assert words[words.index("-f") + 1] == "eye"


def test_rviz_without_a_picture_says_why(monkeypatch, tmp_path):
    with_rviz(monkeypatch, tmp_path)
    file = tmp_path / "mine.yaml"

    def said(**given):
        found, context = perform("tracker.launch.py", LogInfo, rviz="true", **given)
        return [perform_substitutions(context, each.msg) for each in found]

    text = "RViz shows no picture: debug_image is false"
    assert (said(), said(debug_image="false")) == ([], [text])
    for section, words in (
        ("/**: {%s}", [text]),
        ("/robot/spmtrack: {%s}", [text]),
        ("robot: {spmtrack: {%s}}", [text]),
        ("/: {robot/spmtrack: {%s}}", [text]),
        ("/**/robot/spmtrack: {%s}", [text]),
        ("/*/spmtrack: {%s}", [text]),
        ("/*: {%s}", []),
        ("/other/spmtrack: {%s}", []),
        ("spmtrack:", []),  # the node tells what is wrong
        ("[%s", []),
    ):
        file.write_text(section.replace("%s", "ros__parameters: {debug_image: false}"))
        given = {"params_file": str(file), "namespace": "robot"}
        assert (said(**given), said(**given, debug_image="true")) == (words, []), section


def test_a_node_that_ends_at_once_is_not_started_again_at_once():
    (tracker,), _ = perform("tracker.launch.py", respawn="true")
    assert tracker._ExecuteLocal__respawn_delay == 5


def test_the_live_page_is_started_on_request_for_the_tracker_of_this_name(tmp_path):
    given = {"web": "true", "namespace": "/robot", "node_name": "eye", "image_topic": "/cam/raw"}
    (tracker, page), _ = perform("tracker.launch.py", image_transport="compressed", **given)
    assert page.node_executable == "web"
    assert {"__ns:=/robot", "__node:=eye_web", "image:=/cam/raw"} <= set(command(page))
    values = parameters_of(page)
    assert values == {
        "tracker": "eye",
        "host": "127.0.0.1",
        "port": 8642,
        "image_transport": "compressed",
        "image_reliability": "best_effort",
        "max_pixels": 50_000_000,
    }
    values = parameters_of(tracker)  # time to draw a box, also at 1080p
    assert values["frame_buffer"] == 150
    assert 1e6 * values["frame_buffer_mb"] >= 150 * 1920 * 1080 * 3
    limits = {"frame_buffer": "20", "frame_buffer_mb": "30"}
    (tracker, _), _ = perform("tracker.launch.py", **limits, **given)
    values = parameters_of(tracker)
    assert (values["frame_buffer"], values["frame_buffer_mb"]) == (20, 30)
    file = tmp_path / "mine.yaml"
    file.write_text("/robot/eye: {ros__parameters: {frame_buffer: 60, max_pixels: 9}}")
    (tracker, page), _ = perform("tracker.launch.py", params_file=str(file), **given)
    values = parameters_of(tracker)
    assert (values["frame_buffer"], values["frame_buffer_mb"]) == (60, 1000)
    assert parameters_of(page)["max_pixels"] == 9
    (tracker,), _ = perform("tracker.launch.py")
    assert parameters_of(tracker)["frame_buffer"] == 30


def test_every_topic_of_the_rviz_file_is_one_of_the_node_and_remapped(monkeypatch, tmp_path):
    with_rviz(monkeypatch, tmp_path)
    config = yaml.safe_load((LAUNCH.parent / "config" / "tracker.rviz").read_text())
    shown = config["Visualization Manager"]["Displays"]
    topics = {each["Topic"]["Value"]: each["Class"] for each in shown if "Topic" in each}
    assert topics == {
        "/spmtrack/debug_image": "rviz_default_plugins/Image",
        "/spmtrack/markers": "rviz_default_plugins/MarkerArray",
        "/target_pose/marker": "rviz_default_plugins/Marker",
        "/target_pose/pose_with_covariance": "rviz_default_plugins/PoseWithCovariance",
        "/camera_info": "rviz_default_plugins/CameraInfo",
    }
    (_, rviz), _ = perform("tracker.launch.py", rviz="true")
    remapped = {word.split(":=")[0] for word in command(rviz) if ":=" in word}
    assert set(topics) <= remapped


def test_given_arguments_replace_values_of_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("/**:\n  ros__parameters:\n    label: cup\n    device: cuda\n")
    given = {"device": "0", "init_box": "1 2 3 4", "frame_buffer": "5", "lost_threshold": "1"}
    (tracker,), _ = perform("tracker.launch.py", params_file=str(file), **given)
    assert parameters_of(tracker) == {
        "label": "cup",
        "device": "0",
        "init_box": (1.0, 2.0, 3.0, 4.0),  # as launch_ros writes lists
        "frame_buffer": 5,
        "lost_threshold": 1.0,
    }


def test_a_given_profile_is_kept(monkeypatch):
    monkeypatch.delenv(PROFILES_VARIABLE, raising=False)
    _, context = perform("tracker.launch.py")
    assert context.environment[PROFILES_VARIABLE].endswith("config/fastdds_large_images.xml")
    monkeypatch.setenv(PROFILES_VARIABLE, "mine.xml")
    _, context = perform("tracker.launch.py")
    assert context.environment[PROFILES_VARIABLE] == "mine.xml"


@pytest.mark.parametrize("box", ["1 2 3 4", "[1, 2, 3.0, 4]", "1,2,3,4"])
def test_init_box_in_the_usual_notations(box):
    (tracker,), _ = perform("tracker.launch.py", init_box=box)
    assert parameters_of(tracker)["init_box"] == (1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ('[""]', [""]),  # the default
        ("person", ["person"]),
        ("person car", ["person", "car"]),
        ("[person, car]", ["person", "car"]),
        ("[person car]", ["person", "car"]),
        ('["person"]', ["person"]),
        ("[traffic light, 'stop sign']", ["traffic light", "stop sign"]),
        ("traffic light, car", ["traffic light", "car"]),
        ('"traffic light"', ["traffic light"]),
        ("[1, no]", ["1", "no"]),  # class_ids may be numbers
    ],
)
def test_lists_of_texts_as_yaml_or_words(text, classes):
    (tracker,), _ = perform("tracker.launch.py", init_classes=text)
    assert [*parameters_of(tracker)["init_classes"]] == classes


def test_two_trackers_in_namespaces_of_their_own():
    nodes, _ = perform("two_trackers.launch.py", device="cpu")
    assert [node.node_executable for node in nodes] == ["tracker_node"] * 2
    for node, camera in zip(nodes, ("left", "right"), strict=True):
        words = command(node)
        assert {f"__ns:=/{camera}", "__node:=spmtrack"} <= set(words)
        assert f"image:=/{camera}/image_raw" in words
        assert f"camera_info:=/{camera}/camera_info" in words
        assert parameters_of(node)["device"] == "cpu"  # given for both


FOLLOW_NODES = (TargetPoseParameters, VisualServoParameters, Nav2FollowParameters)
FOLLOW_ARGUMENTS = {
    *("follower", "follow_params_file", "depth_topic", "scan_topic", "points_topic"),
    *("odom_topic", "cmd_vel_topic"),
    *(row.name for kind in FOLLOW_NODES for row in fields(kind)),
}


def test_follow_arguments_are_all_described():
    _, arguments = load("follow.launch.py")
    assert set(arguments) == TRACKER_ARGUMENTS | FOLLOW_ARGUMENTS
    assert all(each.description for each in arguments.values())
    assert set(arguments["follower"].choices) == {"servo", "nav2", "none"}


def test_follow_starts_tracker_pose_and_servo_connected_with_each_other():
    given = {"node_name": "eye", "namespace": "robot", "image_topic": "/cam/image"}
    given |= {"distance": "2", "ranges": "scan size"}
    given |= {f"{name}_topic": f"/cam/{name}" for name in ("depth", "scan", "points", "odom")}
    (tracker, pose, servo), _ = perform("follow.launch.py", **given, pan_range="-1 1")
    programs = [node.node_executable for node in (tracker, pose, servo)]
    assert programs == ["tracker_node", "target_pose", "visual_servo"]
    for node in (pose, servo):
        assert "__ns:=/robot" in command(node) and "detection:=eye/detection" in command(node)
        assert "camera_info:=/cam/camera_info" in command(node)
    for name in ("depth", "scan", "points"):
        assert f"{name}:=/cam/{name}" in command(pose)
    assert "odom:=/cam/odom" in command(servo) and "status:=eye/status" in command(servo)
    assert "pose:=target_pose/pose_with_covariance" in command(servo)
    assert "~/cmd_vel:=cmd_vel" in command(servo)
    assert [*parameters_of(pose)["ranges"]] == ["scan", "size"]
    found = parameters_of(servo)
    assert (found["distance"], found["enabled"], *found["pan_range"]) == (2.0, False, -1, 1)


def test_a_base_does_not_hear_the_commands_of_a_pan_tilt_unit(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("/**/visual_servo:\n  ros__parameters:\n    mode: pan_tilt\n")
    by_file = {"follow_params_file": str(file), "namespace": "robot"}
    for given in ({"mode": "pan_tilt"}, by_file):
        (*_, servo), _ = perform("follow.launch.py", **given)
        assert "~/cmd_vel:=visual_servo/cmd_vel" in command(servo)
    (*_, servo), _ = perform("follow.launch.py", mode="pan_tilt", cmd_vel_topic="/ptu/cmd_vel")
    assert "~/cmd_vel:=/ptu/cmd_vel" in command(servo)


def test_follow_without_a_robot():
    nodes, _ = perform("follow.launch.py", follower="none")
    assert [node.node_executable for node in nodes] == ["tracker_node", "target_pose"]


@pytest.mark.skipif(
    "nav2_msgs" not in get_packages_with_prefixes(), reason="the package nav2_msgs is absent"
)
def test_follow_with_nav2_and_a_clear_line_without_it(monkeypatch):
    nodes, _ = perform("follow.launch.py", follower="nav2")
    assert nodes[-1].node_executable == "nav2_follow"
    assert "pose:=target_pose/pose" in command(nodes[-1])
    paths = os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
    without = [path for path in paths if not (Path(path) / "share" / "nav2_msgs").exists()]
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(without))
    started = []
    with pytest.raises(RuntimeError, match="Nav2 is not installed"):
        perform("follow.launch.py", found=started, follower="nav2")
    assert started == []
