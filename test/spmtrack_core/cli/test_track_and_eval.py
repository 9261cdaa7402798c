"""The command line: files it writes, and one line for what cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spmtrack_core.data.recording import write_image
from spmtrack_core.data.sequence import read_boxes
from spmtrack_core.data.video import open_frames


def test_the_built_in_scene_needs_no_box(spmtrack, tmp_path, tiny_checkpoint):
    code, out, _ = spmtrack(
        "track",
        "synthetic",
        "--weights",
        tiny_checkpoint,
        "--device",
        "cpu",
        "--max-frames",
        6,
        "--output",
        tmp_path / "out.mp4",
        "--boxes",
        tmp_path / "boxes.txt",
    )
    assert code == 0, out
    assert "6 frames" in out
    assert read_boxes(tmp_path / "boxes.txt").shape == (6, 4)
    assert sum(1 for _ in open_frames(str(tmp_path / "out.mp4"))) == 6


def test_a_folder_is_tracked_from_the_given_box(spmtrack, tmp_path, tiny_checkpoint):
    for index in range(3):
        write_image(tmp_path / f"{index}.png", np.full((60, 80, 3), 90, np.uint8))
    code, _, err = spmtrack(
        "track",
        tmp_path,
        "--box",
        "-3",
        "10.5",
        "20",
        "2e1",
        "--weights",
        tiny_checkpoint,
        "--boxes",
        tmp_path / "boxes.txt",
    )
    assert code == 0, err
    assert read_boxes(tmp_path / "boxes.txt")[0].tolist() == [-3, 10.5, 20, 20]


def test_a_point_on_the_target_will_do(spmtrack, tmp_path, tiny_checkpoint):
    for index in range(3):
        write_image(tmp_path / f"{index}.png", np.full((60, 80, 3), 90, np.uint8))
    (tmp_path / "groundtruth.txt").write_text("no boxes: not needed\n")
    options = ("--weights", tiny_checkpoint, "--boxes", tmp_path / "boxes.txt")
    code, out, err = spmtrack("track", tmp_path, "--point", "40", "30", *options)
    assert code == 0, err
    x, y, w, h = read_boxes(tmp_path / "boxes.txt")[0]
    assert f"box proposed: --box {x:.1f} {y:.1f} {w:.1f} {h:.1f}" in out
    code, _, err = spmtrack("track", tmp_path, "--point", "80", "30", *options)
    assert (code, "point (80, 30) lies outside the image of 80 x 60 px" in err) == (2, True)
    code, _, err = spmtrack("track", tmp_path, "--point", 1, 2, "--box", 1, 2, 3, 4, *options)
    assert (code, "give --box or --point, not both" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["track", "absent.mp4", "--box", "1", "2", "3", "4"], "absent.mp4"),
        (["track", __file__, "--box", "1", "2", "3", "4"], "not a video"),
        (["track", "synthetic", "--output", "."], "is a folder"),
        (["track", "synthetic", "--output", "a.avi"], "written as .mp4"),
        (["track", "synthetic", "--report", "a.pdf"], "written as .html"),
        (["track", "", "--box", "1", "2", "3", "4"], "source is empty"),
        (["track", "97", "--box", "1", "2", "3", "4"], "camera /dev/video97"),
        (["track", "synthetic", "--box", "1", "2", "0", "4"], "no area"),
        (["track", "synthetic", "--box", "1", "2", "-5", "4"], "no area"),
        (["track", "synthetic", "--box", "1", "nan", "3", "4"], "not finite"),
        (["track", "synthetic", "--box", "inf", "2", "3", "4"], "not finite"),
        (["track", "synthetic", "--box", "700", "2", "3", "4"], "outside the image of 640 x 360"),
        (["track", "synthetic", "--weights", "absent"], "no weights 'absent'"),
        (["track", "synthetic", "--device", "tpu"], "auto, cpu, cuda"),
        (["track", "synthetic", "--max-frames", "0"], "max_frames"),
        (["eval", "folder", "--output", "x"], "needs --root"),
        (["eval", "lasot", "--root", ".", "--output", "x"], "testing_set.txt"),
        (["eval", "otb", "--output", "x"], "got10k, vasttrack, "),  # no coco
        (["eval", "otb", "--check"], "folder, synthetic; got 'otb'"),
        (["eval", "folder", "--root", "absent", "--output", "x"], "no folder at absent"),
        (["train", "absent.yaml"], "error: absent.yaml cannot be read: No such file or directory"),
        (["train", "."], "error: . cannot be read: Is a directory"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    spmtrack, tmp_path, monkeypatch, tiny_checkpoint, arguments, match
):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "track" and "--weights" not in arguments:
        arguments = [*arguments, "--weights", tiny_checkpoint]
    code, _, err = spmtrack(*arguments)
    assert code == 2
    line = err.strip().splitlines()[-1]
    assert line.startswith("spmtrack: error: ")
    assert match in line
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*.mp4"))


def test_a_failed_run_leaves_no_output(spmtrack, tmp_path, tiny_checkpoint):
    code, _, _ = spmtrack(
        "track",
        "synthetic",
        "--box",
        "900",
        "0",
        "5",
        "5",
        "--weights",
        tiny_checkpoint,
        "--output",
        tmp_path / "a.mp4",
        "--boxes",
        tmp_path / "a.txt",
    )
    assert code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_source_without_a_target_asks_for_one(spmtrack, tmp_path, tiny_checkpoint):
    write_image(tmp_path / "1.png", np.zeros((60, 80, 3), np.uint8))
    code, _, err = spmtrack("track", tmp_path, "--weights", tiny_checkpoint)
    assert (code, "--box" in err) == (2, True)


def test_eval_scores_the_built_in_scene(spmtrack, tmp_path, tiny_checkpoint, monkeypatch):
    few_frames = open_frames("synthetic", 5)
    monkeypatch.setattr("spmtrack_core.cli.evaluate.scene", lambda: few_frames)
    code, out, _ = spmtrack(
        "eval", "synthetic", "--weights", tiny_checkpoint, "--output", tmp_path
    )
    assert code == 0, out
    report = json.loads((tmp_path / "results.json").read_text())
    assert 0 <= report["mean"]["mean_iou"] <= 1
    assert report["tracker"].startswith("tiny ")


def test_eval_scores_a_folder_of_sequences(spmtrack, tmp_path, tiny_checkpoint):
    for name in ("a", "b [hd]"):
        for index in range(3):
            write_image(tmp_path / "data" / name / f"{index}.png", np.full((60, 80, 3), 90, "u1"))
        (tmp_path / "data" / name / "groundtruth.txt").write_text("9,9,20,20\n" * 3)
    code, out, err = spmtrack(
        "eval",
        "folder",
        "--root",
        tmp_path / "data",
        "--weights",
        tiny_checkpoint,
        "--output",
        tmp_path / "out",
    )
    assert code == 0, err
    assert "mean IoU" in out and "│ b [hd] " in out and ": b [hd] " in err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "boxes",
        "time",
        "confidence",
        "state",
        "done",
        "worst",
        "frames.npz",
        "results.json",
        "results.csv",
        "table.md",
        "table.tex",
        "success.png",
        "precision.png",
        "normalized.png",
    }
    for kind in ("boxes", "time", "confidence", "state", "worst"):
        assert len(list((tmp_path / "out" / kind).iterdir())) == 2
