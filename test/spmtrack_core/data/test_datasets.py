"""Datasets in tiny copies of their layouts: what is read, what is left out, what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import (
    MAKE,
    images,
    make_coco,
    make_folder,
    make_got10k,
    make_mot,
    text,
    video,
)

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data import catalog
from spmtrack_core.data.catalog import READERS, open_sequences, open_tracks
from spmtrack_core.data.recording import write_image

nan = [np.nan] * 4


@pytest.fixture
def opened(tmp_path):
    """Opens a dataset under tmp_path, with an index beside it."""

    def opened(name, **settings):
        config = DatasetConfig(name, str(tmp_path / "data"), **settings)
        return open_tracks(config, tmp_path / "cache")

    return opened


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


def unlink(path):
    return lambda root: (root / path).unlink()


def write(path, *lines):
    return lambda root: text(root / path, *lines)


def moved(path, to):
    return lambda root: (root / path).rename(root / to)


def swap(path):
    def swap(root):
        (root / path).unlink()  # the folder's time tells; a file written over would not be seen
        (root / path).write_bytes(b"no image")

    return swap


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


@pytest.mark.parametrize("name", MAKE)
def test_the_index_is_made_once(tmp_path, opened, name, monkeypatch):
    MAKE[name](tmp_path / "data")
    only_test = name in ("lasot_ext", "tnl2k", "nfs", "uav123", "uav20l", "otb2015")
    split = "test" if only_test else "train"
    first = opened(name, split=split)
    monkeypatch.setattr(catalog, "_read_clips", lambda *_: pytest.fail("read again"))
    again = opened(name, split=split)
    assert again.skipped == first.skipped
    np.testing.assert_array_equal(again.boxes, first.boxes)
    np.testing.assert_array_equal(again.read(0, 0), first.read(0, 0))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half an archive"])
def test_a_broken_index_is_made_again(tmp_path, opened, content):
    make_folder(tmp_path / "data")
    opened("folder")
    (index,) = (tmp_path / "cache").glob("*.npz")
    index.write_bytes(content)
    assert len(opened("folder")) == 3
    assert len(opened("folder")) == 3


def test_a_change_of_boxes_is_seen(tmp_path, opened):
    make_folder(tmp_path / "data")
    opened("folder")
    text(tmp_path / "data" / "a" / "groundtruth.txt", "9,9,9,9", "1,2,3,4")
    assert opened("folder").boxes_xywh(0)[0, 0] == 9
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1


def image(path):
    return lambda root: images((root / path).parent, [Path(path).name])


def rewritten(path):
    def rewritten(root):
        video(root / "other.mp4", 3)
        (root / path).write_bytes((root / "other.mp4").read_bytes())
        (root / "other.mp4").unlink()

    return rewritten


@pytest.mark.parametrize(
    ("name", "before", "change"),
    [
        ("uav123", None, image("data_seq/UAV123/car1/000006.jpg")),
        ("uav123", None, image("data_seq/UAV123/car1_s/000003.jpg")),
        # its second cut begins elsewhere
        ("uav123", None, write("anno/UAV123/car1_1.txt", "2,3,5,6", "2,3,5,6")),
        ("nfs", None, image("bee/30/bee/00003.jpg")),
        ("nfs", None, image("pingpong_2/30/pingpong_2/00036.jpg")),
        ("tnl2k", None, write("absent/monitor.txt", 1, 0)),
        ("tnl2k", moved("monitor/imgs", "monitor/img"), image("monitor/img/3.png")),
        ("vasttrack", None, write("T-Shirt/T-Shirt-22/groundtruth.txt", "2,3,5,6")),
        (
            "vasttrack",
            moved("T-Shirt/T-Shirt-22/imgs", "T-Shirt/T-Shirt-22/img"),
            image("T-Shirt/T-Shirt-22/img/00003.jpg"),
        ),
        ("folder", None, rewritten("c/any.mp4")),
    ],
)
def test_a_change_of_what_is_read_makes_the_index_again(
    tmp_path, opened, monkeypatch, name, before, change
):
    MAKE[name](tmp_path / "data")
    if before:
        before(tmp_path / "data")
    split = "train" if name in ("folder", "vasttrack") else "test"
    opened(name, split=split)
    change(tmp_path / "data")
    read, times = catalog._read_clips, []
    monkeypatch.setattr(catalog, "_read_clips", lambda *args: times.append(1) or read(*args))
    opened(name, split=split)
    assert times == [1]


def test_the_index_lies_where_caches_do(tmp_path, monkeypatch):
    make_folder(tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    open_tracks(DatasetConfig("folder", str(tmp_path / "data")))
    assert len(list((tmp_path / "xdg" / "spmtrack").glob("folder-*.npz"))) == 1
    text(tmp_path / "file", "")
    with pytest.raises(ValueError, match="XDG_CACHE_HOME"):
        open_tracks(DatasetConfig("folder", str(tmp_path / "data")), tmp_path / "file" / "cache")


def test_a_folder_may_be_one_clip(tmp_path):
    make_folder(tmp_path / "data")
    tracks = open_tracks(DatasetConfig("folder", str(tmp_path / "data" / "a")), tmp_path / "cache")
    assert [tracks.track_name(0), len(tracks)] == ["a", 1]
    assert len(list(tracks.sequence(0))) == 2


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
