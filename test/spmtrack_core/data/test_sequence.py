"""Sequences on disk: layouts that are read, and faults that are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from spmtrack_core.data.recording import write_boxes, write_image
from spmtrack_core.data.sequence import read_boxes, read_folder


def make(folder, frames=3, lines=None):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(frames):
        write_image(folder / f"{index + 1:08d}.jpg", np.full((20, 30, 3), 80, np.uint8))
    lines = lines or ["1,2,3,4", "nan,nan,nan,nan", "2,2,3,4"][:frames]
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_every_sub_folder_with_boxes_is_a_sequence(tmp_path):
    make(tmp_path / "b")
    make(tmp_path / "a")
    (tmp_path / "notes").mkdir()
    sequences = read_folder(tmp_path)
    assert [sequence.name for sequence in sequences] == ["a", "b"]
    assert [len(list(sequence)) for sequence in sequences] == [3, 3]
    assert np.isnan(sequences[0].boxes_xywh[1]).all()
    assert [sequence.name for sequence in read_folder(tmp_path / "a")] == ["a"]


@pytest.mark.parametrize(
    "line", ["1,2,3,4", "1\t2\t3\t4", "1 2 3 4", " 1, 2,  3,4 ", "1.0,2,3,4e0"]
)
def test_boxes_in_any_usual_delimiter_are_read(tmp_path, line):
    (tmp_path / "boxes.txt").write_text(line + "\n\n")
    assert read_boxes(tmp_path / "boxes.txt").tolist() == [[1, 2, 3, 4]]


def test_written_boxes_are_read_again(tmp_path):
    boxes = np.array([[1.25, 2, 3, 4], [np.nan] * 4, [-1, 0.001, 7, 8]])
    write_boxes(tmp_path / "boxes.txt", boxes)
    np.testing.assert_array_equal(read_boxes(tmp_path / "boxes.txt"), boxes)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["1,2,3", "1,2,3,4", "1,2,3,4"], "line 1: expected x,y,w,h"),
        (["1,2,3,4", "one,2,3,4", "1,2,3,4"], "line 2"),
        (["1,2,3,4"], "3 images and 1 boxes"),
        (["nan,nan,nan,nan", "1,2,3,4", "1,2,3,4"], "does not show its target in frame 1"),
    ],
)
def test_a_broken_sequence_is_named(tmp_path, lines, match):
    make(tmp_path / "a", lines=lines)
    with pytest.raises(ValueError, match=match):
        read_folder(tmp_path)


def test_boxes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "boxes.txt").write_bytes(b"\xff\xfe\x00,1\n")
    with pytest.raises(ValueError, match=r"boxes\.txt, line 1"):
        read_boxes(tmp_path / "boxes.txt")


def test_real_sequences_are_read():
    default = Path(__file__).parents[4] / "shared" / "sequences"
    root = Path(os.environ.get("SPMTRACK_SEQUENCES", default))
    if not root.is_dir():
        pytest.skip("no folder of real sequences; SPMTRACK_SEQUENCES may name one")
    for sequence in read_folder(root):
        height, width = next(iter(sequence)).shape[:2]
        x, y, w, h = sequence.boxes_xywh[0]
        assert 0 <= x < x + w <= width, sequence.name
        assert 0 <= y < y + h <= height, sequence.name


def test_a_root_without_sequences_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_folder(tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no sequence"):
        read_folder(tmp_path)
