"""The launch files, as the launch system reads them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

REASON = "the package is absent: it comes with a ROS 2 distribution, not from PyPI"
pytest.importorskip("launch", reason=f"launch: {REASON}")
pytest.importorskip("launch_ros", reason=f"launch_ros: {REASON}")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from launch_ros.utilities import evaluate_parameters

from spmtrack_ros.parameters import Parameters

pytestmark = pytest.mark.ros
LAUNCH = Path(__file__).parents[2] / "launch"
TRACKER_ARGUMENTS = {
    "namespace", "node_name", "image_topic", "params_file", "rviz", "rviz_config", "log_level",
    "weights", "device", "precision", "image_transport", "image_reliability", "init_box",
    "autostart", "debug_image", "use_sim_time", "camera_info_topic", "rectified",
}  # fmt: skip


def load(name):
    description = get_launch_description_from_python_launch_file(str(LAUNCH / name))
    return description, {each.name: each for each in description.get_launch_arguments()}


def perform(description, **given):
    """The nodes that would be started, with these arguments, and the environment for them."""
    context = LaunchContext()
    context.launch_configurations.update(given)
    nodes = []
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument | SetEnvironmentVariable):
            entity.execute(context)
        else:
            nodes += entity.execute(context)
    return nodes, context


def command(node, context):
    """What comes after the executable's path."""
    node._perform_substitutions(context)
    return [perform_substitutions(context, part) for part in node.cmd[1:]]


def parameters_of(node, context):
    """The parameters that are given one by one, not by a file."""
    given = {}
    for each in evaluate_parameters(context, node._Node__parameters):
        given |= each if isinstance(each, dict) else {}
    return given


def test_tracker_arguments_are_all_described():
    _, arguments = load("tracker.launch.py")
    assert set(arguments) == TRACKER_ARGUMENTS
    assert all(each.description for each in arguments.values())
    assert arguments["log_level"].choices and arguments["image_transport"].choices
    overrides = {name for name, each in arguments.items() if each.default_value is not None
                 and perform_substitutions(LaunchContext(), each.default_value) == ""}  # fmt: skip
    assert overrides - {"namespace", "camera_info_topic", "use_sim_time"} <= {
        each.name for each in fields(Parameters)
    }


def test_demo_arguments_are_those_that_work():
    description, arguments = load("demo.launch.py")
    assert set(arguments) == {
        "source", "box", "output", "rate", "max_frames", "weights", "device", "log_level",
    }  # fmt: skip
    nodes, context = perform(description, source="it's 5.mp4", weights="5", box="1 2 3 4")
    programs = [node.node_executable for node in nodes]
    assert programs == ["tracker_node", "video_publisher", "demo"]
    assert parameters_of(nodes[0], context)["weights"] == "5"
    assert parameters_of(nodes[1], context)["source"] == "it's 5.mp4"
    assert command(nodes[2], context)[:2] == ["it's 5.mp4", "--attach"]


def test_only_the_node_unless_rviz_is_wanted():
    assert len(perform(load("tracker.launch.py")[0])[0]) == 1
    assert len(perform(load("tracker.launch.py")[0], rviz="true")[0]) == 2


@pytest.mark.parametrize(
    ("given", "topic"),
    [
        ({}, "camera_info"),
        ({"image_topic": "/left/image_raw"}, "/left/camera_info"),  # as image_transport has it
        ({"image_topic": "/left/image_raw", "camera_info_topic": "info"}, "info"),
    ],
)
def test_the_calibration_is_beside_the_images_unless_it_is_given(given, topic):
    (tracker,), context = perform(load("tracker.launch.py")[0], **given)
    assert f"camera_info:={topic}" in command(tracker, context)


def test_rviz_shows_the_image_of_the_node_under_its_name():
    given = {"rviz": "true", "namespace": "/robot", "node_name": "eye", "use_sim_time": "true"}
    (tracker, rviz), context = perform(load("tracker.launch.py")[0], **given)
    assert "/spmtrack/debug_image:=/robot/eye/debug_image" in command(rviz, context)
    for node in (tracker, rviz):
        assert parameters_of(node, context)["use_sim_time"] is True


def test_only_what_is_given_wins_over_the_file():
    (tracker,), context = perform(load("tracker.launch.py")[0], device="0", init_box="1 2 3 4")
    given = parameters_of(tracker, context)
    assert given == {"device": "0", "init_box": (1.0, 2.0, 3.0, 4.0)}


def test_a_given_profile_is_kept(monkeypatch):
    name = "FASTRTPS_DEFAULT_PROFILES_FILE"
    monkeypatch.delenv(name, raising=False)
    _, context = perform(load("tracker.launch.py")[0])
    assert context.environment[name].endswith("config/fastdds_large_images.xml")
    monkeypatch.setenv(name, "mine.xml")
    _, context = perform(load("tracker.launch.py")[0])
    assert context.environment[name] == "mine.xml"


@pytest.mark.parametrize("box", ["1 2 3 4", "[1, 2, 3.0, 4]", "1,2,3,4"])
def test_init_box_may_be_written_as_people_do(box):
    assert perform(load("tracker.launch.py")[0], init_box=box)[0]


def test_init_box_that_is_none():
    with pytest.raises(RuntimeError, match="expected 'x y w h'"):
        perform(load("tracker.launch.py")[0], init_box="left top")
