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
from launch_ros.actions import Node

from spmtrack_ros.parameters import Parameters

pytestmark = pytest.mark.ros
LAUNCH = Path(__file__).parents[2] / "launch"
TRACKER_ARGUMENTS = {
    "namespace", "node_name", "image_topic", "params_file", "use_sim_time", "rviz", "rviz_config",
    "log_level", "weights", "device", "image_transport", "image_reliability", "init_box",
    "autostart", "debug_image",
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
        elif isinstance(entity, Node):
            nodes += [entity] if entity.condition.evaluate(context) else []
        else:
            nodes += entity.execute(context)
    return nodes, context


def test_tracker_arguments_are_all_described():
    _, arguments = load("tracker.launch.py")
    assert set(arguments) == TRACKER_ARGUMENTS
    assert all(each.description for each in arguments.values())
    assert arguments["log_level"].choices and arguments["image_transport"].choices
    overrides = {name for name, each in arguments.items() if each.default_value is not None
                 and perform_substitutions(LaunchContext(), each.default_value) == ""}  # fmt: skip
    assert overrides - {"namespace"} <= {each.name for each in fields(Parameters)}


def test_demo_has_the_tracker_arguments_too():
    _, arguments = load("demo.launch.py")
    assert set(arguments) == TRACKER_ARGUMENTS | {"source", "box", "output", "rate", "max_frames"}


def test_only_the_node_unless_rviz_is_wanted():
    assert len(perform(load("tracker.launch.py")[0])[0]) == 1
    assert len(perform(load("tracker.launch.py")[0], rviz="true")[0]) == 2


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
