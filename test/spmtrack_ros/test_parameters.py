"""The parameters as declared, as in config/tracker.yaml, and as a user may write them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")

import rclpy
from rclpy.context import Context
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from spmtrack_ros.parameters import TrackerParameters, read_parameters
from spmtrack_ros.video_publisher import PublisherParameters

pytestmark = pytest.mark.ros
YAML = Path(__file__).parents[2] / "config" / "tracker.yaml"


@pytest.fixture(scope="module")
def context():
    context = Context()
    rclpy.init(context=context)
    yield context
    context.try_shutdown()


@pytest.fixture
def make_node(context):
    nodes = []

    def make(cli=(), **overrides):
        given = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(Node("probe", context=context, parameter_overrides=given, cli_args=cli))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_yaml_has_all_parameters_with_their_defaults_in_order():
    given = yaml.safe_load(YAML.read_text())["/**"]["ros__parameters"]
    declared = {each.name: each.default for each in fields(TrackerParameters)}
    assert list(given) == list(declared)
    for name, default in declared.items():
        value = tuple(given[name]) if isinstance(default, tuple) else given[name]
        assert (value, type(value)) == (default, type(default)), name


def test_yaml_has_a_command_on_line_one_and_a_comment_on_each_value():
    first, *lines = YAML.read_text().splitlines()
    assert first.startswith("# ros2 launch spmtrack_ros tracker.launch.py")
    assert all("#" in line for line in lines if not line.endswith(":"))


def test_yaml_can_be_loaded_by_ros(make_node):
    node = make_node(cli=["--ros-args", "--params-file", str(YAML)])
    assert read_parameters(node, TrackerParameters) == TrackerParameters()


def test_every_parameter_is_described_and_read_only_unless_live(make_node):
    node = make_node()
    assert read_parameters(node, TrackerParameters) == TrackerParameters()
    for each in fields(TrackerParameters):
        descriptor = node.describe_parameter(each.name)
        assert descriptor.read_only != each.metadata["live"], each.name
        assert descriptor.description.endswith("."), each.name
        assert bool(each.metadata["bounds"]) == bool(
            descriptor.floating_point_range or descriptor.integer_range
        )
    live, frozen = Parameter("label", value="new"), Parameter("weights", value="new")
    assert [each.successful for each in node.set_parameters([live, frozen])] == [True, False]


def test_changed_values_are_checked():
    assert TrackerParameters().changed({"lost_threshold": 1, "label": "dog"}) == TrackerParameters(
        lost_threshold=1.0, label="dog"
    )
    for values in ({"lost_threshold": 2.0}, {"lost_threshold": None}, {"label": 5}):
        with pytest.raises(ValueError, match=next(iter(values))):
            TrackerParameters().changed(values)


def test_whole_numbers_are_accepted_as_real_ones(make_node):
    settings = read_parameters(make_node(init_timeout=3, init_box=[1, 2, 3, 4]), TrackerParameters)
    assert settings.init_timeout == 3.0 and isinstance(settings.init_timeout, float)
    assert settings.init_box == (1.0, 2.0, 3.0, 4.0) and settings.has_init_box


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"frame_buffer": 0}, "'frame_buffer' is 0: expected 1 to 300"),
        ({"frame_buffer": 2.5}, "'frame_buffer' is 2.5: expected a whole number"),
        ({"init_timeout": 1000.0}, "'init_timeout' is 1000.0: expected 0.1 to 60"),
        ({"init_timeout": 1000}, "'init_timeout' is 1000.0: expected 0.1 to 60"),
        ({"init_timeout": float("nan")}, "'init_timeout' is nan: expected"),
        ({"init_timeout": "soon"}, "'init_timeout' is 'soon': expected a number"),
        ({"init_timeout": True}, "'init_timeout' is True: expected a number"),
        ({"confidence_weight": 0.001}, "is 0.001: expected 0.01 to 1, or -1"),
        ({"lost_threshold": -0.5}, "'lost_threshold' is -0.5: expected 0 to 1, or -1"),
        ({"label": "two\nlines"}, "'label': label is 'two\\nlines': expected no control"),
        ({"max_pixels": 179_000_000}, "is 179000000: expected 1 to 1.78e+08"),  # Pillow's limit
        ({"init_classes": [1.0, 2.0]}, "expected a list of texts"),
        ({"weights": 5}, "'weights' is 5: expected a text"),
        ({"autostart": 1}, "'autostart' is 1: expected true or false"),
        ({"recovery": "maybe"}, "'maybe': expected weights or none or scan"),
        ({"image_transport": "theora"}, "'theora': expected raw or compressed"),
        ({"image_reliability": "RELIABLE"}, "expected best_effort or reliable"),
        ({"init_box": [1.0, 2.0]}, "expected four finite numbers"),
        ({"init_box": [1.0, 2.0, 3.0, float("inf")]}, "expected four finite numbers"),
        ({"init_box": [1.0, 2.0, 0.0, 3.0]}, "expected a positive width and height"),
        ({"init_box": "1 2 3 4"}, "expected a list of numbers"),
        ({"init_box": 3.0}, "expected a list of numbers"),
    ],
)
def test_wrong_values_are_rejected(make_node, overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_parameters(make_node(**overrides), TrackerParameters)


def test_a_parameter_that_does_not_exist_is_told_with_the_nearest_name(make_node, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    frame_bufer: 9\n    colour_of_hair: red\n")
    given = ["--ros-args", "--params-file", str(file), "-p", "lost_treshold:=0.9"]
    node = make_node(given, label="cat")
    texts = []
    node.get_logger = lambda: SimpleNamespace(warning=texts.append)
    read_parameters(node, TrackerParameters)
    assert texts == [
        "there is no parameter 'colour_of_hair'",
        "there is no parameter 'frame_bufer'; did you mean 'frame_buffer'?",
        "there is no parameter 'lost_treshold'; did you mean 'lost_threshold'?",
    ]


def test_a_camera_index_is_accepted_as_source(make_node):
    assert read_parameters(make_node(source=0), PublisherParameters).source == "0"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"frame_id": 5}, "'frame_id' is 5: expected a text"),
        ({"rate": -1.0}, "'rate' is -1.0: expected 0 to 1000"),
        ({"rate": 2000}, "'rate' is 2000.0: expected 0 to 1000"),
        ({"max_frames": -1}, "'max_frames' is -1: expected 0 to"),
        ({"loop": "yes"}, "'loop' is 'yes': expected true or false"),
        ({"source": True}, "'source' is True: expected a text"),
    ],
)
def test_wrong_values_of_the_publisher_are_rejected(make_node, overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_parameters(make_node(**overrides), PublisherParameters)


def test_a_value_that_rclpy_rejects_for_another_reason_than_its_range(make_node, monkeypatch):
    node = make_node()

    def reject(name, value, descriptor):
        raise InvalidParameterValueException(name, value, "rejected by a callback")

    monkeypatch.setattr(node, "declare_parameter", reject)
    with pytest.raises(ValueError, match=r"'weights'.*rejected by a callback"):
        read_parameters(node, TrackerParameters)
