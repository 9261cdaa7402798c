"""Plays a video to the node, tracks its target and writes the results to a folder.

ros2 launch spmtrack_ros demo.launch.py source:=walk.mp4 box:='10 20 30 40'
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from spmtrack_ros.launch_arguments import given as given_parameters
from spmtrack_ros.video_publisher import PublisherParameters

TRACKER = Path(__file__).with_name("tracker.launch.py")
# The client uses these names; the demo ends with the node.
FIXED = {"namespace": "", "node_name": "spmtrack", "image_topic": "image", "on_exit": "shutdown"}

# name: (default, description)
ARGUMENTS = {
    "source": ("synthetic", "video file, folder of images, camera index, or synthetic"),
    "box": ("", "'x y w h' of the target in the first frame; empty: the box of the source"),
    "output": ("demo_output", "folder for the results"),
    "rate": ("0", "frames per second; 0: rate of the source"),
    "max_frames": ("0", "end after this many frames; 0: at the end of the source"),
}


def check_arguments(context):
    """Raises RuntimeError before the tracker starts: launch would leave it behind."""
    given_parameters(context, PublisherParameters)


def start_player_and_client(context):
    """The publisher of the video, and the client, with which the launch ends."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    parameters = given_parameters(context, PublisherParameters)
    common = {
        "package": "spmtrack_ros",
        "ros_arguments": ["--log-level", LaunchConfiguration("log_level").perform(context)],
        "output": "screen",
    }
    player = Node(
        executable="video_publisher",
        parameters=[
            {name: parameters[name] for name in given if name in parameters},
            {"wait_for_subscribers": 2},
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
    return [player, client]


def generate_launch_description():
    """The arguments of tracker.launch.py, such as weights and device, are arguments here too."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    tracker = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(TRACKER)), launch_arguments=FIXED.items()
    )
    return LaunchDescription(
        [
            *declared,
            OpaqueFunction(function=check_arguments),
            tracker,
            OpaqueFunction(function=start_player_and_client),
        ]
    )
