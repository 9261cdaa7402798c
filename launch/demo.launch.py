"""Plays a video to the node, follows its target and writes what came of it to a folder.

    ros2 launch spmtrack_ros demo.launch.py source:=walk.mp4 box:='10 20 30 40'
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
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

TRACKER = Path(get_package_share_directory("spmtrack_ros")) / "launch" / "tracker.launch.py"

# name: (default, description); the arguments of tracker.launch.py can be given too
ARGUMENTS = {
    "source": ("synthetic", "video file, folder of images, camera index, or synthetic"),
    "box": ("", "'x y w h' of the target in the first frame; empty: the source knows it"),
    "output": ("demo_output", "folder for the results"),
    "rate": ("0", "frames per second; 0: as the source says"),
    "max_frames": ("0", "end after this many frames; 0: at the end of the source"),
}


def start_others(context):
    """The publisher, and the client whose end is the end of it all."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    images = [("image", LaunchConfiguration("image_topic"))]
    player = Node(
        package="spmtrack_ros",
        executable="video_publisher",
        parameters=[
            {
                "source": given["source"],
                "rate": float(given["rate"]),
                "max_frames": int(given["max_frames"]),
                "wait_for_subscribers": 2,
            }
        ],
        remappings=images,
        output="screen",
    )
    box = given["box"].split()
    client = Node(
        package="spmtrack_ros",
        executable="demo",
        arguments=[
            given["source"],
            "--attach",
            *("--output", given["output"]),
            *("--rate", given["rate"]),
            *("--max-frames", given["max_frames"]),
            *(["--box", *box] if box else []),
        ],
        remappings=images,
        output="screen",
        on_exit=Shutdown(reason="the demo is over"),
    )
    return [player, client]


def generate_launch_description():
    """All arguments are declared here, so that --show-args lists them."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    tracker = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(TRACKER)))
    return LaunchDescription([*declared, tracker, OpaqueFunction(function=start_others)])
