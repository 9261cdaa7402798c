"""Plays a video to the node, follows its target and writes what came of it to a folder.

    ros2 launch spmtrack_ros demo.launch.py source:=walk.mp4 box:='10 20 30 40'
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(get_package_share_directory("spmtrack_ros")) / "config"
PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"

# name: (default, description)
ARGUMENTS = {
    "source": ("synthetic", "video file, folder of images, camera index, or synthetic"),
    "box": ("", "'x y w h' of the target in the first frame; empty: the source knows it"),
    "output": ("demo_output", "folder for the results"),
    "rate": ("0", "frames per second; 0: as the source says"),
    "max_frames": ("0", "end after this many frames; 0: at the end of the source"),
    "weights": ("nano", "name of bundled weights, or path of a checkpoint"),
    "device": ("auto", "where inference runs: auto, cpu, cuda or cuda:N"),
    "log_level": ("info", "lowest level logged: debug, info, warn, error or fatal"),
}


def start_nodes(context):
    """The node, the publisher, and the client whose end is the end of it all."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    common = {
        "package": "spmtrack_ros",
        "ros_arguments": ["--log-level", given["log_level"]],
        "output": "screen",
    }
    text = {name: ParameterValue(given[name], value_type=str) for name in given}
    tracker = Node(
        executable="tracker_node",
        parameters=[
            str(CONFIG / "tracker.yaml"),
            {"weights": text["weights"], "device": text["device"]},
        ],
        on_exit=Shutdown(reason="there is no tracker"),
        **common,
    )
    player = Node(
        executable="video_publisher",
        parameters=[
            {
                "source": text["source"],
                "rate": float(given["rate"]),
                "max_frames": int(given["max_frames"]),
                "wait_for_subscribers": 2,
            }
        ],
        **common,
    )
    box = given["box"].split()
    client = Node(
        executable="demo",
        arguments=[
            given["source"],
            "--attach",
            *("--output", given["output"]),
            *("--rate", given["rate"]),
            *("--max-frames", given["max_frames"]),
            *(["--box", *box] if box else []),
        ],
        on_exit=Shutdown(reason="the demo is over"),
        **common,
    )
    return [tracker, player, client]


def generate_launch_description():
    """All arguments are declared here, so that --show-args lists them."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    # Fast DDS loses large images without it.
    environment = []
    if PROFILES not in os.environ:
        profile = str(CONFIG / "fastdds_large_images.xml")
        environment = [SetEnvironmentVariable(PROFILES, profile)]
    return LaunchDescription([*declared, *environment, OpaqueFunction(function=start_nodes)])
