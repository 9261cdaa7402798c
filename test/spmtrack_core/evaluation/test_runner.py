"""The evaluation loop: what it writes, and that it goes on where it was interrupted."""

from __future__ import annotations

import io
import json
import math
import os
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from dataset_trees import video
from rich.console import Console

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_sequences
from spmtrack_core.data.recording import write_image
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.passes import Passes, key_of, track_all
from spmtrack_core.evaluation.report import Facts
from spmtrack_core.evaluation.results import ResultFolder
from spmtrack_core.evaluation.runner import run, run_all
from spmtrack_core.evaluation.tables import comparison, table
from spmtrack_core.tracking.loading import load_tracker
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
    given = [sequence("still"), sequence("moving", shift=8.0), sequence("one", frames=1)]
    report = run(Still(), given, tmp_path, "still 1")
    scores = {row["sequence"]: row["mean_iou"] for row in report["sequences"]}
    assert scores == {"still": 1.0, "moving": 0.25, "one": 1.0}
    assert report["mean"]["mean_iou"] == 0.75
    times = [row["median_ms"] for row in report["sequences"]]
    assert report["mean"]["median_ms"] == np.mean(times[:2])  # the only frame is not tracked
    assert json.loads((tmp_path / "results.json").read_text()) == report
    lines = (tmp_path / "boxes" / "moving.txt").read_text().splitlines()
    assert lines == ["10.000,10.000,8.000,6.000"] * 4
    assert (tmp_path / "success.png").stat().st_size > 1000
    assert table(report).row_count == 4


class Honest(Still):
    """Stays where it is, and is less sure with every frame."""

    def update(self, frame):
        return super().update(frame)._replace(confidence=1 / self.calls)


def test_the_confidence_is_judged_where_there_is_one(tmp_path):
    moving = [sequence("moving", shift=2.0)]  # IoU 1, 0.6, 0.33, 0.14
    report = run(Honest(), moving, tmp_path / "honest", "honest 1")
    assert report["confidence_auc"] == 1.0
    column = (tmp_path / "honest" / "confidence" / "moving.txt").read_text().split()
    assert column == ["nan", "1.000000", "0.500000", "0.333333"]
    assert "1.000" in str(table(report).caption)
    again = Honest()
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
    assert third.calls == 0  # all of it is there
    run(third, sequences, tmp_path, "still 1", passes=Passes(fresh=True))
    assert third.calls == 6


def test_the_processes_of_a_fresh_run_track_each_sequence_once(tmp_path):
    sequences, passes, still = [sequence("a"), sequence("b")], Passes(fresh=True), Still()
    run(still, sequences, tmp_path, "still 1")
    since = time.time()
    for _ in range(2):  # as two processes of one run
        track_all(still, sequences, ResultFolder(tmp_path), passes, lambda *_: None, since)
    assert still.calls == 6 + 6


def files(folder):
    """The content of all files, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_another_trackers_files_are_neither_taken_over_nor_replaced(tmp_path):
    sequences = [sequence("a"), sequence("b")]
    run(Still(), sequences, tmp_path, "still 1")
    before, other = files(tmp_path), Still()
    with pytest.raises(
        ValueError, match=r"holds a of another run .*; choose another --output, or"
    ):
        run(other, sequences, tmp_path, "still 2")
    assert (other.calls, files(tmp_path)) == (0, before)
    trackers = {".": ("still 1", Still()), "other": ("still 2", Still())}
    run_all(trackers, sequences, tmp_path)
    before = files(tmp_path)
    trackers = {"new": ("still 3", other), "other": ("still 4", other)}
    with pytest.raises(ValueError, match="holds a of another run"):
        run_all(trackers, sequences, tmp_path)
    assert (other.calls, files(tmp_path)) == (0, before)


def test_a_fresh_run_replaces_another_ones_files_and_goes_on_without_fresh(tmp_path):
    sequences, fresh = [sequence(name) for name in "abc"], Passes(fresh=True)
    run(Still(), sequences, tmp_path, "still 1")
    with pytest.raises(KeyboardInterrupt):
        run(Still(fails_at=5), sequences, tmp_path, "still 2", passes=fresh)
    second = Still()
    report = run(second, sequences, tmp_path, "still 2")
    assert (second.calls, report["left_out"]) == (6, [])  # b and c


@pytest.mark.parametrize("label", ["still 1", "still 2"])
def test_an_attempt_that_fails_keeps_what_was_complete(tmp_path, label):
    sequences, fresh = [sequence("a"), sequence("b")], Passes(fresh=True)
    run(Still(), sequences, tmp_path, "still 1")
    kept = {path: data for path, data in files(tmp_path).items() if path.endswith("/b.txt")}
    assert len(kept) == 4
    broken = replace(sequences[1], open=breaks_at(2))
    report = run(Still(), [sequences[0], broken], tmp_path, label, passes=fresh)
    assert report["left_out"] == ["b: frame 3: b/3.png is empty: 0 bytes"]
    assert kept.items() <= files(tmp_path).items()
    again = Still()
    assert run(again, sequences, tmp_path, label)["left_out"] == []
    assert again.calls == (0 if label == "still 1" else 3)


def test_a_sequence_that_cannot_be_opened_keeps_its_results(tmp_path):
    run(Still(), [sequence("a"), sequence("b")], tmp_path, "still 1")
    before = files(tmp_path)
    absent = replace(sequence("b"), open=breaks_at(0))
    assert run(Still(), [sequence("a"), absent], tmp_path, "still 1")["left_out"]
    assert before["boxes/b.txt"] == files(tmp_path)["boxes/b.txt"]
    again = Still()
    assert run(again, [sequence("a"), sequence("b")], tmp_path, "still 1")["left_out"] == []
    assert again.calls == 0


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (replace(sequence("a"), boxes_xywh=sequence("a").boxes_xywh + 1), "other boxes"),
        (replace(sequence("a"), open=lambda: iter([FRAME + 1] * 4)), "other frames"),
        (sequence("a", frames=3), "another length"),
    ],
)
def test_results_of_other_data_of_the_same_name_are_not_taken_over(tmp_path, changed, why):
    with pytest.raises(KeyboardInterrupt):
        run(Still(fails_at=5), [sequence("a"), sequence("b")], tmp_path, "still 1")
    second, sequences = Still(), [changed, sequence("b")]
    with pytest.raises(ValueError, match="holds a of another run"):
        run(second, sequences, tmp_path, "still 1")
    run(second, sequences, tmp_path, "still 1", passes=Passes(fresh=True))
    assert second.calls == 3 + changed.length - 1, why


@pytest.mark.parametrize(
    ("change", "other", "reason"),
    [
        (lambda root: os.truncate(root / "a" / "2.png", 99), ["a"], "an image of another size"),
        (lambda root: (root / "a/3.png").rename(root / "a/4.png"), ["a"], "another name"),
        (lambda root: os.truncate(root / "v.mp4", 9999), ["v.mp4"], "a video of another size"),
        (lambda root: os.utime(root / "a" / "2.png", (0, 0)), [], "a copy has another time"),
        (lambda root: root.rename(root.with_name("moved")), [], "the place is none of the data"),
    ],
)
def test_files_of_later_frames_are_part_of_the_data(tmp_path, change, other, reason):
    root = tmp_path / "data"
    for index in range(4):
        write_image(root / "a" / f"{index}.png", FRAME)
    video(root / "v.mp4", 4)
    for boxes in (root / "a" / "groundtruth.txt", root / "v.txt"):
        boxes.write_text("10,10,8,6\n" * 4)

    def keys():
        place = root if root.exists() else tmp_path / "moved"
        sequences, _ = open_sequences(DatasetConfig("folder", str(place)))
        return {each.name: key_of(each, Passes()) for each in sequences}

    before = keys()
    change(root)
    after = keys()
    assert before.keys() == after.keys() == {"a", "v.mp4"}
    assert [name for name in before if after[name] != before[name]] == other, reason


def test_a_missing_file_of_a_later_frame_is_named(tmp_path):
    gone = replace(sequence("b"), files=lambda: [tmp_path / "3.png"])
    report = run(Still(), [sequence("a"), gone], tmp_path, "still 1")
    assert re.fullmatch(r"b: .*No such file.*3\.png.*", report["left_out"][0])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"label": 3}', '{"finished": 3}'])
def test_a_broken_note_of_what_is_done_is_no_hindrance(tmp_path, content):
    ResultFolder(tmp_path).fail("a", "broken")
    (tmp_path / "done" / "a.json").write_text(content)
    assert run(Still(), [sequence("a")], tmp_path, "still 1")["mean"]["mean_iou"] == 1


def breaks_at(index):
    def frames():
        yield from [FRAME] * index
        raise ValueError("b/3.png is empty: 0 bytes")

    return frames


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (replace(sequence("b"), open=breaks_at(2)), "b: frame 3: b/3.png is empty: 0 bytes"),
        (replace(sequence("b"), open=breaks_at(0)), "b: b/3.png is empty: 0 bytes"),
        (replace(sequence("b"), open=lambda: iter([])), "b: has no frame"),
        (replace(sequence("b"), open=lambda: iter([FRAME] * 3)), "b: has 3 frames for 4 boxes"),
        (replace(sequence("b"), boxes_xywh=None), "b: has no boxes to compare with"),
        (replace(sequence("b"), boxes_xywh=np.array([BOX])), "b: has no boxes to compare with"),
    ],
)
def test_a_run_goes_on_after_a_broken_sequence_and_names_it(tmp_path, broken, reason):
    tracker = Still()
    sequences = [sequence("a"), broken, sequence("c")]
    report = run(tracker, sequences, tmp_path, "still 1", ["d: no boxes at d.txt"])
    assert [row["sequence"] for row in report["sequences"]] == ["a", "c"]
    assert report["left_out"] == ["d: no boxes at d.txt", reason]
    assert report["mean"]["mean_iou"] == 1
    assert json.loads((tmp_path / "results.json").read_text()) == report
    assert not (tmp_path / "boxes" / "b.txt").exists()
    tracker.calls = 0
    repaired = run(tracker, [sequence(name) for name in "abc"], tmp_path, "still 1")
    assert (tracker.calls, len(repaired["sequences"])) == (3, 3)  # b alone


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_run_goes_on_after_a_sequence_in_which_the_tracker_breaks(tmp_path, error):
    class Crashing(Still):
        def update(self, frame):
            if self.calls == 4:  # frame 3 of b
                self.calls += 1
                raise error("the tracker has ended")
            return super().update(frame)

    report = run(Crashing(), [sequence(name) for name in "abc"], tmp_path, "still 1")
    assert [row["sequence"] for row in report["sequences"]] == ["a", "c"]
    assert report["left_out"] == ["b: frame 3: the tracker has ended"]


def test_a_run_in_which_all_is_broken_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="none of the 1 sequences can be evaluated, first b: has"):
        run(Still(), [replace(sequence("b"), boxes_xywh=None)], tmp_path)


def test_repetitions_that_would_share_files_are_refused(tmp_path):
    sequences, still = [sequence("walk"), sequence("walk_002")], Still()
    with pytest.raises(ValueError, match=r"repetition 2 of walk and .* both be walk_002\.txt"):
        run(still, sequences, tmp_path, passes=Passes(repetitions=2))
    assert (still.calls, list(tmp_path.iterdir())) == (0, [])
    assert len(run(still, sequences, tmp_path)["sequences"]) == 2


def test_two_sequences_of_one_name_are_refused(tmp_path):
    still = Still()
    with pytest.raises(ValueError, match="2 sequences are called walk, and would share"):
        run(still, [sequence("walk"), sequence("run"), sequence("walk", shift=8.0)], tmp_path)
    assert (still.calls, list(tmp_path.iterdir())) == (0, [])


@pytest.mark.parametrize("far", [1e12, -1e300])
def test_a_box_far_away_has_a_sheet(tmp_path, far):
    class Lost(Still):
        def update(self, frame):
            return TrackResult((far, *BOX[1:]), math.nan, TrackState.TRACKING)

    frames = sequence("still")
    frames.boxes_xywh[2, 0] = -far
    report = run(Lost(), [frames], tmp_path, facts=Facts())
    assert report["mean"]["mean_iou"] == 0.25
    assert (tmp_path / "worst" / "01 still.png").stat().st_size > 1000


@pytest.mark.parametrize("confidence", [math.inf, -math.inf])
def test_a_confidence_may_be_infinite(tmp_path, confidence):
    class Sure(Still):
        def update(self, frame):
            return super().update(frame)._replace(confidence=confidence)

    report = run(Sure(), [sequence("still")], tmp_path, facts=Facts())
    assert report["long_term"] == {
        "f_score": 1.0,
        "precision": 1.0,
        "recall": 1.0,
        "threshold": None,
    }
    assert json.loads((tmp_path / "results.json").read_text()) == report


def test_names_that_are_no_text_are_escaped(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    report = run(Still(), [sequence(name)], tmp_path, name, facts=Facts())
    assert report["sequences"][0]["sequence"] == name
    for file in ("table.md", "table.tex", "results.csv"):
        assert "udce9" in (tmp_path / file).read_text(encoding="utf-8"), file
    assert len(list((tmp_path / "worst").iterdir())) == 1


def test_a_comparison_names_what_one_tracker_could_not_do(tmp_path):
    class Choosy(Still):
        def init(self, frame, box_xywh):
            if box_xywh[0] > 10:
                raise ValueError("too far right")
            super().init(frame, box_xywh)

    far = replace(sequence("far"), boxes_xywh=sequence("far").boxes_xywh + 5)
    trackers = {"still": ("still 1", Still()), "choosy": ("choosy 1", Choosy())}
    reports = run_all(trackers, [sequence("near"), far], tmp_path)
    assert [report["left_out"] for report in reports] == [[], ["far: frame 1: too far right"]]
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(comparison(reports))
    assert re.search(r"far\s+│\s+1\.000\s+│\s+-", console.export_text())


def test_exact_references_are_the_buffer_that_is_never_full(tmp_path, tiny_checkpoint):
    tracker = load_tracker(tiny_checkpoint, "cpu")
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (24, 60, 80, 3)).astype(np.uint8)
    boxes = np.tile([20.0, 20, 24, 20], (24, 1))
    clip = FrameSequence("clip", lambda: iter(frames), 24, None, boxes)
    found = {}
    for name, exact, capacity, frames_given in (
        ("exact", True, 8, 0),
        ("large", False, 64, 0),
        ("small", False, 8, 0),
        ("given", False, 8, 24),
    ):
        tracker.config = replace(tracker.config, buffer_frames=capacity, exact_frames=frames_given)
        run(tracker, [clip], tmp_path / name, name, passes=Passes(exact_references=exact))
        found[name] = (tmp_path / name / "confidence" / "clip.txt").read_text()
        assert tracker.config.exact_frames == frames_given
    assert found["exact"] == found["large"] == found["given"] != found["small"]
