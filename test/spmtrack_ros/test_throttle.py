"""Log lines that come at most once in a while."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")

from spmtrack_ros import throttle
from spmtrack_ros.throttle import Throttle

pytestmark = pytest.mark.ros


def test_each_problem_is_due_at_once_and_again_after_a_while(monkeypatch):
    now = [0.2]  # s since the computer was started
    monkeypatch.setattr(throttle.time, "monotonic", lambda: now[0])
    log = Throttle(10.0)
    problems = ("no way at [1.5, -2]", "no way at [3e-07, 4.0]", "no size", "no size")
    assert [log.is_due(each) for each in problems] == [True, False, True, False]
    now[0] = 10.2
    assert [log.is_due(each) for each in problems[:2]] == [True, False]


def test_no_line_is_throttled_by_rclpy_whose_clock_can_be_set_back():
    files = Path(throttle.__file__).parent.glob("*.py")
    assert not [each for each in files if "throttle_duration" in each.read_text()]
