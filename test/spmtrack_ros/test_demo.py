"""The demo as a user runs it: three processes, and the files that they write."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from dataset_trees import video

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

import numpy as np
from rich.console import Console
from std_msgs.msg import Header

from spmtrack_core.data.video import open_frames
from spmtrack_ros.demo import report
from spmtrack_ros.recorder import Recorder, Row
from spmtrack_ros.srv import InitTarget

pytestmark = pytest.mark.ros
PATIENCE = 120  # s; two processes import PyTorch, perhaps on a busy machine


def start_demo(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "spmtrack_ros.demo", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def command_lines_with(text):
    """Command lines of running processes that contain this text."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended
            found.append(file.read_bytes().decode(errors="replace"))
    return [line for line in found if text in line]


def test_the_demo_writes_video_contact_sheet_and_boxes(tiny_checkpoint, tmp_path):
    weights = tmp_path / "it's tiny.safetensors"
    weights.write_bytes(tiny_checkpoint.read_bytes())
    demo = start_demo("--weights", weights, "--output", tmp_path, "--max-frames", 40, "--rate", 10)
    output, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, errors + output
    for words in ("40: ", "tracked per second", "image to detection", "mean IoU"):
        assert words in output
    rows = list(csv.DictReader((tmp_path / "boxes.csv").open()))
    assert [int(row["frame"]) for row in rows] == list(range(40))
    assert {row["state"] for row in rows} <= {"waiting", "tracking", "lost", "skipped"}
    assert sum(row["state"] == "tracking" for row in rows) >= 10
    stamps = [float(row["stamp"]) for row in rows]
    assert stamps == sorted(stamps)
    assert sum(1 for _ in open_frames(str(tmp_path / "tracked.mp4"))) == 40
    assert next(iter(open_frames(str(tmp_path)))).shape[2] == 3  # contact_sheet.png
    assert not command_lines_with(weights.name)


@pytest.mark.parametrize(
    ("text", "box"),
    [("10,10,20,20\n", []), ("where I filmed it\n", ["--box", 10, 10, 20, 20])],
    ids=["the first box alone", "other words"],
)
def test_a_text_beside_a_video_need_not_hold_all_boxes(tiny_checkpoint, tmp_path, text, box):
    video(tmp_path / "clip.mp4", 25)
    (tmp_path / "clip.txt").write_text(text)
    source = tmp_path / "clip.mp4"
    demo = start_demo(source, *box, "--weights", tiny_checkpoint, "--output", tmp_path / "out")
    output, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, errors + output
    assert "25: " in output and "mean IoU" not in output


def test_ctrl_c_ends_all_processes_and_keeps_the_results_so_far(tiny_checkpoint, tmp_path):
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
    assert not command_lines_with(str(tiny_checkpoint))
    assert "Traceback" not in log.read_text()


def test_no_rate_is_printed_for_images_without_stamps(tmp_path):
    rows = [Row(0, "tracking", (1.0, 2.0, 3.0, 4.0), 0.5, 0.01)] * 2
    picture = np.zeros((20, 30, 3), np.uint8)
    recorder = SimpleNamespace(rows=rows, processing={}, pictures=lambda: [picture])
    with (tmp_path / "out.txt").open("w") as file:
        report(recorder, None, None, tmp_path, Console(file=file, width=200))
    text = (tmp_path / "out.txt").read_text()
    assert "image to detection" in text and "tracked per second" not in text


BOXES = np.array([[1, 1, 5, 5], [2, 2, 5, 5], [np.nan] * 4, [4, 4, 5, 5]])


@pytest.mark.parametrize(("boxes", "sent"), [(BOXES, [2.0, 4.0]), (None, [])])
def test_a_missed_image_is_retried_only_if_the_box_is_known(boxes, sent):
    missed = InitTarget.Response(code=InitTarget.Response.CODE_STAMP_NOT_BUFFERED, message="no")
    reply = SimpleNamespace(done=lambda: True, result=lambda: missed)
    requests = []
    recorder = SimpleNamespace(
        _box=BOXES[0],
        _boxes=boxes,
        _label="",
        _header=Header(),
        _requests=1,
        reply=reply,
        _init=SimpleNamespace(call_async=lambda request: requests.append(request) or reply),
    )
    recorder.request_target = lambda: Recorder.request_target(recorder)
    for received in (2, 3, 4):
        recorder._received = received
        if boxes is None:
            with pytest.raises(ValueError, match="rejected"):
                Recorder.check_reply(recorder)
        else:
            Recorder.check_reply(recorder)
    assert [each.bbox.center.position.x - 2.5 for each in requests] == sent


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such.mp4"], "no_such.mp4"),
        (["--box", "1", "2", "3"], "expected 4 arguments"),
        (["--box", "1", "2", "nan", "4"], "finite"),
        (["--box", "1", "2", "0", "4"], "positive"),
        (["--rate", "-1"], "--rate"),
        (["0"], "--box"),  # a camera has no known box
        (["/dev/null"], "--box"),  # nor has one by its device, which the publisher must open
    ],
)
def test_errors_take_one_line_and_code_2(tmp_path, arguments, words):
    demo = start_demo(*arguments, "--output", tmp_path)
    output, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 2 and output == ""
    assert errors.count("\n") == 1 and errors.startswith("demo: error: ") and words in errors
