"""The demo as a user runs it: three processes, and what they leave behind."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

from spmtrack_core.data.video import open_frames

pytestmark = pytest.mark.ros
PATIENCE = 120  # s; two processes import PyTorch, perhaps on a busy machine


def start_demo(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "spmtrack_ros.demo", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def running_with(text):
    """Processes that have this text in their command line."""
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    return [line for line in listing.splitlines() if text in line]


def test_it_leaves_video_pictures_and_boxes(tiny_checkpoint, tmp_path):
    demo = start_demo("--weights", tiny_checkpoint, "--output", tmp_path, "--max-frames", 40)
    output, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, errors + output
    for words in ("40/40", "tracked per second", "image to detection", "mean IoU"):
        assert words in output
    rows = list(csv.DictReader((tmp_path / "boxes.csv").open()))
    assert [int(row["frame"]) for row in rows] == list(range(40))
    assert {row["state"] for row in rows} <= {"waiting", "tracking", "lost", "skipped"}
    assert sum(row["state"] == "tracking" for row in rows) >= 10
    stamps = [float(row["stamp"]) for row in rows]
    assert stamps == sorted(stamps)
    assert sum(1 for _ in open_frames(str(tmp_path / "tracked.mp4"))) == 40
    assert next(iter(open_frames(str(tmp_path)))).shape[2] == 3  # contact_sheet.png
    assert not running_with(str(tiny_checkpoint))


def test_ctrl_c_ends_all_and_keeps_what_there_is(tiny_checkpoint, tmp_path):
    demo = start_demo("--weights", tiny_checkpoint, "--output", tmp_path)
    log, deadline = tmp_path / "tracker_node.log", time.monotonic() + PATIENCE
    while not (log.is_file() and "following" in log.read_text()):
        assert demo.poll() is None, demo.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=30)
    assert demo.returncode == 130 and "Traceback" not in errors, errors
    assert len((tmp_path / "boxes.csv").read_text().splitlines()) > 2
    assert (tmp_path / "tracked.mp4").is_file()
    assert not running_with(str(tiny_checkpoint))
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such.mp4"], "no_such.mp4"),
        (["--box", "1", "2", "3"], "expected 4 arguments"),
        (["--box", "1", "2", "nan", "4"], "finite"),
        (["--box", "1", "2", "0", "4"], "positive"),
        (["--rate", "-1"], "--rate"),
        (["0"], "--box"),  # a camera knows no box
    ],
)
def test_errors_take_one_line_and_code_2(tmp_path, arguments, words):
    demo = start_demo(*arguments, "--output", tmp_path)
    output, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 2 and output == ""
    assert errors.count("\n") == 1 and errors.startswith("demo: error: ") and words in errors
