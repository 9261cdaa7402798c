"""The ranges of `target_pose`: its parameters, its sensors, and what they say of a box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2
from std_msgs.msg import Header

from spmtrack_ros.camera import image_size, project
from spmtrack_ros.frames import Frames, LateTransform, Transform
from spmtrack_ros.parameters import NodeParameters, parameter
from spmtrack_ros.range_messages import Recent, cloud_to_points, depth_to_array, scan_to_points
from spmtrack_ros.ranging import (
    Range,
    View,
    cloud_range,
    depth_range,
    ground_range,
    scan_range,
    size_range,
    tilted_up,
)
from spmtrack_ros.topics import subscribe

SOURCES = ("depth", "cloud", "scan", "size", "ground")
_KEPT = 30  # messages of each sensor: one second of a fast one


class NotYet(ValueError):
    """No range yet: a message or transform that may still come has a better one."""


@dataclass(frozen=True)
class TargetPoseParameters(NodeParameters):
    """The parameters of the node `target_pose`."""

    input: str = parameter(
        "detection",
        "What gives the direction: detection (a box) or bearing (no size, no ground).",
        choices=("detection", "bearing"),
    )
    ranges: tuple[str, ...] = parameter(
        ("depth",),
        "Where the range comes from, the first that has one: depth, cloud, scan, size, ground.",
    )
    rectified: bool = parameter(
        False, "The images are rectified: P of camera_info describes them, instead of K and D."
    )
    depth_tolerance: float = parameter(
        0.02, "Most time in s between the stamps of image and depth image.", (0.0, 10.0)
    )
    scan_tolerance: float = parameter(
        0.1, "Most time in s between the stamps of image and scan or point cloud.", (0.0, 10.0)
    )
    foreground_share: float = parameter(
        0.25,
        "Part of the distances in the box that the nearest surface must have to be the target.",
        (0.01, 1.0),
    )
    min_range: float = parameter(0.1, "Shortest range in m that counts.", (0.0, 1000.0))
    max_range: float = parameter(20.0, "Longest range in m that counts.", (0.01, 1000.0))
    target_height: float = parameter(
        0.0, "Height of the target in m, for the range by size; 0: unknown.", (0.0, 100.0)
    )
    target_width: float = parameter(
        0.0, "Width of the target in m, for the range by size; 0: unknown.", (0.0, 100.0)
    )
    target_depth: float = parameter(
        0.0,
        "Depth of the target in m, of which half is added to the range of its surface.",
        (0.0, 100.0),
    )
    size_spread: float = parameter(
        0.05, "Relative standard deviation of that height and width.", (0.0, 1.0)
    )
    camera_height: float = parameter(
        0.0,
        "Height of the camera in m above the ground; 0: by TF, see ground_frame.",
        (0.0, 100.0),
    )
    camera_pitch: float = parameter(
        0.0, "Angle in rad by which the camera looks down; with camera_height.", (-1.5, 1.5)
    )
    ground_frame: str = parameter(
        "base_footprint", "Frame whose plane z = 0 is the ground, if camera_height is 0."
    )
    height_spread: float = parameter(
        0.03, "Relative standard deviation of the camera's height.", (0.0, 1.0)
    )
    pitch_spread: float = parameter(
        0.01,
        "Standard deviation in rad of its pitch and roll: mounting, sway, slope of the floor.",
        (0.0, 1.0),
    )
    focal_spread: float = parameter(
        0.01, "Relative standard deviation of the calibrated focal length.", (0.0, 1.0)
    )
    box_jitter: float = parameter(
        4.0,
        "Standard deviation in px of the middle of the box; that of a side is 1.4 times as large.",
        (0.01, 100.0),
    )
    bearing_angle: float = parameter(
        0.05, "Half the angle in rad that the target fills; for the input bearing.", (0.001, 1.0)
    )
    acceleration: float = parameter(
        1.0,
        "Standard deviation in m/s² of the target's acceleration, for ~/velocity.",
        (0.01, 100),
    )
    output_frame: str = parameter(
        "", "Frame of the outputs, by TF; empty: the frame of the image, which moves with it."
    )
    publish_tf: bool = parameter(False, "Publish the target as a frame on /tf.")
    tf_frame: str = parameter("target", "Name of that frame.")
    diagnostics_period: float = parameter(
        1.0, "Time in s between messages on /diagnostics; 0: none.", (0.0, 60.0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [each for each in self.ranges if each not in SOURCES]
        if unknown or not self.ranges:
            problem = f"parameter 'ranges' is {list(self.ranges)}: expected some of"
            raise ValueError(f"{problem} {', '.join(SOURCES)}")
        if not self.min_range < self.max_range:
            problem = f"parameter 'min_range' is {self.min_range:g}: expected less than max_range"
            raise ValueError(f"{problem}, {self.max_range:g}")
        if self.ranges == ("size",) and not self.target_height + self.target_width > 0:
            raise ValueError(
                "parameter 'ranges' is size alone: set target_height or target_width above 0"
            )


@dataclass(frozen=True)
class Seen:
    """A target in an image, as far as the image goes."""

    header: Header
    stamp_ns: int
    view: View
    box_xywh: tuple[float, float, float, float] | None
    detection: Any = None
    """The ``vision_msgs/Detection2D``, if there is one."""

    @property
    def id(self) -> str:
        """The same for the same target; empty for a bearing."""
        return self.detection.id if self.detection else ""


class RangeSources:
    """Measures the range of a target with the first source that can."""

    def __init__(
        self,
        node: Node,
        parameters: TargetPoseParameters,
        frames: Frames,
        on_message: Callable[[], None],
    ) -> None:
        """Subscribe to the sensors in use; ``on_message`` is called when one of them has sent."""
        self._parameters, self._frames = parameters, frames
        self.camera_info: CameraInfo | None = None
        self._recent: dict[str, Recent] = {}
        kinds = {
            "depth": (Image, "depth", "depth image", parameters.depth_tolerance),
            "cloud": (PointCloud2, "points", "point cloud", parameters.scan_tolerance),
            "scan": (LaserScan, "scan", "scan", parameters.scan_tolerance),
        }

        def add(source: str, message: Any) -> None:
            self._recent[source].add(message)
            on_message()

        for source in parameters.ranges:
            if source in kinds:
                kind, topic, name, tolerance = kinds[source]
                self._recent[source] = Recent(name, tolerance, _KEPT)
                subscribe(node, kind, topic, partial(add, source))

    @property
    def waits(self) -> bool:
        """Whether a message that is still to come can give the range of an earlier image."""
        return bool(self._recent)

    def measure(self, seen: Seen, patient: bool) -> tuple[str, Range]:
        """The source that was used, and its range.

        Raises ``ValueError`` with the problem of each source if none has a range, and ``NotYet``,
        if ``patient``, where something that may still come is better than the sources after it.
        """
        problems = []
        for source in self._parameters.ranges:
            try:
                measured = getattr(self, f"_{source}_range")(seen)
                if source != "size":  # which is of the middle, the others are of the surface
                    behind = self._parameters.target_depth / 2
                    measured = Range(measured.distance + behind, measured.deviation)
                self._check(measured)
                return source, measured
            except ValueError as error:
                problems.append(f"{source}: {error}")
                recent = self._recent.get(source)
                # TF of a fixed frame may come after the message
                late = isinstance(error, LateTransform) and self._parameters.output_frame
                if patient and (late or (recent and recent.expects(seen.stamp_ns))):
                    raise NotYet("; ".join(problems)) from None
        raise ValueError("; ".join(problems))

    def _check(self, measured: Range) -> None:
        low, high = self._parameters.min_range, self._parameters.max_range
        if not low <= measured.distance <= high or not np.isfinite(measured.deviation):
            text = f"the range is {measured.distance:.2f} m, expected {low:g} to {high:g} m"
            raise ValueError(text)

    def _depth_range(self, seen: Seen) -> Range:
        message = self._recent["depth"].at(seen.stamp_ns)
        depth = depth_to_array(message)
        info = self.camera_info
        if info is None:
            raise ValueError("no camera_info has arrived")
        height, width = image_size(info)
        down, across = depth.shape[0] / height, depth.shape[1] / width
        if abs(down / across - 1) > 0.02:
            raise ValueError(
                f"depth image has {depth.shape[1]} x {depth.shape[0]} px, which is not the shape "
                f"of the image, {width} x {height}: is it registered?"
            )
        x, y, w, h = seen.box_xywh or self._box_of(seen.view, info)
        box = (x * across, y * down, w * across, h * down)
        return depth_range(depth, box, seen.view, self._parameters.foreground_share)

    def _box_of(self, view: View, info: CameraInfo) -> tuple[float, float, float, float]:
        sides = np.stack((view.left, view.top, view.right, view.bottom))
        pixels = project(info, sides, self._parameters.rectified)
        (x, _), (_, y), (right, _), (_, bottom) = pixels.tolist()
        return x, y, right - x, bottom - y

    def _cloud_range(self, seen: Seen) -> Range:
        message = self._recent["cloud"].at(seen.stamp_ns)
        points = self._to_camera(seen, message)(cloud_to_points(message))
        return cloud_range(points, seen.view, self._parameters.foreground_share)

    def _scan_range(self, seen: Seen) -> Range:
        message = self._recent["scan"].at(seen.stamp_ns)
        to_camera = self._to_camera(seen, message)
        rotation, share = to_camera.rotation.T, self._parameters.foreground_share
        origin = -rotation @ to_camera.translation
        return scan_range(scan_to_points(message), seen.view, rotation, origin, share)

    def _to_camera(self, seen: Seen, message: Any) -> Transform:
        """From a sensor when it measured to the camera when it saw the target."""
        fixed = self._parameters.output_frame
        return self._frames.transform_between(seen.header, message.header, fixed)

    def _size_range(self, seen: Seen) -> Range:
        settings = self._parameters
        if seen.box_xywh is None:
            raise ValueError("a bearing has no size")
        height, width = settings.target_height, settings.target_width
        return size_range(seen.view, height, width, settings.size_spread)

    def _ground_range(self, seen: Seen) -> Range:
        settings = self._parameters
        if seen.box_xywh is None:
            raise ValueError("a bearing has no lower side")
        height, up = settings.camera_height, tilted_up(settings.camera_pitch)
        if height == 0:
            header = seen.header
            ground = settings.ground_frame
            to_ground = self._frames.transform(ground, header.frame_id, header.stamp)
            height, up = float(to_ground.translation[2]), to_ground.rotation[2]
        spreads = settings.height_spread, settings.pitch_spread
        return ground_range(seen.view, height, up, *spreads)
