"""Boxes in text files, and folders of images as sequences: what is read, and faults by name."""

from __future__ import annotations

import numpy as np
import pytest

from spmtrack_core.data.recording import write_boxes, write_image
from spmtrack_core.data.sequence import image_folder, read_boxes


def make(folder, frames=3, lines=("1,2,3,4", "nan,nan,nan,nan", "2,2,3,4")):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(frames):
        write_image(folder / f"{index + 9}.jpg", np.full((20, 30, 3), 8 * index, np.uint8))
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_of_images_is_a_sequence_in_natural_order(tmp_path):
    sequence = image_folder(make(tmp_path / "a"))
    assert (sequence.name, sequence.length) == ("a", 3)
    assert [frame[0, 0, 0] for frame in sequence] == [0, 8, 16]  # 9.jpg, 10.jpg, 11.jpg
    np.testing.assert_array_equal(sequence.boxes_xywh[0], [1, 2, 3, 4])
    assert np.isnan(sequence.boxes_xywh[1]).all()


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
        (["1,2,3,4", "1,2,3,4"], "3 images and 2 boxes"),
        ([], "holds no boxes"),
    ],
)
def test_broken_boxes_are_named(tmp_path, lines, match):
    with pytest.raises(ValueError, match=match):
        image_folder(make(tmp_path / "a", lines=lines))


def test_boxes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "boxes.txt").write_bytes(b"\xff\xfe\x00,1\n")
    with pytest.raises(ValueError, match=r"boxes\.txt, line 1"):
        read_boxes(tmp_path / "boxes.txt")


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        image_folder(tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no images"):
        image_folder(tmp_path)
