"""Who walks where in the simulation of following, and what comes in between. Free of ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from world import World

_STEP = 0.01  # s
_BOARD_SPEED, _BOARD_WAY = 0.8, 1.6  # m/s across the line of sight; m to each side of it
_BOARD_PLACE = 0.45  # part of the way from robot to target


class Walk:
    """A way in segments of constant velocity: seconds, m/s, rad/s."""

    def __init__(
        self, start: tuple[float, float, float], segments: Sequence[tuple[float, float, float]]
    ) -> None:
        poses = [np.array(start)]
        for seconds, speed, turn in segments:
            for _ in range(round(seconds / _STEP)):
                yaw = poses[-1][2]
                velocity = np.array((speed * np.cos(yaw), speed * np.sin(yaw), turn))
                poses.append(poses[-1] + _STEP * velocity)
        self._poses = np.array(poses)

    def at(self, time: float) -> tuple[float, float, float]:
        """x, y in m and yaw in rad; the last pose after the end."""
        index = min(round(time / _STEP), len(self._poses) - 1)
        x, y, yaw = self._poses[max(index, 0)].tolist()
        return x, y, yaw


@dataclass(frozen=True)
class Scenario:
    """One run."""

    seconds: float
    target: Walk
    distractor: Walk
    robot: tuple[float, float, float] = (-6.0, -3.0, 0.0)
    occlusions: Sequence[float] = field(default_factory=tuple)
    """Times in s in whose middle the board hides the target for one second."""
    vanishes: float = float("inf")
    """Time in s from which on the target is gone."""

    def apply(self, world: World, time: float) -> None:
        """Put everybody to the place at ``time`` s."""
        world.move("target", *self.target.at(time))
        world.move("distractor", *self.distractor.at(time))
        if time >= self.vanishes:
            world.hide("target")
        across = [_BOARD_SPEED * (time - middle) for middle in self.occlusions]
        across = [each for each in across if abs(each) < _BOARD_WAY]
        if not across:
            world.hide("board")
            return
        robot, target = world.robot[:2], np.array(world.target[:2])
        way = target - robot
        yaw = float(np.arctan2(way[1], way[0]))
        x, y = robot + _BOARD_PLACE * way + across[0] * np.array((-np.sin(yaw), np.cos(yaw)))
        world.move("board", float(x), float(y), yaw)


_AHEAD = (-3.0, -3.0, 0.0)  # of the target at first: 3 m before the robot
_PASSER_BY = Walk((4.0, -1.8, np.pi), [(5.0, 0.0, 0.0), (16.0, 0.5, 0.0)])

SCENARIOS = {
    # turns to both sides, an occlusion while the target stands, and the way back
    "full": Scenario(
        seconds=52.0,
        target=Walk(
            _AHEAD,
            [
                (4.0, 0.0, 0.0),
                (7.0, 0.5, 0.0),
                (4.0, 0.45, 0.4),
                (3.0, 0.5, 0.0),
                (4.0, 0.45, -0.4),
                (3.0, 0.4, 0.0),
                (6.0, 0.0, 0.0),
                (4.0, 0.4, 0.2),
                (6.0, 0.4, 0.4),
                (7.0, 0.5, 0.0),
                (4.0, 0.0, 0.0),
            ],
        ),
        distractor=_PASSER_BY,
        occlusions=(28.0,),
    ),
    # a walk with two turns and a passer-by
    "walk": Scenario(
        seconds=20.0,
        target=Walk(
            _AHEAD, [(3.0, 0.0, 0.0), (6.0, 0.5, 0.0), (4.0, 0.45, 0.4), (7.0, 0.5, -0.2)]
        ),
        distractor=_PASSER_BY,
    ),
    # a board hides the target for a second
    "occlusion": Scenario(
        seconds=16.0,
        target=Walk(_AHEAD, [(3.0, 0.0, 0.0), (4.0, 0.4, 0.0), (4.0, 0.0, 0.0), (5.0, 0.4, 0.0)]),
        distractor=_PASSER_BY,
        occlusions=(9.0,),
    ),
    # the target vanishes while the robot drives
    "vanish": Scenario(
        seconds=10.0,
        target=Walk(_AHEAD, [(2.0, 0.0, 0.0), (8.0, 0.5, 0.0)]),
        distractor=Walk((0.0, 6.0, 0.0), []),
        vanishes=7.0,
    ),
}
