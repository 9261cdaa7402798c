"""The control laws in a small world of their own, and what must never happen."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_ros import own_motion
from spmtrack_ros.own_motion import OwnMotion
from spmtrack_ros.servo import (
    DriveServo,
    DriveSettings,
    Limits,
    PanTiltServo,
    PanTiltSettings,
    Watchdog,
    deadband,
)

ANY = st.floats(allow_nan=True, allow_infinity=True)
DRIVE = DriveSettings(
    distance=1.5,
    distance_gain=0.8,
    heading_gain=1.5,
    feedforward=0.8,
    distance_deadband=0.05,
    heading_deadband=0.02,
    forward=Limits(1.0, 1.0),
    turn=Limits(1.0, 2.0),
    reverse=True,
    delay=0.05,
    compensate=True,
)
PAN_TILT = PanTiltSettings(
    gain=2.0,
    feedforward=0.8,
    deadband=0.005,
    limits=Limits(1.5, 4.0),
    pan_range=(-1.0, 1.0),
    tilt_range=(-0.3, 0.5),
    delay=0.05,
    compensate=True,
)
SPREAD = np.eye(2) * 1e-4


@given(st.floats(-1, 1), ANY, st.floats(-1, 10), st.floats(0, 1), st.floats(0.01, 9))
def test_limits_are_never_exceeded(previous, wanted, seconds, speed, acceleration):
    limits = Limits(speed, acceleration)
    previous = min(max(previous, -speed), speed)
    sent = limits.apply(previous, wanted, seconds)
    assert abs(sent) <= speed
    if math.isfinite(wanted):
        assert abs(sent - previous) <= acceleration * min(max(seconds, 0), 0.2) + 1e-9
    else:
        assert sent == 0


@given(st.floats(-9, 9), st.floats(0, 3))
def test_the_deadband_has_no_step(error, width):
    inside = deadband(error, width)
    assert abs(inside) == pytest.approx(max(0, abs(error) - width))
    assert inside * error >= 0


# Each row: what the watchdog says, after a measurement at time 10 with stamp 9.9, and the reason.
WATCHDOG = [
    ("", {}, 10.0, "a fresh measurement"),
    ("", {}, 10.5, "just within command_timeout"),
    ("silence", {}, 10.51, "command_timeout"),
    ("silence", {}, 9.0, "the clock was set back"),
    ("disabled", {"enabled": False}, 10.0, "off by default"),
    ("lost", {"lost": True}, 10.0, "at once, whatever the times"),
    ("no target", {"starve": True}, 10.0, "nothing measured since"),
    ("old stamp", {"stamp": 8.9}, 10.0, "stamp_timeout"),
    ("future stamp", {"stamp": 10.2}, 10.0, "from another clock"),
    ("old stamp", {"stamp": float("nan")}, 10.0, "no number"),
]


@pytest.mark.parametrize(("reason", "given", "now", "_why"), WATCHDOG)
def test_watchdog(reason, given, now, _why):
    watchdog = Watchdog(command_timeout=0.5, stamp_timeout=1.0)
    watchdog.enabled = given.get("enabled", True)
    watchdog.feed(given.get("stamp", 9.9), 10.0)
    watchdog.lost = given.get("lost", False)
    if given.get("starve"):
        watchdog.starve()
    assert watchdog.reason(now) == reason


def test_the_watchdog_is_off_at_first():
    assert Watchdog(0.5, 1.0).reason(0.0) == "disabled"


@given(st.floats(-1, 1), st.floats(-1.5, 1.5), st.floats(-3, 3), st.floats(-9, 9))
def test_odometry_is_where_the_robot_was_and_commands_lead_on(forward, turn, yaw, x):
    """Odometry in a frame of its own, of a robot that does half of what it is told."""
    motion = OwnMotion(0.0)
    motion.command(0.0, forward, turn)
    at = yaw
    for index in range(11):
        first = motion.measure(
            0.1 * index, x + 0.05 * index * forward, 2.0, math.remainder(at, math.tau)
        )
        assert first == (index == 0)
        at += 0.05 * turn if index < 10 else 0
    seen = motion.pose(0.55)
    assert seen[:2] == pytest.approx((x + 0.275 * forward, 2.0))
    assert motion.pose(1.0)[2] - seen[2] == pytest.approx(0.225 * turn, abs=1e-6)
    # from there on straight ahead, where it looks
    end, ahead = motion.pose(1.0), motion.pose(1.2)
    assert ahead[2] - end[2] == pytest.approx(0.2 * turn)
    moved = np.hypot(*(ahead - end)[:2])
    assert moved == pytest.approx(0.2 * abs(forward), rel=0.02, abs=1e-9)


def test_odometry_that_goes_back_in_time_starts_again():
    motion = OwnMotion(0.0)
    assert motion.measure(5.0, 1.0, 0.0, 0.0) and not motion.measure(5.1, 1.1, 0.0, 0.0)
    assert motion.measure(1.0, 7.0, 0.0, 0.0)
    assert motion.pose(1.0) == pytest.approx((7, 0, 0))
    with pytest.raises(ValueError, match="finite"):
        motion.measure(2.0, math.nan, 0.0, 0.0)


def test_a_clock_that_stands_still_fills_no_memory():
    motion = OwnMotion(0.1)
    for index in range(80):
        motion.measure(0.0, 0.1 * index, 0.0, 0.1 * index)
        motion.command(0.0, index, 0.0)
    assert len(motion._odometry) == len(motion._commands) == 1
    assert motion.pose(0.0) == pytest.approx((7.9, 0, 7.9))  # also beyond a whole turn


def test_commands_lead_on_for_as_long_as_odometry_is_silent():
    motion = OwnMotion(0.0)
    for now in 0.05 * np.arange(401):
        motion.command(now, 0.5, 0.0)
        if now < 1.0:
            motion.measure(now, 7 + 0.5 * now, 0.0, 0.0)
    assert motion.pose(20.0) == pytest.approx((17, 0, 0))


@pytest.mark.parametrize("place", [(0.0, 0.0, 1.5), (5.0, 2.0, -1.5)])
def test_odometry_that_leaps_starts_again(place):
    """The base is started again: a robot that stands before its target does not drive at it."""
    servo, ahead = DriveServo(DRIVE), np.array((1.5, 0.0))
    for index in range(40):
        now = 100 + 0.05 * index
        servo.odometry(now, *((5.0, 2.0, 1.5) if index < 20 else place))
        if index % 2 == 0:
            servo.observe(now - 0.1, now, ahead, SPREAD)
        assert servo.step(now) == pytest.approx((0, 0), abs=1e-6)


@given(st.floats(-1, 1), st.floats(-2, 2), st.floats(0, 0.3))
def test_own_motion_is_that_of_a_differential_drive(forward, turn, delay):
    motion = OwnMotion(delay)
    for time in np.arange(0.0, 1.0, 0.25):
        motion.command(time, forward, turn)
    motion.command(1.0, 0.0, 0.0)
    x, y, yaw = motion.pose(5.0)
    assert yaw == pytest.approx(turn)
    # by small steps along the arc
    angles = turn * (np.arange(1000) + 0.5) / 1000
    steps = forward / 1000 * np.array((np.cos(angles), np.sin(angles)))
    assert (x, y) == pytest.approx(steps.sum(axis=1), abs=1e-4)
    assert motion.pose(delay - 0.01) == pytest.approx((0, 0, 0))
    for _ in range(100):  # while the clock stands still
        motion.command(5.0, 0.0, 0.0)
    assert motion.pose(5.0) == pytest.approx((x, y, yaw)) and len(motion._commands) < 20


JUMPS = [3600.0, 2.0, -0.3, -2.0, -3600.0]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_pan_tilt_unit_keeps_its_angles_when_the_clock_is_set(jump):
    servo, ray = PanTiltServo(PAN_TILT), np.array((-0.45, 0.2, 0.87))
    for now in 100 + 0.05 * np.arange(10):
        servo.observe(now - 0.05, now, ray, 0.01)
        pan, _ = servo.step(now)
    before = servo.angles
    assert before[0] > 0.1 and pan > 0.5  # it is turning
    servo.stop(now + jump)
    assert servo.angles == pytest.approx(before, abs=0.01)
    now += jump + 0.05
    servo.observe(now - 0.05, now, ray, 0.01)
    servo.step(now)
    assert servo.angles == pytest.approx(before, abs=0.05)


def test_a_late_command_ends_a_motion_that_has_gone_on(monkeypatch):
    """As after an image that takes a second, while the unit keeps its last velocity."""
    clock = [100.0]
    monkeypatch.setattr(own_motion, "monotonic", lambda: clock[0])
    motion = OwnMotion(0.0)
    motion.command(5.0, 0.0, 1.0)
    clock[0] += 1.3
    assert not motion.command(6.3, 0.0, 0.0)
    assert motion.pose(7.0)[2] == pytest.approx(1.3)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_target_that_was_placed_by_a_clock_that_was_set_is_forgotten(jump):
    """The image comes before the command that notices the jump."""
    servo, ahead = DriveServo(DRIVE), np.array((3.0, 1.0))
    for now in 100 + 0.05 * np.arange(20):
        servo.observe(now, now, ahead, SPREAD)
        _, turn = servo.step(now)
    assert turn > 0.4
    servo.observe(now + jump, now + jump, ahead, SPREAD)
    servo.step(now + jump)
    assert servo.step(now + jump + 0.05) == (0.0, 0.0)
    servo.observe(now + jump + 0.1, now + jump + 0.1, np.array((3.0, -1.0)), SPREAD)
    assert servo.step(now + jump + 0.1)[1] < 0


def drive(settings, latency, seconds, target, period=0.1, rate=0.05, start=(0.0, 0.0, 0.0)):
    """Distances and headings of a robot that sees ``target(time)`` with a delay."""
    servo = DriveServo(settings)
    place = np.array(start)
    waiting, commands, rows = [], [], []
    forward = turn = 0.0
    for tick in range(round(seconds / 0.01)):
        now = tick * 0.01
        c, s = math.cos(place[2]), math.sin(place[2])
        relative = np.array(((c, s), (-s, c))) @ (np.array(target(now)) - place[:2])
        if tick % round(period / 0.01) == 0:
            waiting.append((now, relative))
        while waiting and waiting[0][0] + latency <= now:
            stamp, seen = waiting.pop(0)
            servo.observe(stamp, now, seen, SPREAD)
        if tick % round(rate / 0.01) == 0:
            commands.append((now + settings.delay, servo.step(now)))
        while commands and commands[0][0] <= now:
            forward, turn = commands.pop(0)[1]
        place = place + 0.01 * np.array((forward * c, forward * s, turn))
        rows.append((np.hypot(*relative), math.atan2(relative[1], relative[0]), forward, turn))
    return np.array(rows)


def walk(time):
    """Straight on, then around a corner."""
    return (2.0 + 0.5 * time, 0.0) if time < 8 else (6.0, 0.5 * (time - 8))


@pytest.mark.parametrize("latency", [0.0, 0.15, 0.3])
def test_a_walking_target_is_kept_at_its_distance(latency):
    rows = drive(DRIVE, latency, 20.0, walk)[500:]
    assert np.abs(rows[:, 0] - 1.5).max() < 0.15 * 1.5 + 0.1
    assert np.mean(np.abs(rows[:, 0] - 1.5) < 0.15 * 1.5) > 0.95
    assert np.abs(rows[:, 1]).max() < 0.5


def test_without_compensation_of_the_latency_the_robot_sways():
    settings = replace(DRIVE, heading_gain=4.0)
    start = (0.0, 0.0, 0.6)

    def stand(time):
        return (3.0, 0.0)

    steady = drive(settings, 0.3, 15.0, stand, start=start)[800:, 1]
    swaying = drive(replace(settings, compensate=False), 0.3, 15.0, stand, start=start)[800:, 1]
    assert np.abs(steady).max() < 0.03 < np.abs(swaying).max()


def test_it_turns_first_and_drives_then():
    rows = drive(DRIVE, 0.1, 6.0, lambda time: (-0.1, 3.0))
    early = rows[: np.argmax(np.abs(rows[:, 1]) < 1.2)]
    assert np.abs(early[:, 2]).max() < 0.25
    assert rows[-1, 0] == pytest.approx(1.5, abs=0.1)


def test_reverse_only_on_request():
    def near(time):
        return (0.7, 0.0)

    assert drive(DRIVE, 0.1, 5.0, near)[-1, 0] == pytest.approx(1.5, abs=0.1)
    assert drive(replace(DRIVE, reverse=False), 0.1, 5.0, near)[-1, 0] == pytest.approx(0.7)
    only_turn = drive(replace(DRIVE, distance=0.0), 0.1, 5.0, lambda time: (3.0, 1.0))
    assert (only_turn[:, 2] == 0).all() and abs(only_turn[-1, 1]) < 0.03


OBSERVATIONS = st.lists(
    st.tuples(st.floats(0, 0.4), st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=30
)


@given(OBSERVATIONS, st.booleans())
def test_commands_of_a_drive_keep_the_limits_whatever_is_seen(observations, compensate):
    servo = DriveServo(replace(DRIVE, compensate=compensate))
    now, before = 0.0, (0.0, 0.0)
    for index, (age, x, y) in enumerate(observations):
        servo.observe(now - age, now, np.array((x, y)), SPREAD)
        now += 0.05
        sent = servo.step(now)
        assert np.isfinite(sent).all()
        for velocity, last, limit in zip(sent, before, (DRIVE.forward, DRIVE.turn), strict=True):
            assert abs(velocity) <= limit.speed
            assert index == 0 or abs(velocity - last) <= limit.acceleration * 0.05 + 1e-9
        before = sent
    assert servo.stop(now) == (0.0, 0.0)


@given(OBSERVATIONS)
def test_commands_of_a_pan_tilt_unit_keep_limits_and_ranges(observations):
    servo = PanTiltServo(PAN_TILT)
    now, before = 0.0, (0.0, 0.0)
    for index, (age, x, y) in enumerate(observations):
        servo.observe(now - age, now, np.array((x, y, 3.0)), 0.01)
        now += 0.05
        sent = servo.step(now)
        assert np.isfinite(sent).all() and np.isfinite(servo.angles).all()
        for velocity, last in zip(sent, before, strict=True):
            assert abs(velocity) <= 1.5
            assert index == 0 or abs(velocity - last) <= 4.0 * 0.05 + 1e-9
        assert -1.0 <= servo.angles[0] <= 1.0 and -0.3 <= servo.angles[1] <= 0.5
        before = sent


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="finite"):
        DriveServo(DRIVE).observe(0.0, 0.0, np.array((value, 1.0)), SPREAD)
    with pytest.raises(ValueError, match="finite"):
        PanTiltServo(PAN_TILT).observe(0.0, 0.0, np.array((value, 1.0, 1.0)), 0.01)


def test_without_a_measurement_everything_stands():
    assert DriveServo(DRIVE).step(1.0) == PanTiltServo(PAN_TILT).step(1.0) == (0.0, 0.0)


@pytest.mark.parametrize("latency", [0.0, 0.15])
def test_a_pan_tilt_unit_keeps_a_passing_target_in_the_middle(latency):
    """The target walks across; a ray of the turned camera is computed independently."""
    servo, angles, rates = PanTiltServo(PAN_TILT), np.zeros(2), (0.0, 0.0)
    waiting, commands, errors = [], [], []
    for tick in range(800):
        now = 0.01 * tick
        # ahead, left, up in m
        target = np.array((3.0, -1.5 + 0.35 * now, -0.4))
        pan, tilt = angles
        axis = np.array(
            (math.cos(tilt) * math.cos(pan), math.cos(tilt) * math.sin(pan), -math.sin(tilt))
        )
        left = np.array((-math.sin(pan), math.cos(pan), 0.0))
        ray = np.array((-left @ target, -np.cross(axis, left) @ target, axis @ target))
        ray /= np.linalg.norm(ray)
        if tick % 10 == 0:
            waiting.append((now, ray))
        while waiting and waiting[0][0] + latency <= now:
            stamp, seen = waiting.pop(0)
            servo.observe(stamp, now, seen, 0.005)
        if tick % 5 == 0:
            commands.append((now + 0.05, servo.step(now)))
        while commands and commands[0][0] <= now:
            rates = commands.pop(0)[1]
        angles = angles + 0.01 * np.array(rates)
        errors.append(math.acos(ray[2]))
    assert max(errors[200:]) < 0.06
    assert servo.angles == pytest.approx(angles, abs=0.05)
