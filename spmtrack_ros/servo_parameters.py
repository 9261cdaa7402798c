"""The parameters of the node `visual_servo`, as rows and as the settings of ``servo``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spmtrack_ros.parameters import NodeParameters, parameter
from spmtrack_ros.servo import DriveSettings, Limits, PanTiltSettings


@dataclass(frozen=True)
class VisualServoParameters(NodeParameters):
    """The parameters of the node `visual_servo`."""

    mode: str = parameter(
        "drive",
        "What is moved: drive (a differential drive) or pan_tilt (two joints under the camera).",
        choices=("drive", "pan_tilt"),
    )
    enabled: bool = parameter(
        False, "Move from the start; false: after ~/enable. Only where nobody can be hit."
    )
    distance_from: str = parameter(
        "pose",
        "Distance of a drive: pose (of target_pose), box (height of the box) or none (only turn).",
        choices=("pose", "box", "none"),
    )
    distance: float = parameter(1.5, "Distance in m to keep from the target.", (0.1, 100.0))
    box_height: float = parameter(
        0.4, "Part of the image's height that the box has at that distance; for box.", (0.02, 0.95)
    )
    distance_gain: float = parameter(
        0.8, "Speed in m/s for each m that the target is too far away.", (0.0, 10.0)
    )
    heading_gain: float = parameter(
        1.5, "Turn in rad/s for each rad that the target is off the middle.", (0.0, 10.0)
    )
    feedforward: float = parameter(
        0.8, "Part of the target's own velocity that is added; 0: none, and it lags.", (0.0, 1.0)
    )
    distance_deadband: float = parameter(
        0.05, "Error in m of the distance that is left alone.", (0.0, 10.0)
    )
    heading_deadband: float = parameter(
        0.02, "Error in rad of the direction that is left alone.", (0.0, 1.0)
    )
    max_speed: float = parameter(0.5, "Fastest drive in m/s.", (0.0, 10.0))
    max_acceleration: float = parameter(
        0.5, "Largest acceleration in m/s²; a stop by the watchdog is immediate.", (0.01, 20.0)
    )
    max_turn: float = parameter(
        1.0, "Fastest turn in rad/s, of a drive or of each joint.", (0.0, 20.0)
    )
    max_turn_acceleration: float = parameter(
        2.0, "Largest angular acceleration in rad/s².", (0.01, 100.0)
    )
    reverse: bool = parameter(False, "Drive backwards when the target is too close.")
    pan_range: tuple[float, ...] = parameter(
        (-2.9, 2.9), "Smallest and largest angle of pan in rad, to the left."
    )
    tilt_range: tuple[float, ...] = parameter(
        (-0.7, 0.7), "Smallest and largest angle of tilt in rad, downwards."
    )
    joint_commands: str = parameter(
        "velocity",
        "What ~/joint_commands of a pan-tilt unit holds: velocity in rad/s or position in rad.",
        choices=("velocity", "position"),
    )
    command_type: str = parameter(
        "twist_stamped",
        "Type of ~/cmd_vel: twist_stamped or twist.",
        choices=("twist_stamped", "twist"),
    )
    command_frame: str = parameter("base_link", "frame_id of ~/cmd_vel.")
    base_frame: str = parameter(
        "",
        "Frame of the drive, by TF: x forward, y left; empty: camera_forward and camera_pitch.",
    )
    camera_forward: float = parameter(
        0.0, "Distance in m of the camera before the axle of the drive.", (-10.0, 10.0)
    )
    camera_pitch: float = parameter(0.0, "Angle in rad by which it looks down.", (-1.5, 1.5))
    rectified: bool = parameter(
        False, "The images are rectified: P of camera_info describes them, instead of K and D."
    )
    control_rate: float = parameter(20.0, "Commands per second.", (10.0, 200.0))
    command_timeout: float = parameter(
        0.5, "Time in s without a measurement after which the command is zero.", (0.05, 5.0)
    )
    stamp_timeout: float = parameter(
        1.0, "Age in s of a measurement's stamp from which on the command is zero.", (0.05, 10.0)
    )
    latency_compensation: bool = parameter(
        True, "Predict from the image's stamp to now, by own commands and the target's velocity."
    )
    actuation_delay: float = parameter(0.05, "Time in s from a command to the motion.", (0.0, 1.0))
    motion_spread: float = parameter(
        0.03,
        "Standard deviation in rad of the direction, because a drive does not turn exactly as "
        "commanded; a larger one is calmer and slower.",
        (0.001, 1.0),
    )
    target_acceleration: float = parameter(
        0.5, "Standard deviation of the target's acceleration in m/s², or rad/s².", (0.01, 100.0)
    )
    diagnostics_period: float = parameter(
        1.0, "Time in s between messages on /diagnostics; 0: none.", (0.0, 60.0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pan_range", "tilt_range"):
            ends = getattr(self, name)
            if len(ends) != 2 or not -math.pi <= ends[0] <= 0 <= ends[1] <= math.pi:
                problem = f"parameter '{name}' is {list(ends)}: expected two angles around 0,"
                raise ValueError(f"{problem} -3.14 to 3.14")
        if self.distance_deadband >= self.distance:
            problem = f"parameter 'distance_deadband' is {self.distance_deadband:g}: expected less"
            raise ValueError(f"{problem} than distance, {self.distance:g}")

    @property
    def drive(self) -> DriveSettings:
        """Those of a differential drive."""
        return DriveSettings(
            distance=0.0 if self.distance_from == "none" else self.distance,
            distance_gain=self.distance_gain,
            heading_gain=self.heading_gain,
            feedforward=self.feedforward,
            distance_deadband=self.distance_deadband,
            heading_deadband=self.heading_deadband,
            forward=Limits(self.max_speed, self.max_acceleration),
            turn=Limits(self.max_turn, self.max_turn_acceleration),
            reverse=self.reverse,
            delay=self.actuation_delay,
            compensate=self.latency_compensation,
            acceleration=self.target_acceleration,
        )

    @property
    def pan_tilt(self) -> PanTiltSettings:
        """Those of a pan-tilt unit."""
        return PanTiltSettings(
            gain=self.heading_gain,
            feedforward=self.feedforward,
            deadband=self.heading_deadband,
            limits=Limits(self.max_turn, self.max_turn_acceleration),
            pan_range=(self.pan_range[0], self.pan_range[1]),
            tilt_range=(self.tilt_range[0], self.tilt_range[1]),
            delay=self.actuation_delay,
            compensate=self.latency_compensation,
            acceleration=self.target_acceleration,
        )
