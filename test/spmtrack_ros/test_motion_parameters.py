"""The parameters of the nodes that follow: as declared, in config/follow.yaml and in the docs."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

import rclpy
from rclpy.context import Context
from rclpy.node import Node

from spmtrack_ros.nav2_follow import Nav2FollowParameters
from spmtrack_ros.parameters import read_parameters
from spmtrack_ros.range_sources import TargetPoseParameters
from spmtrack_ros.servo_parameters import VisualServoParameters

pytestmark = pytest.mark.ros
ROOT = Path(__file__).parents[2]
YAML = ROOT / "config" / "follow.yaml"
NODES = {
    "target_pose": TargetPoseParameters,
    "visual_servo": VisualServoParameters,
    "nav2_follow": Nav2FollowParameters,
}


def test_yaml_has_all_parameters_with_their_defaults_in_order():
    sections = yaml.safe_load(YAML.read_text())
    assert list(sections) == [f"/**/{name}" for name in NODES]
    for name, kind in NODES.items():
        given = sections[f"/**/{name}"]["ros__parameters"]
        declared = {row.name: row.default for row in fields(kind)}
        assert list(given) == list(declared)
        for key, default in declared.items():
            value = tuple(given[key]) if isinstance(default, tuple) else given[key]
            assert (value, type(value)) == (default, type(default)), key
    first, *lines = YAML.read_text().splitlines()
    assert first.startswith("# ros2 launch spmtrack_ros follow.launch.py")
    assert all("#" in line for line in lines if not line.endswith(":"))


@pytest.mark.parametrize("name", NODES)
def test_yaml_can_be_loaded_by_ros_in_any_namespace(name):
    context = Context()
    rclpy.init(context=context)
    file = ["--ros-args", "--params-file", str(YAML), "-r", "__ns:=/front"]
    node = Node(name, context=context, cli_args=file)
    try:
        assert node._parameter_overrides  # the section is found
        assert read_parameters(node, NODES[name]) == NODES[name]()
    finally:
        node.destroy_node()
        context.try_shutdown()


@pytest.mark.parametrize("name", NODES)
def test_the_docs_list_every_parameter_with_its_default(name):
    text = (ROOT / "docs" / "following.md").read_text()
    _, _, section = text.partition(f"### `{name}`")
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", section.partition("\n### ")[0], re.MULTILINE)
    assert [key for key, _ in rows] == [row.name for row in fields(NODES[name])]
    for (key, given), row in zip(rows, fields(NODES[name]), strict=True):
        default = list(row.default) if isinstance(row.default, tuple) else row.default
        assert yaml.safe_load(given.strip("`")) == default, key
