"""Starts the node `spmtrack`, and RViz on request.

    ros2 launch spmtrack_ros tracker.launch.py image_topic:=/camera/image_raw rviz:=true
"""

import os
import re
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

CONFIG = Path(get_package_share_directory("spmtrack_ros")) / "config"
PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"

# name: (default, description, choices)
ARGUMENTS = {
    "namespace": ("", "namespace of the node", ()),
    "node_name": ("spmtrack", "name of the node, and of its topics and services", ()),
    "image_topic": ("image", "topic of the images, without the ending /compressed", ()),
    "params_file": (str(CONFIG / "tracker.yaml"), "YAML file with the node's parameters", ()),
    "use_sim_time": ("false", "take the time from /clock", ("true", "false")),
    "rviz": ("false", "start RViz as well", ("true", "false")),
    "rviz_config": (str(CONFIG / "tracker.rviz"), "configuration of RViz", ()),
    "log_level": ("info", "lowest level logged", ("debug", "info", "warn", "error", "fatal")),
}

# Parameters of the node. Empty means: as params_file says; anything else wins over it.
OVERRIDES = {
    "weights": ("", "name of bundled weights, or path of a checkpoint", ()),
    "device": ("", "where inference runs: auto, cpu, cuda or cuda:N", ()),
    "image_transport": ("", "kind of images", ("", "raw", "compressed")),
    "image_reliability": ("", "QoS of the images", ("", "best_effort", "reliable")),
    "init_box": ("", "'x y w h' in px to follow from the first image on", ()),
    "autostart": ("", "process images before ~/enable is called", ("", "true", "false")),
    "debug_image": ("", "offer ~/debug_image", ("", "true", "false")),
}


def start_node(context):
    """The node, with the parameters that were given."""
    given = {name: LaunchConfiguration(name).perform(context) for name in OVERRIDES}
    overrides = {name: value for name, value in given.items() if value}
    for name in ("autostart", "debug_image"):
        if name in overrides:
            overrides[name] = overrides[name] == "true"
    if "init_box" in overrides:
        numbers = re.findall(r"[^\s,\[\]]+", overrides["init_box"])
        try:
            overrides["init_box"] = [float(number) for number in numbers]
        except ValueError:
            raise RuntimeError(f"init_box is '{given['init_box']}': expected 'x y w h'") from None
    overrides["use_sim_time"] = LaunchConfiguration("use_sim_time").perform(context) == "true"
    return [
        Node(
            package="spmtrack_ros",
            executable="tracker_node",
            name=LaunchConfiguration("node_name"),
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), overrides],
            remappings=[("image", LaunchConfiguration("image_topic"))],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def generate_launch_description():
    """All arguments are declared here, so that --show-args lists them."""
    declared = [
        DeclareLaunchArgument(
            name, default_value=default, description=description, choices=choices or None
        )
        for name, (default, description, choices) in {**ARGUMENTS, **OVERRIDES}.items()
    ]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", LaunchConfiguration("rviz_config")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    # Fast DDS loses large images without it; the camera's process needs it as well.
    environment = []
    if PROFILES not in os.environ:
        profile = str(CONFIG / "fastdds_large_images.xml")
        environment = [SetEnvironmentVariable(PROFILES, profile)]
    return LaunchDescription([*declared, *environment, OpaqueFunction(function=start_node), rviz])
