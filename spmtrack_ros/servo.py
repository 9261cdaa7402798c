"""From the place of a target to velocities: control, limits and the watchdog. Free of ROS.

Times are in s of one clock, angles in rad, distances in m. A robot's frame has x forward and y to
the left (REP 103); turning to the left is positive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spmtrack_ros.kalman import ConstantVelocity
from spmtrack_ros.own_motion import OwnMotion, check_finite, rotation

_MAX_STEP = 0.2  # s; the longest time for which an acceleration is allowed at once
_FUTURE = 0.05  # s; a stamp further ahead comes from another clock


@dataclass(frozen=True)
class Limits:
    """Of one velocity, both positive."""

    speed: float
    """m/s or rad/s"""
    acceleration: float
    """m/s² or rad/s²"""

    def apply(self, previous: float, wanted: float, seconds: float) -> float:
        """The velocity closest to the wanted one that keeps both limits; 0 for NaN."""
        if not math.isfinite(wanted):
            return 0.0
        change = self.acceleration * min(max(seconds, 0.0), _MAX_STEP)
        wanted = min(max(wanted, -self.speed), self.speed)
        limited = min(max(wanted, previous - change), previous + change)
        return min(max(limited, -self.speed), self.speed)


def deadband(error: float, width: float) -> float:
    """The part of an error beyond ``width``, without a step at its end."""
    return math.copysign(max(0.0, abs(error) - width), error)


class Watchdog:
    """Why the robot must stand still."""

    def __init__(self, command_timeout: float, stamp_timeout: float) -> None:
        """Both in s: silence, and the age of the newest measurement's stamp."""
        self._command_timeout, self._stamp_timeout = command_timeout, stamp_timeout
        self.enabled = False
        self.lost = False
        self._arrival: float | None = None
        self._stamp = 0.0

    def feed(self, stamp: float, now: float) -> None:
        """A measurement has arrived."""
        self._arrival, self._stamp = now, stamp

    def starve(self) -> None:
        """Forget the last measurement."""
        self._arrival = None

    def reason(self, now: float) -> str:
        """One of disabled, lost, no target, silence, old stamp, future stamp; empty: go on."""
        if not self.enabled:
            return "disabled"
        if self.lost:
            return "lost"
        if self._arrival is None:
            return "no target"
        # an arrival in the future: the clock was set back
        if not 0 <= now - self._arrival <= self._command_timeout:
            return "silence"
        age = now - self._stamp
        if not age <= self._stamp_timeout:  # also where it is NaN
            return "old stamp"
        return "future stamp" if age < -_FUTURE else ""


@dataclass(frozen=True)
class DriveSettings:
    """How a differential drive follows."""

    distance: float
    """m to keep from the target; 0: only turn."""
    distance_gain: float
    """m/s for each m too far away"""
    heading_gain: float
    """rad/s for each rad off the middle"""
    feedforward: float
    """0 to 1, part of the target's own velocity that is added"""
    distance_deadband: float
    heading_deadband: float
    forward: Limits
    turn: Limits
    reverse: bool
    """Whether the robot may drive backwards."""
    delay: float
    """s from a command to the motion"""
    compensate: bool
    """Whether the age of the image is made up for."""
    acceleration: float = 1.0
    """m/s², of the target; see ``ConstantVelocity``"""


class DriveServo:
    """Turns places of the target into velocities of a differential drive."""

    def __init__(self, settings: DriveSettings) -> None:
        self._settings = settings
        self._motion = OwnMotion(settings.delay)
        self._filter = ConstantVelocity(2, settings.acceleration, max_gap=1.0)
        self._time: float | None = None
        self._sent = (0.0, 0.0)
        self._approach = True

    def reset(self) -> None:
        """Forget the target; the robot's own motion is kept."""
        self._filter.reset()

    def odometry(self, stamp: float, x: float, y: float, yaw: float) -> None:
        """The robot was there; raises ``ValueError`` for numbers that are not finite."""
        if self._motion.measure(stamp, x, y, yaw):
            self._filter.reset()

    def observe(
        self,
        stamp: float,
        now: float,
        place: np.ndarray,
        covariance: np.ndarray,
        approach: bool = True,
    ) -> None:
        """The target was at ``place`` (2,), x and y in the robot's frame, at the time ``stamp``.

        ``approach`` is false where it may be closer than that. Raises ``ValueError`` for numbers
        that are not finite.
        """
        if not self._settings.compensate:
            stamp = now
        check_finite(place)
        self._approach = approach
        x, y, yaw = self._motion.pose(stamp)
        turn = rotation(yaw)
        self._filter.update(stamp, turn @ place + (x, y), turn @ covariance @ turn.T)

    def step(self, now: float) -> tuple[float, float]:
        """The velocities to send now: forward in m/s, turn in rad/s."""
        if not self._filter.started:
            return self.stop(now)
        settings = self._settings
        # The command works from then on, and all earlier ones have worked until then.
        then = now + settings.delay if settings.compensate else now
        state, _ = self._filter.predict(then)
        x, y, yaw = self._motion.pose(then)
        back = rotation(-yaw)
        place, velocity = back @ (state[:2] - (x, y)), settings.feedforward * (back @ state[2:])
        away, heading = math.hypot(*place), math.atan2(place[1], place[0])
        direction = place / max(away, 1e-6)
        across = float(direction[0] * velocity[1] - direction[1] * velocity[0])
        turn = settings.heading_gain * deadband(heading, settings.heading_deadband)
        turn += across / max(away, 0.3)
        forward = 0.0
        if settings.distance > 0:
            error = deadband(away - settings.distance, settings.distance_deadband)
            forward = settings.distance_gain * error + float(direction @ velocity)
            forward *= max(0.0, math.cos(heading)) ** 2  # first turn, then drive
            if not settings.reverse:
                forward = max(0.0, forward)
            if not self._approach:
                forward = min(0.0, forward)
        seconds = 0.0 if self._time is None else now - self._time
        return self._send(
            now,
            settings.forward.apply(self._sent[0], forward, seconds),
            settings.turn.apply(self._sent[1], turn, seconds),
        )

    def stop(self, now: float) -> tuple[float, float]:
        """Zero at once, whatever the limit of the acceleration."""
        return self._send(now, 0.0, 0.0)

    def _send(self, now: float, forward: float, turn: float) -> tuple[float, float]:
        self._time, self._sent = now, (forward, turn)
        if self._motion.command(now, forward, turn):
            self._filter.reset()
        return self._sent


@dataclass(frozen=True)
class PanTiltSettings:
    """How a pan-tilt unit follows."""

    gain: float
    """rad/s for each rad off the middle"""
    feedforward: float
    """0 to 1, part of the target's own angular velocity that is added"""
    deadband: float
    limits: Limits
    pan_range: tuple[float, float]
    tilt_range: tuple[float, float]
    delay: float
    compensate: bool
    acceleration: float = 1.0
    """rad/s², of the target's direction"""


class PanTiltServo:
    """Turns rays of the camera into velocities and angles of two joints.

    Pan turns to the left, tilt looks down (REP 103), the camera sits on the tilting part. At zero
    both look straight ahead.
    """

    def __init__(self, settings: PanTiltSettings) -> None:
        self._settings = settings
        self._joints = (OwnMotion(settings.delay), OwnMotion(settings.delay))
        self._filter = ConstantVelocity(2, settings.acceleration, max_gap=1.0)
        self._time: float | None = None
        self._sent = (0.0, 0.0)
        self.angles = (0.0, 0.0)
        """Pan and tilt in rad to which the commands lead."""

    def reset(self) -> None:
        """Forget the target."""
        self._filter.reset()

    def observe(self, stamp: float, now: float, ray: np.ndarray, jitter: float) -> None:
        """The target was in the direction ``ray`` (3,), in the optical frame, at ``stamp``.

        ``jitter`` is its standard deviation in rad. Raises ``ValueError`` for numbers that are not
        finite.
        """
        if not self._settings.compensate:
            stamp = now
        check_finite(ray)
        pan, tilt = (joint.pose(stamp)[2] for joint in self._joints)
        right, down, forward = ray
        # look down by tilt, then turn by pan
        ahead = forward * math.cos(tilt) - down * math.sin(tilt)
        below = forward * math.sin(tilt) + down * math.cos(tilt)
        target = np.array(
            (pan + math.atan2(-right, ahead), math.atan2(below, math.hypot(right, ahead)))
        )
        self._filter.update(stamp, target, np.eye(2) * jitter**2)

    def step(self, now: float) -> tuple[float, float]:
        """The velocities of pan and tilt to send now, in rad/s."""
        if not self._filter.started:
            return self.stop(now)
        settings = self._settings
        then = now + settings.delay if settings.compensate else now
        state, _ = self._filter.predict(then)
        seconds = 0.0 if self._time is None else now - self._time
        step = min(max(seconds, 0.0), _MAX_STEP)
        sent = []
        ranges = (settings.pan_range, settings.tilt_range)
        for index, (low, high) in enumerate(ranges):
            angle = self._joints[index].pose(then)[2]
            error = deadband(state[index] - angle, settings.deadband)
            wanted = settings.gain * error + settings.feedforward * state[2 + index]
            # no faster than what stops at the end of the joint's range
            wanted = min(
                max(wanted, -self._brake(angle - low, step)), self._brake(high - angle, step)
            )
            sent.append(settings.limits.apply(self._sent[index], wanted, seconds))
        return self._send(now, sent[0], sent[1])

    def stop(self, now: float) -> tuple[float, float]:
        """Zero at once, whatever the limit of the acceleration."""
        return self._send(now, 0.0, 0.0)

    def _brake(self, room: float, seconds: float) -> float:
        """The largest velocity towards the end of a range that is ``room`` rad away."""
        if room <= 0 or seconds <= 0:
            return 0.0
        return min(math.sqrt(2 * self._settings.limits.acceleration * room), room / seconds)

    def _send(self, now: float, pan: float, tilt: float) -> tuple[float, float]:
        self._time, self._sent = now, (pan, tilt)
        later = now + self._settings.delay
        for joint, velocity in zip(self._joints, self._sent, strict=True):
            if joint.command(now, 0.0, velocity):
                self._filter.reset()
        pan_low, pan_high = self._settings.pan_range
        tilt_low, tilt_high = self._settings.tilt_range
        pan_angle, tilt_angle = (float(joint.pose(later)[2]) for joint in self._joints)
        self.angles = (
            min(max(pan_angle, pan_low), pan_high),
            min(max(tilt_angle, tilt_low), tilt_high),
        )
        return self._sent
