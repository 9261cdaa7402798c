"""Lines that the log has at most once in a while, by a clock that nobody sets back."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

from rclpy.clock import Clock, ClockType

# By default rclpy takes the system clock: set back an hour, the log would be silent for an hour.
STEADY = Clock(clock_type=ClockType.STEADY_TIME)


def at_most_every(seconds: float) -> dict[str, Any]:
    """Arguments for a method of a logger: each place in the code logs once in ``seconds``."""
    return {"throttle_duration_sec": seconds, "throttle_time_source_type": STEADY}


class EachCause:
    """Problems of a place in the code that has several: each cause once in ``seconds``.

    Texts that differ only in numbers, such as those of a point, have the same cause.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._told: dict[str, float] = {}  # s of the monotonic clock

    def is_due(self, problem: str) -> bool:
        """Whether the log may have this problem now. May be called from any thread."""
        cause, now = re.sub(r"[\d.+-]+(e[+-]\d+)?", "", problem), time.monotonic()
        with self._lock:
            recent = {each: at for each, at in self._told.items() if now - at < self._seconds}
            self._told = {cause: now, **recent}
        return cause not in recent
