"""OpenCV's trackers as ``VideoTracker``, and the command that compares them."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_trees import MAKE

from spmtrack_core.data.recording import write_boxes, write_image
from spmtrack_core.data.scene import scene
from spmtrack_core.evaluation import plots
from spmtrack_core.evaluation.disturb import DISTURBANCES
from spmtrack_core.evaluation.opencv import OpenCVTracker, opencv_trackers
from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy
from spmtrack_core.tracking.result import TrackState


@pytest.mark.parametrize("name", ["CSRT", "KCF", "MIL"])
def test_every_tracker_follows_the_built_in_scene(name):
    sequence = scene()
    frames = list(itertools.islice(sequence, 6))
    tracker = opencv_trackers()[0][name]
    tracker.init(frames[0], sequence.boxes_xywh[0])
    for index, frame in enumerate(frames[1:], 1):
        found = tracker.update(frame)
        pair = xywh_to_xyxy(found.box_xywh), xywh_to_xyxy(sequence.boxes_xywh[index])
        assert iou_xyxy(*pair) > 0.4
        assert np.isnan(found.confidence)  # MIL has the method, and no meaning in it


def test_tracker_gets_bgr_and_keeps_its_box_when_lost():
    class Blind:
        def init(self, frame, box):
            self.seen, self.box = frame, box

        def update(self, frame):
            return False, (0, 0, 0, 0)

    tracker = OpenCVTracker(Blind)
    frame = np.zeros((20, 30, 3), np.uint8)
    frame[..., 0] = 200  # red
    tracker.init(frame, (1.4, 2.6, 0.2, 5.0))
    assert tracker.tracker.seen[0, 0].tolist() == [0, 0, 200]
    assert tracker.tracker.box == (1, 3, 1, 5)
    found = tracker.update(frame)
    assert (found.box_xywh, found.state) == ((1.0, 3.0, 1.0, 5.0), TrackState.LOST)


@pytest.mark.parametrize("step", ["init", "update"])
def test_an_error_of_opencv_is_one_line_of_the_sequence(step):
    class Broken:
        def init(self, frame, box):
            if step == "init":
                cv2.resize(frame, (0, 0))

        def update(self, frame):
            return cv2.resize(frame, (0, 0))

    tracker, frame = OpenCVTracker(Broken), np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(ValueError, match=r"^OpenCV: [^\n]*resize[^\n]*$"):
        tracker.init(frame, (1, 2, 3, 4))
        tracker.update(frame)


def test_trackers_missing_in_this_opencv_are_named(monkeypatch):
    monkeypatch.delattr(cv2, "TrackerCSRT_create", raising=False)
    trackers, absent = opencv_trackers()
    assert "CSRT" not in trackers
    assert any("CSRT" in line and "opencv-contrib" in line for line in absent)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx"):
        opencv_trackers(vit=tmp_path / "absent.onnx")


def test_the_command_compares(tmp_path, monkeypatch, tiny_checkpoint, spmtrack):
    sequence = scene()
    for index, frame in enumerate(itertools.islice(sequence, 4)):
        write_image(tmp_path / "a" / f"{index}.jpg", frame[::2, ::2])
    write_boxes(tmp_path / "a" / "groundtruth.txt", sequence.boxes_xywh[:4] / 2)
    for kind in list(DISTURBANCES)[1:]:  # all of them take long
        monkeypatch.delitem(DISTURBANCES, kind)
    few = {"KCF": opencv_trackers()[0]["KCF"]}
    absent = ["CSRT is not in this OpenCV"]
    monkeypatch.setattr("spmtrack_core.cli.compare.opencv_trackers", lambda *_: (few, absent))
    figures, save = [], plots.save
    monkeypatch.setattr(plots, "save", lambda *each: figures.append(each[1]) or save(*each))

    code, out, err = spmtrack(
        "compare",
        "folder",
        "--root",
        tmp_path,
        "--weights",
        tiny_checkpoint,
        "--output",
        tmp_path / "out",
        "--disturb",
    )
    assert code == 0, err
    assert "CSRT is not in this OpenCV" in err
    assert "OpenCV KCF" in out and "loose box" in out
    reports = json.loads((tmp_path / "out" / "comparison.json").read_text())
    ours, theirs = (report["tracker"] for report in reports)
    assert ours.startswith("tiny ") and theirs == "OpenCV KCF"
    assert [len(report["sequences"]) for report in reports] == [1, 1]
    assert [list(report["disturbed"]) for report in reports] == [["loose box"]] * 2
    assert cv2.imread(str(tmp_path / "out" / "comparison.png")) is not None
    for axes in figures[-1].axes:  # the legend tells them apart: labels lie over each other
        assert len({line.get_marker() for line in axes.lines} - {"None"}) == 2 and not axes.texts
    assert (tmp_path / "out" / "KCF" / "loose box" / "boxes" / "a.txt").is_file()


def test_any_command_that_speaks_trax_is_compared(
    tmp_path, tiny_checkpoint, spmtrack, monkeypatch
):
    monkeypatch.setattr("spmtrack_core.cli.compare.opencv_trackers", lambda *_: ({}, []))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    sequence = scene()
    for index, frame in enumerate(itertools.islice(sequence, 3)):
        write_image(tmp_path / "a" / f"{index}.png", frame[::2, ::2])
    write_boxes(tmp_path / "a" / "groundtruth.txt", sequence.boxes_xywh[:3] / 2)
    ours = f"{sys.executable} -m spmtrack_core.cli eval vot --serve --weights {tiny_checkpoint}"
    code, out, err = spmtrack(
        *("compare", "folder", "--root", tmp_path, "--weights", tiny_checkpoint),
        *(
            "--output",
            tmp_path / "out",
            "--trax",
            f"served={ours} --device cpu",
            "--device",
            "cpu",
        ),
    )
    assert code == 0, err
    assert "served" in out
    reports = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert re.fullmatch(
        "served [0-9a-f]{8}", reports[1]["tracker"]
    )  # another command: another run
    paths = (tmp_path / "out" / name / "boxes" / "a.txt" for name in ("tiny", "served"))
    direct, served = (np.loadtxt(path, delimiter=",") for path in paths)
    np.testing.assert_allclose(served, direct, atol=2e-3)  # JPEG-free frames, four digits
    code, _, err = spmtrack(
        *("compare", "folder", "--root", tmp_path, "--output", tmp_path / "out", "--trax", "mine")
    )
    assert (code, "--trax must be NAME=COMMAND" in err) == (2, True)


def test_weights_of_one_name_are_refused(tmp_path, tiny_checkpoint, spmtrack):
    (tmp_path / "other").mkdir()
    again = shutil.copy(tiny_checkpoint, tmp_path / "other" / Path(tiny_checkpoint).name)
    code, _, err = spmtrack(
        *("compare", "synthetic", "--output", tmp_path / "out", "--device", "cpu"),
        *("--weights", tiny_checkpoint, "--weights", again),
    )
    assert (code, "several weights are named tiny" in err) == (2, True), err


@pytest.mark.parametrize("dataset", ["got10k", "trackingnet"])
def test_a_split_whose_boxes_a_server_has_is_refused_before_tracking(
    tmp_path, spmtrack, tiny_checkpoint, dataset
):
    MAKE[dataset](tmp_path / "data")
    code, _, err = spmtrack(
        *("compare", dataset, "--root", tmp_path / "data", "--output", tmp_path / "out"),
        *("--weights", tiny_checkpoint, "--device", "cpu", "--disturb"),
    )
    assert code == 2
    assert f"split test of {dataset} has one box a sequence" in err and "spmtrack eval" in err
    assert not (tmp_path / "out").exists()
