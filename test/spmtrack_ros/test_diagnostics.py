"""Levels, messages and values of /diagnostics."""

from __future__ import annotations

import re

import numpy as np
import pytest

from spmtrack_core.session.frame_buffer import Frame
from spmtrack_core.session.snapshot import Counters, Snapshot
from spmtrack_core.tracking.followed import State, Target
from spmtrack_ros.diagnostics import (
    ERROR,
    OK,
    WARN,
    Publisher,
    RateWindow,
    share_arrived,
    why_no_image,
)
from spmtrack_ros.fast_dds import PROFILES_VARIABLE

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"


@pytest.mark.parametrize(
    ("reliable", "publishers", "words"),
    [
        (False, [], "no node publishes /image"),
        (False, [Publisher("cam", COMPRESSED, True)], "set image_transport"),
        (True, [Publisher("cam", IMAGE, False)], "set image_reliability to best_effort"),
        (True, [Publisher("cam", IMAGE, True)], PROFILES_VARIABLE),
        (False, [Publisher("cam", IMAGE, False)], PROFILES_VARIABLE),
        # one of two publishers matches, so the cause is another one
        (True, [Publisher("a", IMAGE, False), Publisher("b", IMAGE, True)], "no image arrives"),
        (False, [Publisher("a", COMPRESSED, True), Publisher("b", IMAGE, True)], "no image"),
    ],
)
def test_why_no_image(reliable, publishers, words):
    assert words in why_no_image("/image", IMAGE, reliable, publishers)


def snapshot(time, counters=None, enabled=True, targets=(), busy=0.0):
    primary = targets[0] if targets else None
    return Snapshot(enabled, targets, primary, counters or Counters(), None, time, busy)


def test_rates_and_times_of_one_window():
    window = RateWindow(99.0)
    window.report(snapshot(100.0, Counters(10, 8)), "")
    window.add(latency=0.020, processing=0.010)
    window.add(latency=0.040, processing=0.030)
    target = Target("7", "cat", State.LOST, 0.1, (0, 0, 1, 1), Frame(1, 0, None), 0)
    level, text, values = window.report(snapshot(102.0, Counters(30, 12), targets=(target,)), "")
    assert (level, text) == (OK, "lost")
    assert (values["state"], values["target"], values["targets"]) == ("LOST", "7", "1")
    assert values["target '7'"] == "LOST 0.10"
    assert values["images received per s"] == "10.0" and values["images processed per s"] == "2.0"
    assert values["latency mean ms"] == "30.0" and values["latency max ms"] == "40.0"
    assert values["latency p50 ms"] == "30.0" and values["latency p95 ms"] == "39.0"
    assert values["processing mean ms"] == "20.0" and values["images dropped"] == "18"
    assert "latency mean ms" not in window.report(snapshot(103.0, Counters(31, 13)), "")[2]


@pytest.mark.parametrize(
    ("now", "level", "text"),
    [
        (snapshot(1.0), WARN, "hint"),
        (snapshot(1.0, enabled=False), OK, "switched off"),  # silence is intended
        (snapshot(1.0, Counters(5, 5)), OK, "no target"),
        (snapshot(1.0, Counters(5, 5, 2)), ERROR, "2 failures, see the log"),
        (snapshot(1.0, Counters(5, 2), busy=4.9), OK, "no target"),  # slow, not hanging
        (snapshot(1.0, Counters(5, 2), busy=9.0), ERROR, "tracker has been busy .* for 9 s"),
    ],
)
def test_levels(now, level, text):
    found = RateWindow(0.0, busy_timeout=5.0).report(now, "hint")
    assert found[0] == level and re.search(text, found[1])


def test_memory_is_bounded_without_reports():
    window = RateWindow(0.0)
    for latency in range(5000):
        window.add(latency=latency)
    values = window.report(snapshot(1.0, Counters(5000, 5000)), "")[2]
    assert values["latency mean ms"] == "4499500.0"  # the newest thousand


def test_latency_is_never_negative():
    window = RateWindow(0.0)
    window.add(latency=-5.0)  # the clock was set back
    assert window.report(snapshot(1.0), "")[2]["latency max ms"] == "0.0"


@pytest.mark.parametrize(
    ("publishers", "frame_ids", "sizes", "text"),
    [
        ("ab", "x", [(640, 480)], "2 publishers: a, b; expected one"),
        ("a", "xy", [(640, 480)], "2 frame_ids: x, y"),
        ("a", "x", [(640, 480), (320, 240)], "2 sizes: 320 x 240, 640 x 480"),
        ("a", "x", [None], "no target"),
    ],
)
def test_images_of_two_cameras(publishers, frame_ids, sizes, text):
    window = RateWindow(0.0)
    for frame_id in frame_ids:
        for size in sizes:
            window.see(0.5, 0, frame_id, size)
    found = [Publisher(node, IMAGE, True) for node in publishers]
    level, message, _ = window.report(snapshot(1.0, Counters(5, 5)), "", found)
    assert text in message and level == (OK if text == "no target" else WARN)
    assert window.report(snapshot(2.0, Counters(9, 9)), "")[1] == "no target"  # only new ones


@pytest.mark.parametrize(
    ("topic", "topics", "words"),
    [
        ("/image", ["/image/compressed"], "set image_transport to compressed"),
        ("/image/compressed", ["/image"], "set image_transport to raw"),
        ("/image", ["/b", "/a"], "set image_topic to one of /a, /b"),
        ("/image", ["/image"], "start the camera"),  # only the node's own subscription
    ],
)
def test_the_hint_looks_for_other_topics(topic, topics, words):
    assert words in why_no_image(topic, IMAGE, False, [], topics)


@pytest.mark.parametrize(
    ("shared_memory", "fast_dds", "words"),
    [
        (64e6, True, "/dev/shm has 64 MB.*--shm-size"),  # as Docker gives it
        (8e9, True, PROFILES_VARIABLE),
        (64e6, False, "check the camera and the network"),
    ],
)
def test_the_hint_knows_the_middleware(shared_memory, fast_dds, words):
    publishers = [Publisher("cam", IMAGE, False)]
    assert re.search(
        words, why_no_image("/i", IMAGE, False, publishers, (), shared_memory, fast_dds)
    )


def test_a_slow_camera_is_not_blamed():
    window = RateWindow(0.0)
    for now in (1.0, 4.0):  # every 3 s
        window.see(now, 0, "")
    window.report(snapshot(4.5, Counters(2, 2)), "hint")
    assert window.report(snapshot(5.5, Counters(2, 2)), "hint")[:2] == (OK, "no target")
    assert window.report(snapshot(14.0, Counters(2, 2)), "hint")[:2] == (WARN, "hint")


@pytest.mark.parametrize(
    ("latency", "level"), [(0.05, OK), (0.1, WARN), (0.19, WARN), (0.2, ERROR), (9.0, ERROR)]
)
def test_limits_of_the_latency(latency, level):
    window = RateWindow(0.0, latency_warning=0.1, latency_error=0.2)
    window.add(latency=latency)
    found = window.report(snapshot(1.0, Counters(5, 5)), "")
    assert found[0] == level and (f"{latency:.3f} s" in found[1]) is (level != OK)
    window = RateWindow(0.0)  # without limits
    window.add(latency=latency)
    assert window.report(snapshot(1.0, Counters(5, 5)), "")[0] == OK


MS = 1_000_000
STEADY = 33 * MS * np.arange(60)
JITTER = np.random.default_rng(0).integers(-3 * MS, 3 * MS, 60)


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        (STEADY, 1.0),
        (STEADY + JITTER, 1.0),
        (STEADY[::3], 1.0),  # one rate: a slow camera
        (np.delete(STEADY, np.s_[2::4]), 0.75),
        ((STEADY + JITTER)[np.arange(60) % 5 < 2], 23 / 56),
        (STEADY[:10], None),  # too few
        (np.zeros(60), None),  # a camera without stamps
        (np.random.default_rng(1).exponential(33e6, 60).cumsum(), None),  # no steady rate
        (STEADY[::-1], 1.0),  # in any order
        (STEADY + 10**10 * (STEADY > STEADY[30]), 1.0),  # a pause of ten seconds
    ],
)
def test_share_of_the_images_that_arrive(stamps, expected):
    assert share_arrived(stamps) == (expected and pytest.approx(expected, abs=0.01))


@pytest.mark.parametrize(
    ("stamps", "level", "text", "percent"),
    [
        (STEADY, OK, "no target", "100"),
        (np.delete(STEADY, [7]), OK, "no target", "98"),
        (np.delete(STEADY, np.s_[2::4]), WARN, "75 % of the images arrive: the cure", "75"),
        (np.zeros(60), OK, "no target", None),
    ],
)
def test_partial_loss_is_a_warning(stamps, level, text, percent):
    window = RateWindow(0.0)
    for stamp_ns in stamps:
        window.see(0.5, int(stamp_ns), "")
    found = window.report(snapshot(1.0, Counters(60, 60)), "", (), "the cure")
    assert found[:2] == (level, text) and found[2].get("images arrived %") == percent
    assert "images arrived %" not in window.report(snapshot(2.0, Counters(60, 60)), "")[2]
