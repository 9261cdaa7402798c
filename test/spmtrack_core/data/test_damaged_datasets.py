"""Datasets that are damaged, or are none: what is left out, what is refused, and why."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
from dataset_trees import MAKE, make_coco, make_folder, make_got10k, make_mot, text

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_sequences
from test.spmtrack_core.data.damage import swap, unlink, write


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([], r"annotation 99: bbox must be four numbers, got \[\]"),
        ([1, 2, 3], "annotation 99: bbox must be four numbers"),
        (None, "annotation 99: bbox must be four numbers"),
        ([1, 2, "wide", 4], "annotation 99: could not convert"),
        ([1, 2, float("nan"), 4], "annotation 99: bbox must be four numbers"),
    ],
)
def test_a_broken_annotation_of_coco_is_left_out_by_its_id(tmp_path, opened, box, reason):
    make_coco(tmp_path / "data")
    whole = len(opened("coco"))
    path = tmp_path / "data" / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"id": 99, "image_id": 9, "bbox": box})
    path.write_text("\ufeff" + json.dumps(content))  # and with a byte order mark
    tracks = opened("coco")
    assert len(tracks) == whole
    assert any(re.match(reason, line) for line in tracks.skipped), tracks.skipped


@pytest.mark.parametrize(
    ("name", "damage", "left_out"),
    [
        ("lasot", unlink("cat/cat-1/img/00000003.jpg"), "cat-1: .* 2 images for 3 boxes"),
        ("lasot", unlink("dog-12/out_of_view.txt"), "dog-12: .*out_of_view.txt"),
        ("lasot", write("cat/cat-1/full_occlusion.txt", "0,1"), "cat-1: .* 2 numbers; expected 3"),
        ("lasot", write("cat/cat-1/full_occlusion.txt", "0,1,x"), "cat-1: .* whole numbers"),
        ("lasot", write("cat/cat-1/groundtruth.txt", *["1,2,0,0"] * 3), "cat-1: no frame shows"),
        ("lasot", write("cat/cat-1/groundtruth.txt", "1,2,3,4", "1,2"), "cat-1: .* line 2"),
        ("lasot", swap("cat/cat-1/img/00000001.jpg"), "cat-1: .*00000001.jpg is not an image"),
        ("lasot", write("training_set.txt", "cat-1", "cat-9"), "cat-9: .*groundtruth.txt"),
        ("lasot", write("training_set.txt", "cat-1", "cat-1", "cat-9"), "cat-9: "),  # named twice
        (
            "got10k",
            lambda root: os.rename(
                root / "train/GOT-10k_Train_000004/00000003.jpg",
                root / "train/GOT-10k_Train_000004/00000009.jpg",
            ),
            "000004: .* numbers are left out",
        ),
        ("trackingnet", write("TRAIN_2/anno/c_0.txt", "1,2,3,4"), "c_0: .* 12 images for 1 boxes"),
        ("vasttrack", unlink("T-Shirt/T-Shirt-22/groundtruth.txt"), "T-Shirt-22: .*Groundtruth"),
        (
            "mot",
            write("train/MOT17-02-FRCNN/seqinfo.ini", "seqLength=12"),
            "MOT17-02-FRCNN: .*seqinfo.ini: File contains no section headers",
        ),
        (
            "mot",
            write("train/MOT17-02-FRCNN/seqinfo.ini", "[Sequence]", "seqLength=many"),
            "MOT17-02-FRCNN: .*seqinfo.ini: invalid literal",
        ),
        ("mot", unlink("train/MOT17-02-FRCNN/seqinfo.ini"), "MOT17-02-FRCNN: .*seqinfo.ini"),
        ("folder", write("b.txt", "1,2,3,4"), "b.mp4: .* 3 frames for 1 boxes"),
        ("folder", write("b.mp4", "no video"), "b.mp4: .* not a video"),
        ("folder", unlink("b.txt"), "b.mp4: no boxes at .*b.txt"),
        ("folder", unlink("a/groundtruth.txt"), "a: no boxes at .*groundtruth.txt"),
        ("folder", write("c/second.mp4", ""), "c: .* 2 videos"),
    ],
)
def test_a_broken_sequence_is_named_and_left_out(tmp_path, opened, name, damage, left_out):
    MAKE[name](tmp_path / "data")
    if name == "mot":  # one more, for an empty dataset is refused
        folder = tmp_path / "data" / "train"
        shutil.copytree(folder / "MOT17-02-FRCNN", folder / "MOT17-04-FRCNN")
    whole = len(opened(name))
    damage(tmp_path / "data")
    tracks = opened(name)  # and the index is not the one of before
    assert len(tracks) == (whole // 2 if name == "mot" else whole - 1)
    (reason,) = tracks.skipped
    assert "\n" not in reason
    assert re.search(left_out, reason), reason


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["1,1,2,3,4"], "8 columns"),
        (["1,1,2,3,4,5,1,-1,-1,-1"], "no visible pedestrian"),  # MOT15
        (["13,1,2,3,4,5,1,1,1"], "frame beyond 1 to 12"),
        (["1,one,2,3,4,5,1,1,1"], r"gt\.txt"),
    ],
)
def test_mot_truth_that_cannot_be_used_is_named(tmp_path, opened, lines, match):
    make_mot(tmp_path / "data")
    text(tmp_path / "data/train/MOT17-02-FRCNN/gt/gt.txt", *lines)
    with pytest.raises(ValueError, match=match):
        opened("mot")


def test_mot_images_must_be_those_of_seqinfo(tmp_path, opened):
    make_mot(tmp_path / "data")
    images_folder = tmp_path / "data/train/MOT17-02-FRCNN/img1"
    (images_folder / "000012.jpg").rename(images_folder / "000020.jpg")
    with pytest.raises(ValueError, match="numbers 1 to 12"):
        opened("mot")


@pytest.mark.parametrize(
    ("name", "split", "match"),
    [
        ("lasot", "train", "training_set.txt"),
        ("lasot", "val", "split of lasot"),
        ("got10k", "train", "expected train/GOT-10k_Train_000001/groundtruth.txt"),
        ("got10k", "none", "split of got10k must be one of train, val, test"),
        ("trackingnet", "train", "expected TRAIN_0/anno/<video>.txt"),
        ("trackingnet", "train:1-2", "TRAIN_1, TRAIN_2"),
        ("trackingnet", "test", "expected TEST/anno/<video>.txt"),
        ("trackingnet", "val", "split of trackingnet must be test, train"),
        ("lasot_ext", "test", "is no LaSOT_ext: expected <class>/<class>-<n>"),
        ("tnl2k", "test", "is no TNL2K: expected <sequence>/groundtruth.txt"),
        ("nfs", "test", "is no NfS: expected <name>/30/<name>.txt"),
        ("uav123", "test", "is no UAV123: expected anno/UAV123/<sequence>.txt"),
        ("uav20l", "test", "is no UAV20L: expected anno/UAV20L/<sequence>.txt"),
        ("otb2015", "test", "is no OTB2015: expected <video>/groundtruth_rect.txt"),
        ("uav123", "train", "split of uav123 must be test"),
        ("coco", "train", r"annotations/instances_train2017\.json"),
        ("coco", "test", "split of coco"),
        ("vasttrack", "train", "<class>/<class>-<n>/Groundtruth.txt"),
        ("vasttrack", "val", "split of vasttrack must be train or test, got 'val'"),
        ("mot", "train", "<sequence>/gt/gt.txt"),
        ("folder", "train", "expected <clip>/"),
    ],
)
def test_a_root_of_something_else_is_refused(tmp_path, opened, name, split, match):
    text(tmp_path / "data" / "readme.md", "nothing")
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        opened(name, split=split)


def test_an_unknown_dataset_is_refused(opened):
    with pytest.raises(ValueError, match=r"dataset must be one of lasot, .*folder; got 'otb'"):
        opened("otb")


def test_a_root_that_is_not_there_is_named(opened):
    with pytest.raises(FileNotFoundError, match="root of dataset lasot"):
        opened("lasot")


def test_a_dataset_that_is_all_broken_is_refused(tmp_path, opened):
    make_got10k(tmp_path / "data")
    for path in (tmp_path / "data").rglob("cover.label"):
        path.unlink()
    with pytest.raises(ValueError, match=r"2 were left out, first GOT-10k_Train_000004: .*cover"):
        opened("got10k")


@pytest.mark.parametrize("content", ["{}", '{"images": [{}]}', "[]", "{", '{"images": 3}'])
def test_a_broken_annotation_file_is_named(tmp_path, opened, content):
    make_coco(tmp_path / "data")
    text(tmp_path / "data/annotations/instances_train2017.json", content)
    with pytest.raises(ValueError, match="instances_train2017"):
        opened("coco")


def test_lasot_without_its_sequences_is_refused(tmp_path, opened):
    text(tmp_path / "data" / "training_set.txt", "cat-1")
    with pytest.raises(ValueError, match="is no LaSOT: expected <class>/<class>-<n>"):
        opened("lasot")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"root": ""}, "root of dataset lasot"),
        ({"split": ""}, "split of dataset lasot"),
        ({"weight": 0.0}, "weight must be above 0; got 0.0"),
        ({"weight": float("nan")}, "weight must be finite and above 0; got nan"),
    ],
)
def test_a_dataset_that_cannot_be_meant_is_refused(values, match):
    with pytest.raises(ValueError, match=match):
        DatasetConfig(**{"name": "lasot", "root": "/data", **values})


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("0.1,0.2,0.3,0.4", "shares of the frame instead of pixels"),
        ("500,500,20,20", "of a larger frame"),
        ("3,3,1.5,9", "thinner than two pixels"),
    ],
)
def test_boxes_that_cannot_be_in_pixels_are_named(tmp_path, opened, box, reason):
    make_folder(tmp_path / "data")
    text(tmp_path / "data" / "a" / "groundtruth.txt", box, box)
    tracks = opened("folder")
    assert len(tracks) == 2, reason
    assert any(
        re.match(r"a: its boxes lie outside .*must be in pixels", line) for line in tracks.skipped
    ), tracks.skipped


@pytest.mark.parametrize(
    ("damage", "left_out"),
    [
        (write("b.txt", "1,2,3,4"), r"b\.mp4: .* has 3 frames for 1 boxes"),
        (write("b.mp4", "no video"), r"b\.mp4: .* not a video"),
        (write("a/groundtruth.txt", "nan,nan,nan,nan", "1,2,5,6"), "a: its first frame does not"),
        (write("a/groundtruth.txt", "1,2,0,0", "1,2,5,6"), "a: its first frame does not show"),
        (write("a/groundtruth.txt", "1,2,5,6"), "a: .* 2 images for 1 boxes"),  # GOT-10k test
        (unlink("a/groundtruth.txt"), "a: no boxes at"),
    ],
)
def test_a_broken_sequence_is_left_out_of_an_evaluation_and_named(tmp_path, damage, left_out):
    make_folder(tmp_path / "data")
    damage(tmp_path / "data")
    sequences, (reason,) = open_sequences(DatasetConfig("folder", str(tmp_path / "data")))
    assert len(sequences) == 2
    assert re.match(left_out, reason), reason


@pytest.mark.parametrize(
    ("name", "match"),
    [("coco", "coco in .* holds still images"), ("otb", "dataset must be one of")],
)
def test_what_cannot_be_evaluated_on_is_refused(tmp_path, name, match):
    MAKE.get(name, make_folder)(tmp_path / "data")
    with pytest.raises(ValueError, match=match):
        open_sequences(DatasetConfig(name, str(tmp_path / "data")))
