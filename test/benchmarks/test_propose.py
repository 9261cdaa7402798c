"""The benchmark of proposed boxes: baselines, and a whole run on one sequence."""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.propose import grabcut, main, square
from spmtrack_core.data.recording import write_image
from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy

OBJECT = np.array([60.0, 40.0, 36.0, 24.0])


def picture():
    frame = np.random.default_rng(0).integers(60, 110, (120, 160, 3), np.uint8)
    frame[40:64, 60:96] = (220, 60, 30)
    return frame


def test_baselines():
    middle = OBJECT[:2] + OBJECT[2:] / 2
    assert square(middle, (120, 160)).tolist() == [66, 40, 24, 24]
    assert iou_xyxy(*xywh_to_xyxy([grabcut(picture(), middle), OBJECT])) > 0.9


def test_a_whole_run(tmp_path, monkeypatch, capsys, tiny_checkpoint):
    for name in ("cup_a", "cup_b", "toy"):
        write_image(tmp_path / name / "1.png", picture())
        write_image(tmp_path / name / "2.png", picture())
        (tmp_path / name / "groundtruth.txt").write_text("60,40,36,24\n" * 2)
    options = ["--weights", str(tiny_checkpoint), "--points", "1", "--baselines"]
    monkeypatch.setattr(sys, "argv", ["propose", str(tmp_path), *options])
    main()
    lines = capsys.readouterr().out.splitlines()
    for kind in ("proposed", "a square", "GrabCut"):
        (line,) = [line for line in lines if line.startswith(f"{kind}, middle")]
        assert line.endswith("of 2")  # one of the two parts of a video
