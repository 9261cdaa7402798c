"""Datasets in tiny copies of their layouts: what is read, for training and evaluation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import MAKE, images, make_coco, make_folder, make_got10k, make_mot, text

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import READERS, open_sequences, open_tracks
from spmtrack_core.data.recording import write_image

nan = [np.nan] * 4


def test_every_reader_has_its_layout_here():
    assert set(MAKE) == set(READERS)


@pytest.mark.parametrize(
    ("name", "split", "expected"),
    [
        # boxes that count pixels from 1, hidden and out-of-view frames, both folder layouts
        (
            "lasot",
            "train",
            {"cat-1": [[1, 2, 5, 6], nan, [3, 2, 5, 6]], "dog-12": [[1, 2, 5, 6], nan, nan]},
        ),
        ("lasot", "test", {"cat-2": [[1, 2, 5, 6], nan, [3, 2, 5, 6]]}),
        # absent, or covered wholly
        (
            "got10k",
            "train",
            {f"GOT-10k_Train_00000{n}": [[1.5, 2.5, 5, 6], nan, nan] for n in (4, 5)},
        ),
        ("trackingnet", "train", {n: [[1.5, 2.5, 5, 6]] * 12 for n in ("a_0", "-b_1", "c_0")}),
        ("trackingnet", "train:2", {n: [[1.5, 2.5, 5, 6]] * 12 for n in ("-b_1", "c_0")}),
        (
            "coco",
            "train",
            {
                "000000000009/1": [[1.25, 2, 12, 10]],
                "000000000009/4": [[0, 0, 20, 15]],
                "000000000025/5": [[3, 4, 11, 12]],
            },
        ),
        ("vasttrack", "train", {n: [[1, 2, 5, 6], nan] for n in ("Air Hockey-1", "T-Shirt-22")}),
        # from the first to the last row of an id
        (
            "mot",
            "train",
            {
                "MOT17-02-FRCNN/1": [[1, 2, 5, 6], nan, [2, 2, 5, 6], nan, [4, 2, 5, 6]],
                "MOT17-02-FRCNN/5": [[1, 2, 5, 6]] * 2,
            },
        ),
        (
            "folder",
            "train",
            {"a": [[1, 2, 3, 4], nan], "b.mp4": [[1, 2, 3, 4]] * 3, "c": [[5, 6, 7, 8]] * 2},
        ),
    ],
)
def test_a_dataset_is_read_in_its_layout(tmp_path, opened, name, split, expected):
    MAKE[name](tmp_path / "data")
    tracks = opened(name, split=split)
    assert tracks.name == name
    found = {tracks.track_name(i): tracks.boxes_xywh(i) for i in range(len(tracks))}
    assert list(found) == list(expected)
    for track, boxes in expected.items():
        np.testing.assert_array_equal(found[track], boxes, err_msg=track)
    for i in range(len(tracks)):
        for frame in range(len(tracks.boxes_xywh(i))):
            assert tracks.read(i, frame).shape in ((16, 24, 3), (48, 64, 3))


def test_a_track_begins_where_its_target_does(tmp_path, opened):
    make_mot(tmp_path / "data", digits=8)  # as DanceTrack has them
    for number in (2, 11):
        path = tmp_path / "data/train/MOT17-02-FRCNN/img1" / f"{number:08d}.jpg"
        write_image(path, np.full((16, 24, 3), 10 * number, np.uint8))
    tracks = opened("mot")
    assert [round(float(tracks.read(i, 0).mean()) / 10) for i in (0, 1)] == [2, 11]


def test_coco_images_may_lie_deeper(tmp_path, opened):
    make_coco(tmp_path / "data", "images/train2017")
    tracks = opened("coco")
    assert len(tracks) == 3
    assert tracks.skipped == [
        f"000000000030: no image at {tmp_path}/data/images/train2017/000000000030.jpg"
    ]


@pytest.mark.parametrize("number", [None, "text", 9.5, True])
def test_an_image_of_coco_may_have_any_id(tmp_path, opened, number):
    make_coco(tmp_path / "data")
    whole = len(opened("coco"))
    path = tmp_path / "data" / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"].append({"id": number, "file_name": "000000000009.jpg"})
    content["annotations"].append({"id": 99, "image_id": number, "bbox": [0, 0, 20, 15]})
    path.write_text(json.dumps(content))
    assert len(opened("coco")) == whole + 1


def test_the_information_of_a_mot_sequence_may_have_a_mark(tmp_path, opened):
    make_mot(tmp_path / "data")
    for name in ("seqinfo.ini", "gt/gt.txt"):
        path = tmp_path / "data/train/MOT17-02-FRCNN" / name
        path.write_bytes(("\ufeff" + path.read_text().replace("\n", "\r\n")).encode())
    assert len(opened("mot")) == 2


@pytest.mark.parametrize(
    ("name", "lines", "left"),
    [
        ("got10k", ["# VOT", "GOT-10k_Train_000004 ", ""], ["GOT-10k_Train_000005"]),
        ("lasot", ["dog-12", "not-there-1"], ["cat-1"]),
        ("coco", ["000000000009"], ["000000000025/5"]),
        ("mot", ["MOT17-04-FRCNN"], None),
        ("got10k", ["3"], None),  # the published number lists say what to train on
    ],
)
def test_excluded_sequences_are_left_out(tmp_path, opened, name, lines, left):
    MAKE[name](tmp_path / "data")
    opened(name)
    text(tmp_path / "exclude.txt", *lines)
    exclude = str(tmp_path / "exclude.txt")
    if left is None:
        with pytest.raises(ValueError, match="names none of the sequences"):
            opened(name, exclude=exclude)
    else:
        tracks = opened(name, exclude=exclude)
        assert [tracks.track_name(i) for i in range(len(tracks))] == left


def test_only_the_named_sequences_are_used_in_place_of_those_excluded(tmp_path):
    """One list splits a dataset in two; neither part is taken for the other's index."""
    for name in ("a", "b", "c"):
        images(tmp_path / "clips" / name, [f"{index}.jpg" for index in range(3)])
        text(tmp_path / "clips" / name / "groundtruth.txt", *["4,4,10,10"] * 3)
    text(tmp_path / "list.txt", "b  # held out", "", "c")
    root, names = str(tmp_path / "clips"), str(tmp_path / "list.txt")

    def opened_names(**settings):
        tracks = open_tracks(DatasetConfig("folder", root, **settings), tmp_path / "cache")
        return [tracks.track_name(index) for index in range(len(tracks))]

    assert opened_names(only=names) == ["b", "c"]
    assert opened_names(exclude=names) == ["a"]
    assert opened_names() == ["a", "b", "c"]
    text(tmp_path / "list.txt", "nothing")
    with pytest.raises(ValueError, match="names none of the sequences"):
        opened_names(only=names)


def test_an_exclude_file_that_is_not_there_is_named(tmp_path, opened):
    make_got10k(tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="exclude of dataset got10k"):
        opened("got10k", exclude=str(tmp_path / "absent.txt"))


def test_a_folder_may_be_one_clip(tmp_path):
    make_folder(tmp_path / "data")
    tracks = open_tracks(DatasetConfig("folder", str(tmp_path / "data" / "a")), tmp_path / "cache")
    assert [tracks.track_name(0), len(tracks)] == ["a", 1]
    assert len(list(tracks.sequence(0))) == 2


def test_real_clips_are_read(tmp_path):
    default = Path(__file__).parents[4] / "shared" / "train_clips"
    root = Path(os.environ.get("SPMTRACK_TRAIN_CLIPS", default))
    if not root.is_dir():
        pytest.skip("no folder of real clips; SPMTRACK_TRAIN_CLIPS may name one")
    tracks = open_tracks(DatasetConfig("folder", str(root)), tmp_path)
    for i in range(len(tracks)):
        height, width = tracks.read(i, 0).shape[:2]
        boxes = tracks.boxes_xywh(i)
        centres = (boxes[:, :2] + boxes[:, 2:] / 2)[np.isfinite(boxes[:, 0])]
        assert (centres > 0).all(), tracks.track_name(i)
        assert (centres < (width, height)).all(), tracks.track_name(i)


def test_copies_of_the_boxes_are_no_videos(tmp_path, opened):
    make_folder(tmp_path / "data")
    for name in ("groundtruth.txt~", "groundtruth.csv", "groundtruth.json"):
        text(tmp_path / "data" / "a" / name, "1,2,3,4")
    assert "a" in {opened("folder").track_name(i) for i in range(3)}


def test_every_image_is_drawn_as_often_whatever_is_in_it(tmp_path, opened):
    make_coco(tmp_path / "data")
    tracks = opened("coco")
    names = [tracks.track_name(i) for i in range(len(tracks))]
    random = np.random.default_rng(0)
    drawn = np.bincount([tracks.draw(random) for _ in range(3000)], minlength=len(names))
    # two objects in one image, one in the other
    assert np.allclose(np.sort(drawn) / 3000, [0.25, 0.25, 0.5], atol=0.04), names


@pytest.mark.parametrize(
    ("name", "split"), [("folder", "test"), ("lasot", "test"), ("got10k", "train"), ("mot", "")]
)
def test_every_video_dataset_can_be_evaluated_on(tmp_path, name, split, opened):
    """Frames and boxes are those that training reads, and no index is kept."""
    MAKE[name](tmp_path / "data")
    sequences, _ = open_sequences(DatasetConfig(name, str(tmp_path / "data"), split or "train"))
    assert not (tmp_path / "cache").exists()
    tracks = opened(name, split=split or "train")
    assert [each.name for each in sequences] == [tracks.track_name(i) for i in range(len(tracks))]
    for i, sequence in enumerate(sequences):
        np.testing.assert_allclose(sequence.boxes_xywh, tracks.boxes_xywh(i), atol=1e-5)
        for frame, image in enumerate(sequence):
            np.testing.assert_array_equal(image, tracks.read(i, frame))
        assert frame == len(sequence.boxes_xywh) - 1


def test_boxes_to_evaluate_with_are_exact(tmp_path):
    make_folder(tmp_path / "data")
    text(tmp_path / "data" / "a" / "groundtruth.txt", "1.39,2.7,5.1,6.3", "2,2,5,6")
    (first, *_), _ = open_sequences(DatasetConfig("folder", str(tmp_path / "data"), "test"))
    assert first.boxes_xywh[0].tolist() == [1.39, 2.7, 5.1, 6.3]  # tracks round to float32


def test_a_sequence_is_left_out_of_an_evaluation_by_name(tmp_path):
    make_folder(tmp_path / "data")
    text(tmp_path / "data" / "b.txt", "1,2,3,4")
    text(tmp_path / "exclude.txt", "b.mp4  # has one box")
    images(tmp_path / "data" / "run", ["curves.png"])  # of a training run
    (tmp_path / "data" / "run" / "weights.safetensors").touch()
    config = DatasetConfig("folder", str(tmp_path / "data"), "test", str(tmp_path / "exclude.txt"))
    sequences, left_out = open_sequences(config)
    assert ([sequence.name for sequence in sequences], left_out) == (["a", "c"], [])


def test_real_sequences_are_read():
    default = Path(__file__).parents[4] / "shared" / "sequences"
    root = Path(os.environ.get("SPMTRACK_SEQUENCES", default))
    if not root.is_dir():
        pytest.skip("no folder of real sequences; SPMTRACK_SEQUENCES may name one")
    sequences, left_out = open_sequences(DatasetConfig("folder", str(root)))
    assert left_out == []
    for sequence in sequences:
        height, width = next(iter(sequence)).shape[:2]
        x, y, w, h = sequence.boxes_xywh[0]
        assert 0 <= x < x + w <= width, sequence.name
        assert 0 <= y < y + h <= height, sequence.name
