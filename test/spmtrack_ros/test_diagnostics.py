"""Levels, messages and values of /diagnostics."""

from __future__ import annotations

import pytest

from spmtrack_ros.diagnostics import ERROR, OK, WARN, Publisher, RateWindow, why_no_image
from spmtrack_ros.session import Counters, Frame, State, Target

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"


@pytest.mark.parametrize(
    ("reliable", "publishers", "words"),
    [
        (False, [], "no node publishes /image"),
        (False, [Publisher("cam", COMPRESSED, True)], "set image_transport"),
        (True, [Publisher("cam", IMAGE, False)], "set image_reliability to best_effort"),
        (True, [Publisher("cam", IMAGE, True)], "FASTRTPS_DEFAULT_PROFILES_FILE"),
        (False, [Publisher("cam", IMAGE, False)], "FASTRTPS_DEFAULT_PROFILES_FILE"),
        # one of two publishers matches, so the cause is another one
        (True, [Publisher("a", IMAGE, False), Publisher("b", IMAGE, True)], "no image arrives"),
        (False, [Publisher("a", COMPRESSED, True), Publisher("b", IMAGE, True)], "no image"),
    ],
)
def test_why_no_image(reliable, publishers, words):
    assert words in why_no_image("/image", IMAGE, reliable, publishers)


def test_rates_and_times_of_one_window():
    window = RateWindow(99.0)
    window.report(100.0, Counters(10, 8), True, None, "")
    window.add(0.020, 0.010)
    window.add(0.040, 0.030)
    target = Target("7", "cat", State.LOST, 0.1, (0, 0, 1, 1), Frame(1, 0, None))
    level, text, values = window.report(102.0, Counters(30, 12), True, target, "")
    assert (level, text) == (OK, "lost")
    assert (values["state"], values["target"]) == ("LOST", "7")
    assert values["images received per s"] == "10.0" and values["images processed per s"] == "2.0"
    assert values["latency mean ms"] == "30.0" and values["latency max ms"] == "40.0"
    assert values["processing mean ms"] == "20.0" and values["images dropped"] == "18"
    assert "latency mean ms" not in window.report(103.0, Counters(31, 13), True, None, "")[2]


@pytest.mark.parametrize(
    ("counters", "enabled", "level", "text"),
    [
        (Counters(), True, WARN, "hint"),
        (Counters(), False, OK, "switched off"),  # silence is intended
        (Counters(5, 5), True, OK, "no target"),
        (Counters(5, 5, 2), True, ERROR, "2 failures, see the log"),
    ],
)
def test_levels(counters, enabled, level, text):
    report = RateWindow(0.0).report(1.0, counters, enabled, None, "hint")
    assert report[:2] == (level, text)


def test_memory_is_bounded_without_reports():
    window = RateWindow(0.0)
    for latency in range(5000):
        window.add(latency, 0.0)
    values = window.report(1.0, Counters(5000, 5000), True, None, "")[2]
    assert values["latency mean ms"] == "4499500.0"  # the newest thousand
