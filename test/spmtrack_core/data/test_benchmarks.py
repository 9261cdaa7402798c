"""Benchmarks to evaluate on, in tiny copies of their layouts: boxes, flags, quirks, order."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from dataset_trees import (
    MAKE,
    images,
    make_lasot_toolkit,
    make_otb2015,
    make_tnl2k_toolkit,
    make_uav123,
    text,
)

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import READERS, open_annotations, open_sequences, open_tracks
from spmtrack_core.data.recording import write_image
from spmtrack_core.evaluation.rescore import check_dataset

nan = [np.nan] * 4
ONE = [2.0, 3, 5, 6]


def opened(root, name, split="test"):
    sequences, faults = open_sequences(DatasetConfig(name, str(root), split))
    assert faults == []
    return {sequence.name: sequence for sequence in sequences}


@pytest.mark.parametrize(
    ("name", "split", "expected"),
    [
        ("lasot", "test", {"cat-2": [[1, 2, 5, 6], nan, [3, 2, 5, 6]]}),
        ("lasot_ext", "test", {"atv-1": [ONE, ONE, nan], "paddle-1": [ONE, nan]}),
        ("got10k", "val", {"GOT-10k_Val_000001": [[1.5, 2.5, 5, 6], nan, [1.5, 2.5, 5, 6]]}),
        ("got10k", "test", {"GOT-10k_Test_000001": [[1.5, 2.5, 5, 6]]}),
        ("trackingnet", "test", {"t_0": [[1, 2, 3, 4]]}),
        ("tnl2k", "test", {"monitor": [ONE, nan]}),
        (
            "nfs",
            "test",
            {"bee": [[3, 3, 5, 6], [11, 3, 5, 6]], "pingpong_2": [ONE] * 33},
        ),
        (
            "uav123",
            "test",
            {
                "car1_1": [ONE, [3, 3, 5, 6], nan],
                "car1_2": [[4, 3, 5, 6], [5, 3, 5, 6], [6, 3, 5, 6]],
                "car1_s": [ONE] * 2,
            },
        ),
        ("uav20l", "test", {"car1": [ONE] * 5}),
        (
            "otb2015",
            "test",
            {
                "David": [ONE, [3, 3, 5, 6]],
                "Human4_2": [ONE] * 2,
                "Jogging_1": [[1, 3, 5, 6]] * 2,
                "Jogging_2": [ONE] * 2,
                "Walking": [ONE] * 2,
            },
        ),
        ("vasttrack", "test", {n: [[1, 2, 5, 6], nan] for n in ("Air Hockey-1", "T-Shirt-22")}),
    ],
)
def test_a_benchmark_is_read_in_its_layout(tmp_path, name, split, expected):
    MAKE[name](tmp_path)
    found = opened(tmp_path, name, split)
    assert list(found) == list(expected)
    for sequence, boxes in expected.items():
        np.testing.assert_array_equal(found[sequence].boxes_xywh, boxes, err_msg=sequence)
        assert len(list(found[sequence])) == found[sequence].length


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("coco", "mot")])
def test_an_unpacked_folder_above_is_recognised_and_annotations_need_no_images(tmp_path, name):
    MAKE[name](tmp_path / "unpacked")
    split = {"got10k": "val"}.get(name, "test")
    if name == "trackingnet":
        split = "train"
        config = DatasetConfig(name, str(tmp_path / "unpacked"), split)
    elif name == "folder":
        config = DatasetConfig(name, str(tmp_path / "unpacked"), split)
    else:
        config = DatasetConfig(name, str(tmp_path), split)
        assert open_sequences(config)[0]
    with_images = [sequence.name for sequence in open_sequences(config)[0]]
    for pattern in ("*.jpg", "*.png"):
        for path in tmp_path.rglob(pattern):
            path.unlink()
    tracks, faults = open_annotations(config)
    assert (sorted(track.name for track in tracks), faults) == (sorted(with_images), [])


@pytest.mark.parametrize(
    ("name", "sequence", "note"),
    [
        ("lasot_ext", "paddle-1", "3 images for 2 boxes: the boxes decide"),
        ("tnl2k", "monitor", "3 flags for 2 boxes: the boxes decide"),
        ("nfs", "pingpong_2", "cut at frame 263 of 240 frames per second"),
        ("nfs", "bee", None),
        ("otb2015", "David", "images 300 to 770 of 4"),
    ],
)
def test_quirks_are_named(tmp_path, name, sequence, note):
    MAKE[name](tmp_path)
    notes = opened(tmp_path, name)[sequence].annotation.notes
    assert (note is None and notes == ()) or notes[0].startswith(note)


def test_nfs_has_two_annotations_and_drops_a_box_too_many(tmp_path):
    MAKE["nfs"](tmp_path)
    bee = opened(tmp_path, "nfs", "pytracking")["bee"]
    assert bee.boxes_xywh.tolist() == [[1, 2, 5, 6], [2, 2, 5, 6]]
    assert bee.annotation.notes == ("2 images for 3 boxes: the last box is dropped",)
    text(tmp_path / "anno" / "nfs_bee.txt", "1,2,5,6")
    for path in (tmp_path / "bee" / "30" / "bee").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="0 images for 1 boxes"):
        opened(tmp_path, "nfs", "pytracking")


@pytest.mark.parametrize(
    ("name", "split", "image", "faults"),
    [
        ("uav123", "test", "data_seq/UAV123/car1/000001.jpg", ["car1_1", "car1_2"]),
        ("uav123", "test", "data_seq/UAV123/car1/000002.jpg", ["car1_1", "car1_2"]),
        ("uav123", "test", "data_seq/UAV123/car1/000005.jpg", ["car1_2"]),
        ("nfs", "pytracking", "bee/30/bee/00001.jpg", ["bee"]),
        ("nfs", "pytracking", "bee/30/bee/00002.jpg", ["bee"]),
    ],
)
def test_an_image_that_is_missing_does_not_shift_the_others(tmp_path, name, split, image, faults):
    MAKE[name](tmp_path)
    text(tmp_path / "anno" / "nfs_pingpong_2.txt", *["2,2,5,6"] * 35)
    late = "000006.jpg" if "UAV" in image else "00003.jpg"
    (tmp_path / image).rename((tmp_path / image).with_name(late))  # as many as before
    _, found = open_sequences(DatasetConfig(name, str(tmp_path), split))
    assert [fault.partition(":")[0] for fault in found] == faults


def levels(sequence):
    """Which image each frame is, by its gray level."""
    return [round(float(frame.mean()) / 10) for frame in sequence]


def test_cuts_begin_where_the_cut_before_ends(tmp_path):
    make_uav123(tmp_path)
    folder = tmp_path / "data_seq" / "UAV123" / "car1"
    for number in range(1, 6):
        write_image(folder / f"{number:06d}.jpg", np.full((16, 24, 3), 10 * number, np.uint8))
    found = opened(tmp_path, "uav123")
    assert (levels(found["car1_1"]), levels(found["car1_2"])) == ([1, 2, 3], [3, 4, 5])
    assert found["car1_1"].annotation.attributes == ("SV", "SOB")


def test_a_video_of_otb_may_begin_late(tmp_path):
    make_otb2015(tmp_path)
    for number in range(299, 303):
        image = np.full((16, 24, 3), 10 * (number - 290), np.uint8)
        write_image(tmp_path / "David" / "img" / f"{number:04d}.jpg", image)
    assert levels(opened(tmp_path, "otb2015")["David"]) == [10, 11]


def test_tnl2k_is_sorted_as_text(tmp_path):
    MAKE["tnl2k"](tmp_path)
    for number in (2, 10):
        image = np.full((16, 24, 3), 10 * number, np.uint8)
        write_image(tmp_path / "monitor" / "imgs" / f"{number}.png", image)
    assert levels(opened(tmp_path, "tnl2k")["monitor"]) == [10, 2]


def test_fewer_images_than_boxes_are_a_half_downloaded_archive(tmp_path):
    MAKE["lasot_ext"](tmp_path)
    (tmp_path / "atv" / "atv-1" / "img" / "00000003.jpg").unlink()
    _, faults = open_sequences(DatasetConfig("lasot_ext", str(tmp_path), "test"))
    assert len(faults) == 1
    assert faults[0].endswith("2 images for 3 boxes")


def test_a_split_without_truth_is_not_for_training(tmp_path):
    MAKE["got10k"](tmp_path)
    with pytest.raises(ValueError, match="can be evaluated, but not trained on"):
        open_tracks(DatasetConfig("got10k", str(tmp_path), "test"), tmp_path / "cache")


def test_the_test_split_of_trackingnet_is_a_root_too(tmp_path):
    MAKE["trackingnet"](tmp_path)
    assert list(opened(tmp_path / "TEST", "trackingnet")) == ["t_0"]


@pytest.mark.parametrize(
    ("name", "other", "match"),
    [
        ("tnl2k", "lasot", "this looks like LaSOT"),
        ("vasttrack", "lasot", "this looks like LaSOT"),
        ("lasot_ext", "lasot", "is no LaSOT_ext: testing_set.txt belongs to LaSOT"),
        ("lasot_ext", "got10k", "this looks like GOT-10k"),
        ("lasot", "got10k", "this looks like GOT-10k"),
        ("otb2015", "uav123", "this looks like UAV123"),
        ("nfs", "otb2015", "this looks like OTB"),
    ],
)
def test_the_root_of_another_dataset_is_recognised(tmp_path, name, other, match):
    MAKE[other](tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        opened(tmp_path, name)


@pytest.mark.parametrize(("flags", "shown"), [("0 0 1", 1), ("1 0 0", 0), ("0 1 0", 0), ("", 1)])
def test_a_target_of_nfs_that_is_lost_or_occluded_has_no_box(tmp_path, flags, shown):
    MAKE["nfs"](tmp_path)
    path = tmp_path / "bee" / "30" / "bee.txt"
    path.write_text(path.read_text().replace("9 0 0 0", f"9 {flags}"))
    boxes = opened(tmp_path, "nfs")["bee"].boxes_xywh
    assert np.isfinite(boxes).all(1).tolist() == [True, bool(shown)]


FRAME = "0 1 1 6 7 {} 0 0 0"


@pytest.mark.parametrize(
    "line",
    ["0 1 2", "bee", "0 a b c d 1"]
    + [FRAME.format(frame) for frame in (-7, 1.5, "nan", "inf", 8000000000001)],
)
def test_a_broken_row_of_nfs_is_named(tmp_path, line):
    images(tmp_path / "bee" / "30" / "bee", ["1.jpg"])
    text(tmp_path / "bee" / "30" / "bee.txt", line)
    with pytest.raises(ValueError, match=r"bee\.txt, line 1: expected id x1 y1 x2 y2 frame"):
        opened(tmp_path, "nfs")


def test_a_file_of_nfs_may_begin_at_0_and_end_in_empty_lines(tmp_path):
    MAKE["nfs"](tmp_path)
    path = tmp_path / "bee" / "30" / "bee.txt"
    path.write_text("0 9 9 19 19 0 0 0 0\n" + path.read_text() + "\n \n")
    assert opened(tmp_path, "nfs")["bee"].boxes_xywh.tolist() == [[3, 3, 5, 6], [11, 3, 5, 6]]


@pytest.mark.parametrize(
    ("name", "sequence", "truth"),
    [
        ("tnl2k", "monitor", "zebra/groundtruth.txt"),
        ("nfs", "bee", "zebra/30/zebra.txt"),
        ("otb2015", "Walking", "zebra/groundtruth_rect.txt"),
    ],
)
def test_images_without_boxes_are_a_fault(tmp_path, name, sequence, truth):
    MAKE[name](tmp_path)
    shutil.copytree(tmp_path / sequence, tmp_path / "zebra")
    (tmp_path / truth).unlink(missing_ok=True)
    _, faults = open_sequences(DatasetConfig(name, str(tmp_path), "test"))
    assert faults == [f"zebra: no boxes at {tmp_path / truth}"]


@pytest.mark.parametrize(
    ("name", "make", "file"),
    [
        ("uav123", make_uav123, "anno/UAV123/._car1_1.txt"),
        ("trackingnet", MAKE["trackingnet"], "TEST/anno/._t_0.txt"),
        ("tnl2k", make_tnl2k_toolkit, "annos/gt_rect/._monitor.txt"),
    ],
)
def test_hidden_files_of_macos_are_no_sequences(tmp_path, name, make, file):
    make(tmp_path)
    config = DatasetConfig(name, str(tmp_path), "test")
    expected = [track.name for track in open_annotations(config)[0]]
    (tmp_path / file).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    tracks, faults = open_annotations(config)
    assert ([track.name for track in tracks], faults) == (expected, [])


def test_a_split_of_vasttrack_is_not_taken_for_another(tmp_path):
    MAKE["vasttrack"](tmp_path / "unpacked" / "train")
    assert len(opened(tmp_path, "vasttrack", "train")) == 2
    assert len(opened(tmp_path / "unpacked", "vasttrack", "train")) == 2
    with pytest.raises(ValueError, match="is no VastTrack"):
        opened(tmp_path / "unpacked", "vasttrack", "test")


@pytest.mark.parametrize("inside", [".", "annos"])
@pytest.mark.parametrize(
    ("name", "make", "sequence", "boxes", "attributes"),
    [
        ("lasot", make_lasot_toolkit, "cat-2", [[1, 2, 5, 6], nan, [3, 2, 5, 6]], ("IV", "ARC")),
        ("tnl2k", make_tnl2k_toolkit, "monitor", [ONE, nan], ("CM", "MS")),
    ],
)
def test_a_toolkit_alone_will_do_to_score(
    tmp_path, name, make, sequence, boxes, attributes, inside
):
    make(tmp_path)
    config = DatasetConfig(name, str(tmp_path / inside), "test")
    (track,), faults = open_annotations(config)
    assert (track.name, track.attributes, faults) == (sequence, attributes, [])
    np.testing.assert_array_equal(track.shown_xywh, boxes)
    with pytest.raises(ValueError, match="a toolkit, fit for --rescore alone"):
        open_sequences(config)


@pytest.mark.parametrize("unpacked", [".", "unpacked"])
@pytest.mark.parametrize(
    ("name", "sequence", "file", "flags", "expected"),
    [
        ("lasot", "cat-2", "att/cat-2.txt", 14, ("IV", "ARC")),
        ("lasot", "cat-2", "LaSOT_Evaluation_Toolkit/annos/att/cat-2.txt", 14, ("IV", "ARC")),
        ("lasot_ext", "atv-1", "annos/att/atv-1.txt", 14, ("IV", "ARC")),
        ("tnl2k", "monitor", "annos/annos/att/monitor_attribute.txt", 17, ("CM", "MS")),
        ("otb2015", "Jogging_1", "anno/att/jogging-1.txt", 11, ("IV", "LR")),
        ("otb2015", "Human4_2", "anno/att/human4.txt", 11, ("IV", "LR")),
        ("uav123", "car1_1", "anno/UAV123/att/car1_1.txt", 12, ("SV", "SOB")),
        ("lasot", "cat-2", "att/dog-1.txt", 14, ()),
        ("nfs", "bee", "att/bee.txt", 9, ()),
    ],
)
def test_attributes_beside_a_dataset_are_read(
    tmp_path, name, sequence, file, flags, expected, unpacked
):
    MAKE[name](tmp_path / unpacked)
    text(tmp_path / file, ",".join(["1", *["0"] * (flags - 2), "1"]))
    assert opened(tmp_path, name)[sequence].annotation.attributes == expected


def test_attributes_of_another_number_are_a_fault(tmp_path):
    MAKE["tnl2k"](tmp_path)
    text(tmp_path / "att" / "monitor.txt", "1,0,1")
    with pytest.raises(ValueError, match=r"monitor.txt holds 3 numbers; expected 17"):
        opened(tmp_path, "tnl2k")


def test_the_toolkit_may_lie_beside_the_folder_of_the_dataset(tmp_path):
    MAKE["tnl2k"](tmp_path / "unpacked")
    (tmp_path / "unpacked" / "absent").rename(tmp_path / "absent")
    np.testing.assert_array_equal(opened(tmp_path, "tnl2k")["monitor"].boxes_xywh, [ONE, nan])


def test_missing_flags_of_tnl2k_are_told(tmp_path):
    MAKE["tnl2k"](tmp_path)
    (tmp_path / "absent" / "monitor.txt").unlink()
    (note,) = opened(tmp_path, "tnl2k")["monitor"].annotation.notes
    assert note.startswith("no flags of absence, annos/absent/ of the toolkit")


def test_a_check_tells_what_all_sequences_lack_once(tmp_path):
    MAKE["tnl2k"](tmp_path)
    (tmp_path / "absent" / "monitor.txt").unlink()
    shutil.copytree(tmp_path / "monitor", tmp_path / "zebra")
    lines, _ = check_dataset(DatasetConfig("tnl2k", str(tmp_path), "test"))
    (told,) = (line for line in lines if "no flags of absence" in line)
    assert told.startswith("note: 2 sequences, such as monitor: ")


def test_an_empty_file_of_otb_is_no_target(tmp_path):
    make_otb2015(tmp_path)
    text(tmp_path / "Human4" / "groundtruth_rect1.txt")
    assert [name for name in opened(tmp_path, "otb2015") if "Human4" in name] == ["Human4_2"]


@pytest.mark.parametrize("name", ["groundtruth_rect_old.txt", "groundtruth_rect (1).txt"])
def test_a_copy_of_the_boxes_of_otb_is_no_target(tmp_path, name):
    make_otb2015(tmp_path)
    text(tmp_path / "Walking" / name, "9,9,5,6", "9,9,5,6")
    sequences, _ = open_sequences(DatasetConfig("otb2015", str(tmp_path), "test"))
    boxes = [each.boxes_xywh.tolist() for each in sequences if each.name == "Walking"]
    assert boxes == [[ONE] * 2]
