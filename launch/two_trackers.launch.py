"""An example: one tracker for each of two cameras, in namespaces of their own.

ros2 launch spmtrack_ros two_trackers.launch.py
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

TRACKER = Path(__file__).with_name("tracker.launch.py")
CAMERAS = ("left", "right")


def generate_launch_description():
    """The nodes /left/spmtrack and /right/spmtrack, each with the images of its namespace."""
    return LaunchDescription(
        [
            # a group each, so that the arguments of one do not reach the other
            GroupAction(
                [
                    IncludeLaunchDescription(
                        PythonLaunchDescriptionSource(str(TRACKER)),
                        launch_arguments={
                            "namespace": camera,
                            "image_topic": f"/{camera}/image_raw",
                        }.items(),
                    )
                ]
            )
            for camera in CAMERAS
        ]
    )
