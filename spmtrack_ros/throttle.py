"""Lines that the log has at most once in a while."""

from __future__ import annotations

import re
import threading
import time


class Throttle:
    """Lets each problem of a place in the code through at most once in ``seconds``.

    Texts that differ only in numbers, such as those of a point, are the same problem. The time is
    that of a clock that nobody sets: that of rclpy's own throttle, set back by an hour, would be
    silent for an hour.
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
