"""The publisher of a video as a user runs it, in a process of its own."""

from __future__ import annotations

import signal

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")
pytest.importorskip("skimage", reason="the scene needs scikit-image")

from sensor_msgs.msg import Image

from test.spmtrack_ros.motion_peer import Surroundings, start
from test.spmtrack_ros.peer import STARTUP, output_of, stop_node
from test.spmtrack_ros.wrong_parameters import assert_refused

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("how", "playing"),
    [
        pytest.param(signal.SIGTERM, True, id="playing"),
        pytest.param(signal.SIGINT, False, id="waiting for subscribers"),
    ],
)
def test_a_signal_ends_it_with_exit_code_0_and_no_further_word(how, playing):
    process, around = start("video_publisher", "loop:=true", "rate:=10"), Surroundings()
    try:
        images = around.collect(Image, "image") if playing else []
        around.wait_for(process, "image")
        around.settle()
        assert not playing or around.until(lambda: images, STARTUP)
        code, text = stop_node(process, how)
        assert code == 0 and text.count("\n") == 1, text
        assert "waiting for subscribers of /image: 1" in text
    finally:
        process.kill()
        around.close()


def test_the_end_of_the_source_is_the_end_of_the_process():
    process = start("video_publisher", "max_frames:=3", "rate:=50", "wait_for_subscribers:=0")
    code = process.wait(STARTUP)
    assert code == 0 and "3 frames published" in output_of(process), output_of(process)


def test_a_wrong_source_is_one_line_and_exit_code_2():
    words = "no_such.mp4"
    assert_refused("video_publisher", start("video_publisher", f"source:={words}"), words)
