"""Starts the node `spmtrack`, and RViz on request.

ros2 launch spmtrack_ros tracker.launch.py image_topic:=/camera/image_raw rviz:=true
"""

import os
import re
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(get_package_share_directory("spmtrack_ros")) / "config"
PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"

# name: (default, description, choices)
ARGUMENTS = {
    "namespace": ("", "namespace of the node", ()),
    "node_name": ("spmtrack", "name of the node, and of its topics and services", ()),
    "image_topic": ("image", "topic of the images, without the ending /compressed", ()),
    "camera_info_topic": (
        "",
        "topic of the calibration; empty: beside image_topic",
        (),
    ),
    "params_file": (str(CONFIG / "tracker.yaml"), "YAML file with the node's parameters", ()),
    "rviz": ("false", "start RViz as well", ("true", "false")),
    "rviz_config": (str(CONFIG / "tracker.rviz"), "configuration of RViz", ()),
    "log_level": ("info", "lowest level logged", ("debug", "info", "warn", "error", "fatal")),
}

# Parameters of the node. Empty means: as params_file says; anything else wins over it.
OVERRIDES = {
    "weights": ("", "name of bundled weights, or path of a checkpoint", ()),
    "device": ("", "where inference runs: auto, cpu, cuda or cuda:N", ()),
    "precision": ("", "of the network's products", ("", "float32", "bfloat16", "float16")),
    "image_transport": ("", "kind of images", ("", "raw", "compressed")),
    "image_reliability": ("", "QoS of the images", ("", "best_effort", "reliable")),
    "init_box": ("", "'x y w h' in px to follow from the first image on", ()),
    "autostart": ("", "process images before ~/enable is called", ("", "true", "false")),
    "rectified": ("", "the images are rectified", ("", "true", "false")),
    "debug_image": ("", "offer ~/debug_image", ("", "true", "false")),
    "use_sim_time": ("", "take the time from /clock", ("", "true", "false")),
}


def parameter(name, text):
    """The value of a parameter that was given as text."""
    if name == "init_box":
        try:
            return [float(number) for number in re.findall(r"[^\s,\[\]]+", text)]
        except ValueError:
            raise RuntimeError(f"init_box is '{text}': expected 'x y w h'") from None
    if OVERRIDES[name][2] == ("", "true", "false"):
        return text == "true"
    return ParameterValue(text, value_type=str)  # a name may look like a number


def start_nodes(context):
    """The nodes, with the parameters that were given."""
    given = {name: LaunchConfiguration(name).perform(context) for name in [*ARGUMENTS, *OVERRIDES]}
    overrides = {name: parameter(name, given[name]) for name in OVERRIDES if given[name]}
    beside = given["image_topic"].rpartition("/")
    camera_info = given["camera_info_topic"] or "".join(beside[:2]) + "camera_info"
    tracker = Node(
        package="spmtrack_ros",
        executable="tracker_node",
        name=given["node_name"],
        namespace=given["namespace"],
        parameters=[given["params_file"], overrides],
        remappings=[("image", given["image_topic"]), ("camera_info", camera_info)],
        ros_arguments=["--log-level", given["log_level"]],
        output="screen",
    )
    if given["rviz"] == "false":
        return [tracker]
    name = "/".join(filter(None, [given["namespace"].strip("/"), given["node_name"]]))
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", given["rviz_config"]],
        parameters=[{key: overrides[key] for key in ("use_sim_time",) if key in overrides}],
        remappings=[("/spmtrack/debug_image", f"/{name}/debug_image")],
    )
    return [tracker, rviz]


def generate_launch_description():
    """All arguments are declared here, so that --show-args lists them."""
    declared = [
        DeclareLaunchArgument(
            name, default_value=default, description=description, choices=choices or None
        )
        for name, (default, description, choices) in {**ARGUMENTS, **OVERRIDES}.items()
    ]
    # Fast DDS loses large images without it; the camera's process needs it as well.
    environment = []
    if PROFILES not in os.environ:
        profile = str(CONFIG / "fastdds_large_images.xml")
        environment = [SetEnvironmentVariable(PROFILES, profile)]
    return LaunchDescription([*declared, *environment, OpaqueFunction(function=start_nodes)])
