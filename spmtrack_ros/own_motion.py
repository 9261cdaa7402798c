"""The robot's own motion, so that an image is understood from where it was taken. Free of ROS."""

from __future__ import annotations

import math
from collections import deque
from time import monotonic

import numpy as np

_MEMORY = 5.0  # s of own motion that are kept
_LEAP = 0.5, 10.0  # m or rad, and for each s: more from one odometry to the next is another frame
_JUMP = 0.5  # s that a clock gains over the steady one between two commands if it was set


class OwnMotion:
    """Where the robot was and will be: by odometry and, after its last message, by the commands.

    Without odometry it is dead reckoning by the commands alone.
    """

    def __init__(self, delay: float) -> None:
        """``delay`` in s from a command to the motion."""
        self._delay = delay
        # from each of these times on the velocity holds: time, pose (x, y, yaw), v, w
        self._commands: deque[tuple[float, np.ndarray, float, float]] = deque()
        self._commanded_at = 0.0  # of the last command, by the steady clock
        self._odometry: deque[tuple[float, np.ndarray]] = deque()
        self._since = np.zeros(3)  # where the commands had led at the last odometry

    def command(self, time: float, forward: float, turn: float) -> bool:
        """The robot is sent velocities in m/s and rad/s at ``time``.

        True where the clock was set since the last command. How far that one has brought the robot
        is then told by a steady clock, and earlier places are of another time.
        """
        start, now = time + self._delay, monotonic()
        elapsed, self._commanded_at = now - self._commanded_at, now
        last = self._commands[-1][0] if self._commands else start
        set_anew = not 0 <= start - last <= elapsed + _JUMP
        pose = self._commanded(last + elapsed if set_anew else start)
        if set_anew:
            self._commands.clear()
        elif self._commands and start == last:  # the clock stands still
            self._commands.pop()
        self._commands.append((start, pose, forward, turn))
        while len(self._commands) > 2 and self._commands[1][0] < start - _MEMORY:
            self._commands.popleft()
        return set_anew

    def measure(self, time: float, x: float, y: float, yaw: float) -> bool:
        """Odometry: the robot is there, in a frame that drifts slowly.

        True for the first message, for one after the clock was set back, and for one where no
        robot can be by then, as after the odometry was set to 0: earlier places are in another
        frame. Raises ``ValueError`` for numbers that are not finite.
        """
        check_finite(np.array((time, x, y, yaw)))
        place, first = np.array((x, y, yaw)), True
        if self._odometry:
            seconds, moved = time - self._odometry[-1][0], place - self._odometry[-1][1]
            moved[2] = math.remainder(moved[2], math.tau)
            largest = max(math.hypot(*moved[:2]), abs(moved[2]))
            first = seconds < 0 or largest > _LEAP[0] + _LEAP[1] * seconds
            place[2] = self._odometry[-1][1][2] + moved[2]
        if first:
            self._odometry.clear()
        elif time == self._odometry[-1][0]:  # the clock stands still
            self._odometry.pop()
        self._odometry.append((time, place))
        self._since = self._commanded(time)
        while self._odometry[0][0] < time - _MEMORY:
            self._odometry.popleft()
        return first

    def pose(self, time: float) -> np.ndarray:
        """x, y and yaw (3,) at ``time``, which may be a little ahead."""
        if not self._odometry:
            return self._commanded(time)
        last, base = self._odometry[-1]
        if time <= last:
            times = [each for each, _ in self._odometry]
            poses = np.array([pose for _, pose in self._odometry])
            return np.array([np.interp(time, times, poses[:, i]) for i in range(3)])
        start, end = self._since, self._commanded(time)
        x, y = rotation(base[2] - start[2]) @ (end[:2] - start[:2])
        return base + np.array((x, y, end[2] - start[2]))

    def _commanded(self, time: float) -> np.ndarray:
        if not self._commands:
            return np.zeros(3)
        latest = self._commands[0]
        if time < latest[0]:
            return latest[1]
        for each in self._commands:
            if each[0] > time:
                break
            latest = each
        start, (x, y, yaw), forward, turn = latest
        seconds = time - start
        half = turn * seconds / 2
        chord = forward * seconds * float(np.sinc(half / math.pi))  # of an arc
        x, y = x + chord * math.cos(yaw + half), y + chord * math.sin(yaw + half)
        return np.array((x, y, yaw + 2 * half))


def rotation(angle: float) -> np.ndarray:
    """Matrix (2, 2) that turns to the left by ``angle`` rad."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array(((c, -s), (s, c)))


def check_finite(place: np.ndarray) -> None:
    """Raise ``ValueError`` unless all numbers are finite."""
    if not np.isfinite(place).all():
        raise ValueError(f"a place is {place.tolist()}: expected finite numbers")
