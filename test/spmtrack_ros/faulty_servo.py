"""The node `visual_servo` that fails as x of the odometry says."""

from __future__ import annotations

import sys

from spmtrack_ros import visual_servo

HANDLER, PROCESS = 101.0, 102.0
"""One handler fails; the servo fails for good, also when it is to stop."""


class FaultyServo(visual_servo.VisualServo):
    def _on_odometry(self, message):
        fault = message.pose.pose.position.x
        if fault == PROCESS:
            self._drive.stop = self._drive.reset = fail
        if fault in (HANDLER, PROCESS):
            raise KeyError("of a handler")


def fail(*_):
    raise RuntimeError("of the servo")


if __name__ == "__main__":
    visual_servo.VisualServo = FaultyServo
    sys.exit(visual_servo.main())
