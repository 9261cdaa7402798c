"""Log lines that come at most once in a while."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")

from rclpy.clock import ClockType
from rclpy.logging import get_logger

from spmtrack_ros import throttle
from spmtrack_ros.throttle import EachCause, at_most_every

pytestmark = pytest.mark.ros


def test_lines_are_logged_once_by_a_steady_clock():
    assert at_most_every(1.0)["throttle_time_source_type"].clock_type == ClockType.STEADY_TIME
    logger = get_logger("throttled")
    # rclpy counts from the start of this clock: an hour would be silent on a machine booted now
    logged = [logger.error("again", **at_most_every(5.0)) for _ in range(3)]
    assert logged == [True, False, False]


def test_no_other_line_is_throttled_by_the_system_clock():
    own = Path(throttle.__file__)
    files = own.parent.glob("*.py")
    assert [each for each in files if "throttle_duration" in each.read_text()] == [own]


def test_another_cause_is_told_at_once(monkeypatch):
    now = [5.0]
    monkeypatch.setattr(throttle.time, "monotonic", lambda: now[0])
    causes = EachCause(10.0)
    problems = ("no way at [1.5, -2]", "no way at [3e-07, 4.0]", "no size", "no size")
    assert [causes.is_due(each) for each in problems] == [True, False, True, False]
    now[0] = 15.0
    assert [causes.is_due(each) for each in problems[:2]] == [True, False]
