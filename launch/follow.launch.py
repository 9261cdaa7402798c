"""Tracker, pose of the target, and a robot that follows it: by `visual_servo` or by Nav2.

ros2 launch spmtrack_ros follow.launch.py image_topic:=/camera/image_raw \
    depth_topic:=/camera/depth/image_rect follower:=servo

Nothing moves until /visual_servo/enable, or /nav2_follow/enable, is called:

ros2 service call /visual_servo/enable std_srvs/srv/SetBool "{data: true}"
"""

from pathlib import Path

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from spmtrack_ros.launch_arguments import declare, describe, given, in_file
from spmtrack_ros.nav2_follow import Nav2FollowParameters
from spmtrack_ros.range_sources import TargetPoseParameters
from spmtrack_ros.servo_parameters import VisualServoParameters

TRACKER = Path(__file__).with_name("tracker.launch.py")
CONFIG = Path(get_package_share_directory("spmtrack_ros")) / "config"

# name: (default, description, choices)
ARGUMENTS = {
    "follower": (
        "servo",
        "servo: visual_servo; nav2: Nav2's following server; none: only the pose",
        ("servo", "nav2", "none"),
    ),
    "follow_params_file": (str(CONFIG / "follow.yaml"), "YAML file of the nodes that follow", ()),
    "depth_topic": ("depth", "topic of the registered depth images", ()),
    "scan_topic": ("scan", "topic of the laser scans", ()),
    "points_topic": ("points", "topic of the point clouds", ()),
    "odom_topic": ("odom", "topic of the odometry of the drive", ()),
    "cmd_vel_topic": (
        "",
        "topic of the commands of visual_servo; empty: cmd_vel, for pan_tilt visual_servo/cmd_vel",
        (),
    ),
}
# Every parameter of the nodes is an argument; one of several nodes, such as tf_frame, is of all.
PARAMETERS = {
    **describe(VisualServoParameters),
    **describe(Nav2FollowParameters),
    **describe(TargetPoseParameters),
}


def check_arguments(context):
    """Raises RuntimeError before the tracker starts: launch would leave it behind."""
    file = LaunchConfiguration("follow_params_file").perform(context)
    if not Path(file).is_file():
        raise RuntimeError(f"follow_params_file is '{file}': there is no such file")
    for kind in (TargetPoseParameters, VisualServoParameters, Nav2FollowParameters):
        given(context, kind)
    if LaunchConfiguration("follower").perform(context) == "nav2":
        try:
            get_package_prefix("nav2_msgs")
        except PackageNotFoundError:
            raise RuntimeError(
                "follower is 'nav2', but Nav2 is not installed: install the packages navigation2 "
                "and opennav_following, or set follower to servo"
            ) from None


def start_nodes(context):
    """The nodes behind the tracker."""

    def argument(name):
        return LaunchConfiguration(name).perform(context)

    file = argument("follow_params_file")
    tracker, image = argument("node_name"), argument("image_topic")
    camera_info = argument("camera_info_topic") or (
        "".join(image.rpartition("/")[:2]) + "camera_info"
    )

    def node(executable, kind, remappings):
        return Node(
            package="spmtrack_ros",
            executable=executable,
            name=executable,
            namespace=argument("namespace"),
            parameters=[file, given(context, kind)],
            remappings=remappings,
            ros_arguments=["--log-level", argument("log_level")],
            output="screen",
        )

    of_the_tracker = [
        ("detection", f"{tracker}/detection"),
        ("bearing", f"{tracker}/bearing"),
        ("status", f"{tracker}/status"),
        ("camera_info", camera_info),
    ]
    topics = [(name, argument(f"{name}_topic")) for name in ("depth", "scan", "points")]
    pose = node("target_pose", TargetPoseParameters, [*of_the_tracker, *topics])
    if argument("follower") == "none":
        return [pose]
    if argument("follower") == "nav2":
        return [pose, node("nav2_follow", Nav2FollowParameters, [("pose", "target_pose/pose")])]
    full_name = f"/{argument('namespace').strip('/')}/visual_servo".replace("//", "/")
    mode = argument("mode") or in_file(file, full_name).get("mode")
    # a base that hears cmd_vel must not turn with the pan-tilt unit on it
    own = "visual_servo/cmd_vel" if mode == "pan_tilt" else "cmd_vel"
    servo = [
        ("pose", "target_pose/pose_with_covariance"),
        ("odom", argument("odom_topic")),
        ("~/cmd_vel", argument("cmd_vel_topic") or own),
    ]
    return [pose, node("visual_servo", VisualServoParameters, [*of_the_tracker, *servo])]


def generate_launch_description():
    """The arguments of tracker.launch.py, such as weights and device, are arguments here too."""
    tracker = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(TRACKER)))
    of_the_tracker = {"rectified", "diagnostics_period"}  # declared there, for all nodes
    parameters = {key: row for key, row in PARAMETERS.items() if key not in of_the_tracker}
    return LaunchDescription(
        [
            *declare({**ARGUMENTS, **parameters}),
            OpaqueFunction(function=check_arguments),
            tracker,
            OpaqueFunction(function=start_nodes),
        ]
    )
