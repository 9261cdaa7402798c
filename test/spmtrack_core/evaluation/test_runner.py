"""The evaluation loop: what it writes, and that it goes on where it was interrupted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.report import table
from spmtrack_core.evaluation.runner import run
from spmtrack_core.tracking.result import TrackResult, TrackState

FRAME = np.zeros((40, 60, 3), np.uint8)
BOX = (10.0, 10.0, 8.0, 6.0)


class Still:
    """The identity tracker: the target stays where it was named."""

    def __init__(self, fails_at=None):
        self.calls = 0
        self.fails_at = fails_at

    def init(self, frame, box_xywh):
        self.box = tuple(box_xywh)

    def update(self, frame):
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        return TrackResult(self.box, math.nan, TrackState.TRACKING)


def sequence(name, frames=4, shift=0.0):
    boxes = np.array([(BOX[0] + shift * index, *BOX[1:]) for index in range(frames)])
    return FrameSequence(name, lambda: iter([FRAME] * frames), frames, None, boxes)


def test_results_scores_and_plot_are_written(tmp_path):
    report = run(Still(), [sequence("still"), sequence("moving", shift=8.0)], tmp_path, "still 1")
    scores = {row["sequence"]: row["mean_iou"] for row in report["sequences"]}
    assert scores == {"still": 1.0, "moving": 0.25}
    assert report["mean"]["mean_iou"] == 0.625
    assert json.loads((tmp_path / "results.json").read_text()) == report
    assert (tmp_path / "moving.txt").read_text().splitlines() == ["10.000,10.000,8.000,6.000"] * 4
    assert (tmp_path / "success.png").stat().st_size > 1000
    assert not (tmp_path / "unfinished.txt").exists()
    assert table(report).row_count == 3


class Honest(Still):
    """Stays where it is, and is less sure with every frame."""

    def update(self, frame):
        return super().update(frame)._replace(confidence=1 / self.calls)


def test_the_confidence_is_judged_where_there_is_one(tmp_path):
    moving = [sequence("moving", shift=2.0)]  # IoU 1, 0.6, 0.33, 0.14
    report = run(Honest(), moving, tmp_path / "honest", "honest 1")
    assert report["confidence_auc"] == 1.0
    column = (tmp_path / "honest" / "moving_confidence.txt").read_text().split()
    assert column == ["nan", "1.000000", "0.500000", "0.333333"]
    assert "1.000" in str(table(report).caption)
    again = Honest()
    (tmp_path / "honest" / "unfinished.txt").write_text("honest 1")
    again_report = run(again, moving, tmp_path / "honest", "honest 1")
    assert again_report["confidence_auc"] == report["confidence_auc"]
    assert again.calls == 0  # read back, confidence and all
    report = run(Still(), moving, tmp_path / "still", "still 1")
    assert report["confidence_auc"] is None
    assert "-" in str(table(report).caption)


def test_an_interrupted_run_goes_on_with_what_is_missing(tmp_path):
    sequences = [sequence("a"), sequence("b")]
    with pytest.raises(KeyboardInterrupt):
        run(Still(fails_at=5), sequences, tmp_path, "still 1")
    second = Still()
    run(second, sequences, tmp_path, "still 1")
    assert second.calls == 3  # sequence a was not run again
    third = Still()
    run(third, sequences, tmp_path, "still 1")
    assert third.calls == 6  # a complete run is not mistaken for an interrupted one


def test_another_trackers_files_are_not_taken_over(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Still(fails_at=5), [sequence("a"), sequence("b")], tmp_path, "still 1")
    other = Still()
    run(other, [sequence("a"), sequence("b")], tmp_path, "still 2")
    assert other.calls == 6


def test_a_sequence_without_boxes_is_refused(tmp_path):
    blind = FrameSequence("blind", lambda: iter([FRAME]), 1)
    with pytest.raises(ValueError, match="blind has no boxes"):
        run(Still(), [blind], tmp_path)
