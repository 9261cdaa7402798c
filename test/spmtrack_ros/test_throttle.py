"""Log lines that come at most once in a while."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")

from rclpy.clock import ClockType
from rclpy.logging import get_logger

from spmtrack_ros import throttle
from spmtrack_ros.throttle import at_most_every

pytestmark = pytest.mark.ros


def test_lines_are_logged_once_by_a_steady_clock():
    assert at_most_every(1.0)["throttle_time_source_type"].clock_type == ClockType.STEADY_TIME
    logger = get_logger("throttled")
    # shorter than any computer has been up here: rclpy takes its start for the last time of a line
    logged = [logger.error("again", **at_most_every(30.0)) for _ in range(3)]
    assert logged == [True, False, False]


def test_no_other_line_is_throttled_by_the_system_clock():
    own = Path(throttle.__file__)
    files = own.parent.glob("*.py")
    assert [each for each in files if "throttle_duration" in each.read_text()] == [own]
