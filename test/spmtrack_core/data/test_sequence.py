"""Boxes in text files, and folders of images as sequences: what is read, and faults by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_trees import video

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_sequences
from spmtrack_core.data.clips import read_flags
from spmtrack_core.data.recording import write_boxes, write_image
from spmtrack_core.data.sequence import image_folder, read_boxes
from spmtrack_core.data.video import open_frames


def opened(root):
    sequences, left_out = open_sequences(DatasetConfig("folder", str(root)))
    assert left_out == []
    return sequences


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
    ("text", "why"),
    [
        ("1,2,3,4\n\n", "the format of benchmarks"),
        ("1\t2\t3\t4", "tabs, no end of line"),
        ("1 2 3 4", "blanks"),
        (" 1, 2,  3,4 \n", "commas and blanks"),
        ("1;2;3;4;", "semicolons, one at the end"),
        ("1,2,3,4,\n", "a comma at the end"),
        ("1.0,2,3,4e0", "an exponent"),
        ("1,2,3,4\r\n", "lines of Windows"),
        ("1,2,3,4\r", "lines of old Macs"),
        ("1,2, 4,2, 4,6, 1,6", "a polygon of VOT"),
        ("2.5,2 4,3.5 2.5,6 1,4", "a polygon that is turned"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])  # the last two: Notepad
def test_boxes_in_any_usual_text_are_read(tmp_path, text, why, encoding):
    (tmp_path / "boxes.txt").write_bytes(text.encode(encoding))
    assert read_boxes(tmp_path / "boxes.txt").tolist() == [[1, 2, 3, 4]], why


@pytest.mark.parametrize("absent", [",,,", ";;;", " , , ,", ",,,,", "\t\t\t", "nan,nan,nan,nan"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n \t\r\n"])
def test_an_absent_target_keeps_its_frame(tmp_path, absent, end):
    """pandas writes a row of NaN as separators alone; the boxes behind it must not move up."""
    (tmp_path / "boxes.txt").write_text(f"1,2,3,4\n{absent}\n5,6,7,8\n{absent}{end}")
    expected = [[1, 2, 3, 4], [np.nan] * 4, [5, 6, 7, 8], [np.nan] * 4]
    np.testing.assert_array_equal(read_boxes(tmp_path / "boxes.txt"), expected)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0,1,0", "LaSOT"),
        ("0\n1\n0\n", "GOT-10k"),
        ("0,1,0,\n", "a comma at the end"),
        ("0; 1; 0", "semicolons"),
        ("0.0\n1.0\n0.0\n", "numpy"),
        ("\ufeff0 1 0\r\n", "a byte order mark"),
        ("0,99999999999999999999,0", "more than 64 bits: not 0"),
    ],
)
def test_flags_in_any_usual_text_are_read(tmp_path, text, why):
    (tmp_path / "flags.txt").write_text(text)
    assert (read_flags(tmp_path / "flags.txt", 3) != 0).tolist() == [False, True, False], why


@pytest.mark.parametrize("text", ["", "0,,x", "0,0.5,1", "0,nan,1", "0,1e999,1"])
def test_flags_that_are_no_whole_numbers_are_named(tmp_path, text):
    (tmp_path / "flags.txt").write_text(text)
    with pytest.raises(ValueError, match=r"flags\.txt must hold whole numbers"):
        read_flags(tmp_path / "flags.txt")


def test_written_boxes_are_read_again(tmp_path):
    boxes = np.array([[1.25, 2, 3, 4], [np.nan] * 4, [-1, 0.001, 7, 8]])
    write_boxes(tmp_path / "boxes.txt", boxes)
    np.testing.assert_array_equal(read_boxes(tmp_path / "boxes.txt"), boxes)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["1,2,3", "1,2,3,4", "1,2,3,4"], "line 1: expected x,y,w,h"),
        (["1,2,3,4", "one,2,3,4", "1,2,3,4"], "line 2"),
        (["1,2,3,4", "", "1,2,3,4", "1,2,3,4"], "line 2: expected x,y,w,h .* got ''"),
        (["1,2,3,4", ",", "1,2,3,4", "1,2,3,4"], "line 2: expected x,y,w,h .* got ','"),
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


@pytest.mark.parametrize(
    ("root", "images", "boxes", "name", "benchmark"),
    [
        ("", "a", "a/groundtruth.txt", "a", "GOT-10k"),
        ("", "a/img", "a/groundtruth_rect.txt", "a", "OTB"),
        ("", "a/color", "a/groundtruth.txt", "a", "VOT"),
        ("sequences", "a/color", "a/groundtruth.txt", "a", "VOT, downloaded by its toolkit"),
        ("cat", "cat-1/img", "cat-1/groundtruth.txt", "cat-1", "LaSOT"),
        ("train/cat", "cat-1/imgs", "cat-1/Groundtruth.txt", "cat-1", "VastTrack"),
    ],
)
def test_layouts_of_benchmarks_are_read(tmp_path, root, images, boxes, name, benchmark):
    base = tmp_path / "data" / root
    make(base / images, lines=["1,2,3,4", "2,2,3,4", "3,2,3,4"])
    if images != name or boxes != f"{name}/groundtruth.txt":
        (base / images / "groundtruth.txt").rename(base / boxes)
    (sequence,) = opened(tmp_path / "data")
    assert (sequence.name, len(list(sequence))) == (name, 3), benchmark
    assert sequence.boxes_xywh[2].tolist() == [3, 2, 3, 4]
    alone = image_folder(base / Path(boxes).parent)
    assert (alone.length, len(alone.boxes_xywh)) == (3, 3)


def test_sequences_of_one_name_keep_apart(tmp_path):
    make(tmp_path / "train" / "0001")
    make(tmp_path / "val" / "0001")
    make(tmp_path / "val" / "0002")
    names = [sequence.name for sequence in opened(tmp_path)]
    assert names == ["train-0001", "val-0001", "0002"]


def test_names_that_would_be_the_same_are_refused(tmp_path):
    """Results are kept by name: one of the two would be taken for the other's."""
    for folder in ("a/b", "c/b", "a-b"):
        make(tmp_path / folder)
    with pytest.raises(ValueError, match=r"a/b and .*a-b are both named a-b; rename one"):
        opened(tmp_path)


@pytest.mark.parametrize("suffix", [".ts", ".m2ts", ".MTS", ".mkv", ".m2v", ".gif"])
def test_a_video_is_known_by_its_suffix(tmp_path, suffix):
    (tmp_path / "clip").mkdir()
    video(tmp_path / "clip" / "camera.ts", 12)
    (tmp_path / "clip" / "camera.ts").rename(tmp_path / "clip" / f"camera{suffix}")
    (tmp_path / "clip" / "groundtruth.txt").write_text("1,2,3,4\n" * 12)
    (tmp_path / "clip" / "._camera.ts").write_bytes(b"Mac OS X")
    (sequence,) = opened(tmp_path)
    assert len(list(sequence)) == 12


def test_other_files_with_a_text_beside_are_no_videos(tmp_path):
    make(tmp_path / "a")
    for name in ("a/notes.md", "a/notes.txt", "a/occlusion.csv", "a/occlusion.txt"):
        (tmp_path / name).write_text("0")
    for name in ("README.md", "README.txt"):
        (tmp_path / name).write_text("two files of one stem")
    assert [sequence.name for sequence in opened(tmp_path)] == ["a"]


def test_videos_with_boxes_are_sequences(tmp_path):
    video(tmp_path / "b.mp4", 3)
    (tmp_path / "b.txt").write_text("1,2,3,4\n" * 3)
    make(tmp_path / "a")
    sequences = opened(tmp_path)
    assert [sequence.name for sequence in sequences] == ["a", "b.mp4"]
    assert [len(list(sequence)) for sequence in sequences] == [3, 3]


def test_the_box_of_the_first_frame_alone_starts_a_target(tmp_path):
    folder = make(tmp_path / "GOT-10k_Test_000001", lines=["1,2,3,4"])
    sequence = image_folder(folder)
    assert (sequence.length, sequence.boxes_xywh.tolist()) == (3, [[1, 2, 3, 4]])
    with pytest.raises(ValueError, match="3 images for 1 boxes"):  # nothing to score
        opened(folder)


def test_boxes_that_are_not_wanted_are_not_read(tmp_path):
    make(tmp_path, lines=["a label"])
    with pytest.raises(ValueError, match="line 1"):
        open_frames(tmp_path)
    assert open_frames(tmp_path, with_boxes=False).boxes_xywh is None


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["cat/cat-1/full_occlusion.txt", "cat/cat-1/img/1.jpg"], "LaSOT"),
        (["train/GOT-10k_Train_000001/1.jpg"], "GOT-10k"),
        (["TRAIN_3/anno/a.txt", "TRAIN_3/frames/a/0.jpg"], "TrackingNet"),
        (["annotations/instances_val2017.json", "val2017/1.jpg"], "COCO"),
        (["train/MOT17-02/gt/gt.txt", "train/MOT17-02/img1/1.jpg"], "MOT"),
        (["anno/UAV123/bike1.txt", "data_seq/UAV123/bike1/1.jpg"], "UAV123"),
        (["Basketball/groundtruth_rect.txt", "Basketball/img/1.jpg"], "OTB"),
        (["sequences/ants1/color/1.jpg"], "VOT"),
    ],
)
def test_the_root_of_a_dataset_is_recognised(tmp_path, files, name):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(ValueError, match=f"holds no images .* this looks like {name}: expected"):
        image_folder(tmp_path)
