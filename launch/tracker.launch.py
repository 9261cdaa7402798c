"""Starts the node `spmtrack`, and on request RViz and the live page.

ros2 launch spmtrack_ros tracker.launch.py image_topic:=/camera/image_raw rviz:=true
"""

import os
from dataclasses import fields
from pathlib import Path

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchDescription
from launch.actions import LogInfo, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from spmtrack_ros.fast_dds import PROFILE, PROFILES_VARIABLE
from spmtrack_ros.launch_arguments import BOOLEAN, declare, describe, in_file
from spmtrack_ros.launch_arguments import given as given_parameters
from spmtrack_ros.parameters import TrackerParameters

CONFIG = Path(get_package_share_directory("spmtrack_ros")) / "config"

# name: (default, description, choices)
ARGUMENTS = {
    "namespace": ("", "namespace of the node", ()),
    "node_name": ("spmtrack", "name of the node, and of its topics and services", ()),
    "image_topic": ("image", "topic of the images, without the ending /compressed", ()),
    "camera_info_topic": ("", "topic of the calibration; empty: beside image_topic", ()),
    "params_file": (str(CONFIG / "tracker.yaml"), "YAML file with the node's parameters", ()),
    "rviz": ("false", "start RViz as well", ("true", "false")),
    "rviz_config": (str(CONFIG / "tracker.rviz"), "configuration of RViz", ()),
    "fixed_frame": ("", "fixed frame of RViz: the frame_id of the images; empty: camera", ()),
    "web": ("false", "serve the live page, on which targets are named", ("true", "false")),
    "web_host": ("127.0.0.1", "address of the page; 0.0.0.0: other computers, with a token", ()),
    "web_port": ("8642", "port of the page; 0: any that is free", ()),
    "log_level": ("info", "lowest level logged", ("debug", "info", "warn", "error", "fatal")),
    "respawn": ("false", "start the node again 5 s after its end", ("true", "false")),
    "on_exit": ("ignore", "shutdown: end the launch when the node ends", ("ignore", "shutdown")),
}
# Somebody takes seconds to draw a box, and its image must still be there: 5 s at 30 images/s,
# which of 1080p are 933 MB. Other values in params_file than the defaults were chosen.
FOR_DRAWING = {"frame_buffer": 150, "frame_buffer_mb": 1000.0}
DEFAULTS = {row.name: row.default for row in fields(TrackerParameters)}
RESPAWN_DELAY = 5.0  # s; a wrong parameter must not keep a processor busy
# Every parameter of the node is an argument; an empty one keeps the value from params_file.
PARAMETERS = describe(TrackerParameters)
PARAMETERS["use_sim_time"] = ("", "Take the time from /clock.", ("", *BOOLEAN))


def start_nodes(context):
    """The nodes with the given parameters; raises RuntimeError before any of them starts."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    parameters = given_parameters(context, TrackerParameters)
    if not Path(given["params_file"]).is_file():
        raise RuntimeError(f"params_file is '{given['params_file']}': there is no such file")
    name = "/".join(filter(None, [given["namespace"].strip("/"), given["node_name"]]))
    of_file = in_file(given["params_file"], f"/{name}")
    if given["web"] == "true":
        kept = {key for key in FOR_DRAWING if of_file.get(key, DEFAULTS[key]) != DEFAULTS[key]}
        parameters = FOR_DRAWING | {key: of_file[key] for key in kept} | parameters
    known = of_file | parameters
    nodes = [live_page(given, known)] if given["web"] == "true" else []
    parent = "".join(given["image_topic"].rpartition("/")[:2])
    camera_info = given["camera_info_topic"] or f"{parent}camera_info"
    tracker = Node(
        package="spmtrack_ros",
        executable="tracker_node",
        name=given["node_name"],
        namespace=given["namespace"],
        parameters=[given["params_file"], parameters],
        remappings=[("image", given["image_topic"]), ("camera_info", camera_info)],
        ros_arguments=["--log-level", given["log_level"]],
        output="screen",
        respawn=given["respawn"] == "true",
        respawn_delay=RESPAWN_DELAY,
        on_exit=Shutdown(reason="the tracker ended") if given["on_exit"] == "shutdown" else None,
    )
    nodes.insert(0, tracker)
    if given["rviz"] == "false":
        return nodes
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError("rviz is 'true', but the package rviz2 is not installed") from None
    beside = "/".join(["", *filter(None, [given["namespace"].strip("/")]), "target_pose"])
    frame = ["-f", given["fixed_frame"]] if given["fixed_frame"] else []
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        arguments=["-d", given["rviz_config"], *frame],
        parameters=[{key: known[key] for key in ("use_sim_time",) if key in known}],
        remappings=[
            ("/spmtrack/debug_image", f"/{name}/debug_image"),
            ("/spmtrack/markers", f"/{name}/markers"),
            ("/camera_info", camera_info),
            *(
                (f"/target_pose/{topic}", f"{beside}/{topic}")
                for topic in ("marker", "pose_with_covariance")
            ),
        ],
    )
    if known.get("debug_image") is False:
        text = "RViz shows no picture: debug_image is false"
        return [*nodes, rviz, LogInfo(msg=text)]
    return [*nodes, rviz]


def live_page(given, parameters):
    """The node `web` for the tracker; `parameters` are those of the tracker."""
    shared = ("image_transport", "image_reliability", "max_pixels", "use_sim_time")
    try:
        port = int(given["web_port"])
    except ValueError:
        raise RuntimeError(f"web_port is '{given['web_port']}': expected a whole number") from None
    return Node(
        package="spmtrack_ros",
        executable="web",
        name=f"{given['node_name']}_web",
        namespace=given["namespace"],
        parameters=[
            {
                "tracker": ParameterValue(given["node_name"], value_type=str),
                "host": ParameterValue(given["web_host"], value_type=str),
                "port": port,
                **{name: parameters[name] for name in shared if name in parameters},
            }
        ],
        remappings=[("image", given["image_topic"])],
        ros_arguments=["--log-level", given["log_level"]],
        output="screen",
    )


def generate_launch_description():
    """All arguments are declared here, so that --show-args lists them."""
    declared = declare({**ARGUMENTS, **PARAMETERS})
    # Without this profile, Fast DDS loses large images; the camera's process needs it as well.
    environment = []
    if PROFILES_VARIABLE not in os.environ:
        environment = [SetEnvironmentVariable(PROFILES_VARIABLE, str(CONFIG / PROFILE))]
    return LaunchDescription([*declared, *environment, OpaqueFunction(function=start_nodes)])
