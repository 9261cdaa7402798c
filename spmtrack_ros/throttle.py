"""Lines that the log has at most once in a while, by a clock that nobody sets back."""

from __future__ import annotations

from typing import Any

from rclpy.clock import Clock, ClockType

# By default rclpy takes the system clock: set back an hour, the log would be silent for an hour.
STEADY = Clock(clock_type=ClockType.STEADY_TIME)


def at_most_every(seconds: float) -> dict[str, Any]:
    """Arguments for a method of a logger: each place in the code logs once in ``seconds``."""
    return {"throttle_duration_sec": seconds, "throttle_time_source_type": STEADY}
