"""Levels, messages and values of /diagnostics."""

from __future__ import annotations

import re
from types import SimpleNamespace

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
    Transport,
    share_arrived,
    why_lost,
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
        (True, [Publisher("cam", IMAGE, True)], "check whether the camera sends any"),
        (False, [Publisher("cam", IMAGE, False)], "check whether the camera sends any"),
        # one of two publishers matches, so the cause is another one
        (True, [Publisher("a", IMAGE, False), Publisher("b", IMAGE, True)], "no image arrives"),
        (False, [Publisher("a", COMPRESSED, True), Publisher("b", IMAGE, True)], "no image"),
    ],
)
def test_why_no_image(reliable, publishers, words):
    assert words in why_no_image("/image", IMAGE, publishers, Transport(reliable))


def test_a_compressed_topic_that_is_given_as_image_topic():
    hint = why_no_image("/i/compressed", IMAGE, [Publisher("c", COMPRESSED, True)], Transport())
    assert hint.endswith("to /i, without /compressed, and image_transport to compressed")


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
        ("aa", "x", [None], "no target"),  # it was started again
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
        # image_topic was given with the ending
        ("/image/compressed/compressed", ["/image", "/image/compressed"], "to /image, without"),
        ("/image", ["/b", "/a"], "set image_topic to one of /a, /b"),
        ("/image", ["/image"], "start the camera"),  # only the node's own subscription
    ],
)
def test_the_hint_looks_for_other_topics(topic, topics, words):
    assert words in why_no_image(topic, IMAGE, [], Transport(), topics)


@pytest.mark.parametrize(
    ("transport", "silent", "lossy"),
    [
        (Transport(), f"any; if.*{PROFILES_VARIABLE}", f"^Fast DDS .*{PROFILES_VARIABLE}"),
        # as Docker gives it
        (
            Transport(shared_memory=64e6, profile=True),
            "any; if.*/dev/shm has 64 MB",
            "^/dev/shm .*--shm-size",
        ),
        # the variable is set here, perhaps not for the camera
        (Transport(profile=True), "any$", "to reliable, or .* in the camera's process too$"),
        (Transport(fast_dds=False), "any$", "to reliable$"),
        (Transport(reliable=True, shared_memory=64e6), "any$", "fewer or smaller images$"),
    ],
)
def test_the_hint_names_only_causes_that_can_apply(transport, silent, lossy):
    publishers = [Publisher("cam", IMAGE, True)]
    assert re.search(silent, why_no_image("/i", IMAGE, publishers, transport))
    assert re.search(lossy, why_lost(transport))


def test_a_slow_camera_is_not_blamed():
    window = RateWindow(0.0)
    for now in (1.0, 4.0):  # every 3 s
        window.see(now, 0, "")
    window.report(snapshot(4.5, Counters(2, 2)), "hint")
    assert window.report(snapshot(5.5, Counters(2, 2)), "hint")[:2] == (OK, "no target")
    assert window.report(snapshot(14.0, Counters(2, 2)), "hint")[:2] == (WARN, "hint")


def test_a_slow_camera_is_not_blamed_before_its_second_image():
    window = RateWindow(0.0)
    window.see(0.5, 0, "")
    assert window.report(snapshot(1.0, Counters(1, 1)), "hint")[:2] == (OK, "no target")
    assert window.report(snapshot(2.0, Counters(1, 1)), "hint")[:2] == (OK, "no target")
    assert window.report(snapshot(6.0, Counters(1, 1)), "hint")[:2] == (WARN, "hint")


def test_a_pause_of_the_node_is_neither_silence_nor_a_rate():
    window = RateWindow(0.0)
    for now in (1.0, 1.1):
        window.see(now, 0, "old")
        window.add(latency=9.0)
    window.report(snapshot(1.5, Counters(2, 2)), "hint")
    for now in (1.6, 1.7):
        window.see(now, 0, "old")
    window.restart(snapshot(100.0, Counters(4, 4)))
    window.see(100.1, 0, "new")
    level, text, values = window.report(snapshot(101.0, Counters(14, 9)), "hint")
    assert (level, text, values["images received per s"]) == (OK, "no target", "10.0")
    assert values["images processed per s"] == "5.0" and "latency mean ms" not in values
    assert window.report(snapshot(102.0, Counters(14, 9)), "hint")[0] == OK  # rate unknown


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


@pytest.mark.ros
@pytest.mark.parametrize(
    ("reliability", "profile", "advised"),
    [("best_effort", "", True), ("best_effort", "mine.xml", False), ("reliable", "", False)],
)
def test_a_subscription_says_how_its_images_come(monkeypatch, reliability, profile, advised):
    pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
    from spmtrack_ros import image_topic

    def no_folder(path):
        raise FileNotFoundError(path)  # not every system has /dev/shm

    def subscription(kind, topic, callback, qos, **_):
        return SimpleNamespace(topic_name=topic, msg_type=kind, qos_profile=qos)

    node = SimpleNamespace(
        resolve_topic_name=lambda name: f"/{name}",
        create_subscription=subscription,
        get_fully_qualified_name=lambda: "/spmtrack",
        get_topic_names_and_types=lambda: [
            ("/spmtrack/debug_image", [IMAGE]),
            ("/spmtrack_camera/image", [IMAGE]),
        ],
    )
    monkeypatch.setattr(image_topic.shutil, "disk_usage", no_folder)
    monkeypatch.setattr(
        image_topic, "get_rmw_implementation_identifier", lambda: "rmw_fastrtps_cpp"
    )
    monkeypatch.setenv(PROFILES_VARIABLE, profile)
    topic = image_topic.ImageTopic(node, print, "raw", reliability)
    text = topic.why_silent([Publisher("cam", IMAGE, True)])
    assert "no image arrives" in text and (PROFILES_VARIABLE in text) is advised
    # not its own topic, but that of a node whose name begins like its own
    assert topic.why_silent([]).endswith("set image_topic to one of /spmtrack_camera/image")
    assert ("set image_reliability" in topic.why_lossy()) is (reliability == "best_effort")
