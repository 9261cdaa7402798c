"""The benchmark of single steps: where each begins, and a whole run on one clip."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import numpy as np

from benchmarks.steps import main, single_steps
from spmtrack_core.data.recording import write_image
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.geometry.boxes import xyxy_to_xywh

FRAME = np.zeros((120, 160, 3), np.uint8)


class Standing:
    """A tracker that finds the target where the step begins."""

    def __init__(self):
        self.began = []

    def start(self, frame, box_xywh):
        return SimpleNamespace(box_xyxy=None)

    def follow(self, frame, targets):
        self.began.append(xyxy_to_xywh(targets[0].box_xyxy))
        return [SimpleNamespace(box_xywh=self.began[-1])]


def test_each_step_begins_beside_the_true_box_of_the_frame_before():
    boxes = np.array([[20, 20, 40, 30], [60, 50, 40, 30], [100, 10, 40, 30.0]])
    tracker = Standing()
    iou = single_steps(tracker, FrameSequence("a", lambda: iter([FRAME] * 3), boxes_xywh=boxes))
    error = np.abs(np.array(tracker.began) - boxes[:2])
    assert error.max() < 0.4 * 40
    assert error.min() > 0
    assert iou == 0, "the target moves by more than its size from frame to frame"


def test_a_step_from_an_absent_target_begins_where_the_last_one_ended():
    boxes = np.array([[20, 20, 40, 30], [np.nan] * 4, [20, 20, 40, 30]])
    tracker = Standing()
    iou = single_steps(tracker, FrameSequence("a", lambda: iter([FRAME] * 3), boxes_xywh=boxes))
    assert np.array_equal(*tracker.began)
    assert 0.6 < iou < 1


def test_a_whole_run(tmp_path, monkeypatch, capsys, tiny_checkpoint):
    for name in ("1.png", "2.png"):
        write_image(tmp_path / "cup" / name, FRAME)
    (tmp_path / "cup" / "groundtruth.txt").write_text("60,40,36,24\n" * 2)
    options = ["--weights", str(tiny_checkpoint), "--overlap", "1", "0.5"]
    monkeypatch.setattr(sys, "argv", ["steps", str(tmp_path), *options])
    main()
    lines = capsys.readouterr().out.splitlines()
    kinds = [re.search("box_overlap (.+?): mean", line)[1] for line in lines]
    assert kinds == ["1, whole", "1, upper part", "0.5, whole", "0.5, upper part"]
    for line in lines[:2]:
        assert line.endswith("difference +0.000 (standard error 0.000), more in 0 of 1 clips")
