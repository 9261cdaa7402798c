"""Result files of other trackers: every spelling in use, and one line for what cannot be used."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import make_lasot, make_nfs, make_otb2015, text

from spmtrack_core.config import DatasetConfig
from spmtrack_core.evaluation.rescore import rescore
from spmtrack_core.evaluation.results import ResultFolder, SequenceRun, read_results

ROWS = ["2,3,5,6", "3,3,5,6", "4,3,5,6"]


@pytest.mark.parametrize(
    ("file", "lines", "reason"),
    [
        ("cat-2.txt", ROWS, "commas"),
        ("cat-2.txt", [row.replace(",", "\t") for row in ROWS], "tabs"),
        ("cat-2.txt", [row.replace(",", "  ") for row in ROWS], "blanks"),
        ("cat-2.txt", [f"{row}," for row in ROWS], "a comma at the end"),
        ("lasot_cat-2.txt", ["2.0,3.0,5.0,6.0", "3e0,3,5,6", "+4,3,5,6"], "a prefix, floats"),
        ("CAT_2.txt", ROWS, "another spelling"),
        ("deep/er/cat-2.txt", ROWS, "folders between"),
        ("deep\\er\\cat-2.txt", ROWS, "folders as Windows packs them"),
        ("cat-2/cat-2_001.txt", ROWS, "GOT-10k's numbers"),
        ("cat-2.txt", ["\ufeff2,3,5,6", *ROWS[1:]], "a byte order mark"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_found_and_read(tmp_path, file, lines, reason, packed):
    folder = tmp_path / "results"
    text(folder / file, *lines)
    for other in ("cat-2_time.txt", "__MACOSX/cat-2.txt", "notes.txt"):
        text((tmp_path / "ignored" if "MACOSX" in other else folder) / other, "0.1")
    path = folder
    if packed:
        path = tmp_path / "results.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for each in folder.rglob("*.txt"):
                archive.write(each, each.relative_to(folder).as_posix())
            archive.writestr("__MACOSX/cat-2.txt", "junk")
    found, faults = read_results(path, ["cat-2", "dog-1"])
    assert faults == {}, reason
    assert list(found) == ["cat-2"]
    assert found["cat-2"][0].tolist() == [[2, 3, 5, 6], [3, 3, 5, 6], [4, 3, 5, 6]], reason


def two_trackers(path, one="cat-2.txt", two="cat-2.txt"):
    text(path / "A" / one, *ROWS)
    text(path / "B" / two, *ROWS)
    text(path / "A" / "time" / "cat-2.txt" if "boxes" in one else path / "notes.txt", "0.1")


def encrypted(path):
    """A zip whose only file is marked as encrypted, in front of it and in the list at the end."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat-2.txt", "1,2,3,4")
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)


def damaged(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat-2.txt", ROWS[0])
    path.write_bytes(path.read_bytes().replace(ROWS[0].encode(), b"9,9,9,9"))


@pytest.mark.parametrize("packed", [False, True])
def test_a_run_of_ours_has_its_boxes_in_a_folder(tmp_path, packed):
    for kind, row in (("boxes", "1,2,3,4"), ("time", "0.1"), ("toolkit", "2,3,3,4")):
        text(tmp_path / "out" / kind / "a.txt", row)
    text(tmp_path / "out" / "dark" / "boxes" / "a.txt", "9,9,9,9")  # of compare --disturb
    text(tmp_path / "out" / "a.txt", "9,9,9,9")
    path = tmp_path / "out"
    if packed:
        path = Path(shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path, "out"))
    found, faults = read_results(path, ["a"])
    assert (found["a"][0].tolist(), len(found["a"]), faults) == ([[1, 2, 3, 4]], 1, {})


def test_names_beyond_ascii_stay_apart(tmp_path):
    for name in ("\u732b", "\u9ce5", "cafe\u0301"):  # the last as macOS writes it
        text(tmp_path / f"{name}.txt", "1,2,3,4")
    names = ["\u732b", "\u72ac", "caf\u00e9"]
    found, _ = read_results(tmp_path, names)
    assert {name: len(each) for name, each in found.items()} == {"\u732b": 1, "caf\u00e9": 1}


def test_repetitions_are_kept_in_order(tmp_path):
    for number in (1, 2, 10):
        text(tmp_path / "a" / f"a_{number:03d}.txt", f"{number},1,1,1")
    found, _ = read_results(tmp_path, ["a"])
    assert [boxes[0, 0] for boxes in found["a"]] == [1, 2, 10]


def test_the_authors_pack_all_datasets_and_repetitions_together(tmp_path):
    files = {
        "S/cat-2.txt": 1,
        "S/nfs_cat_2.txt": 2,
        "S/Cat.txt": 3,
        "S/uav_cat.txt": 4,
        "S_002/atv-1.txt": 6,
        "S_001/atv-1.txt": 5,
        "S_001/ape-1_001.txt": 7,
        "S_001/ape-1_002.txt": 8,
        "S_002/nfs_cat_3.txt": 9,
        "S_001/cat-3.txt": 10,
        "S/nfs_cat_4_002.txt": 11,
        "S/cat-4.txt": 12,
        "S_000/own_001.txt": 13,
        "S_001/own_001.txt": 14,
    }
    for file, x in files.items():
        text(tmp_path / file, f"{x},1,1,1")
    for names, expected in (
        (["cat-2"], [1]),  # LaSOT
        (["cat_2"], [2]),  # NfS
        (["Cat"], [3]),  # OTB
        (["cat"], [4]),  # UAV20L
        (["atv-1"], [5, 6]),
        (["ape-1"], [7, 8]),
        (["cat-3"], [10]),
        (["cat-4"], [12]),
        (["own_001"], [13, 14]),
    ):
        found, _ = read_results(tmp_path, names)
        assert [boxes[0, 0] for boxes in found[names[0]]] == expected, names
    text(tmp_path / "T_003" / "atv-1.txt", "7,1,1,1")
    with pytest.raises(ValueError, match=r"S_001/atv-1.txt and T_003/atv-1.txt"):
        read_results(tmp_path, ["atv-1"])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: None, "no folder or zip"),
        (lambda path: path.write_bytes(b"PK half an archive"), "neither a folder nor a complete"),
        (lambda path: path.mkdir(), "expected names such as cat-2.txt; got no .txt file"),
        (lambda path: text(path / "bike1.txt", "1,2,3,4"), "cat-2.txt; got bike1.txt"),
        (
            lambda path: two_trackers(path),
            "A/cat-2.txt and B/cat-2.txt: expected",
        ),
        (
            lambda path: two_trackers(path, "cat-2.txt", "lasot_cat-2.txt"),
            "A/cat-2.txt and B/lasot_cat-2.txt: expected",
        ),
        (
            lambda path: two_trackers(path, "cat-2.txt", "cat-2_001.txt"),
            "A/cat-2.txt and B/cat-2_001.txt: expected",
        ),
        (
            lambda path: two_trackers(path, "boxes/cat-2.txt", "cat-2.txt"),
            "A/boxes/cat-2.txt and B/cat-2.txt: expected",
        ),
        (
            lambda path: two_trackers(path, "boxes/cat-2.txt", "boxes/cat-2.txt"),
            "A/boxes/cat-2.txt and B/boxes/cat-2.txt: expected",
        ),
        (lambda path: damaged(path), "cannot be unpacked: Bad CRC-32"),
        (lambda path: encrypted(path), "cannot be unpacked: File .*cat-2.txt.* is encrypted"),
    ],
)
def test_what_holds_no_result_is_named(tmp_path, make, match):
    make(tmp_path / "results")
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        read_results(tmp_path / "results", ["cat-2"])


@pytest.mark.parametrize(("shift", "origin"), [(0, 1), (-1, 0)])
def test_rescoring_finds_out_what_files_count_from(tmp_path, shift, origin):
    make_lasot(tmp_path / "data")
    rows = (f"{2 + shift + n},{3 + shift},5,6" for n in range(3))
    text(tmp_path / "mine" / "cat-2.txt", *rows)
    config = DatasetConfig("lasot", str(tmp_path / "data"), "test")
    report = rescore(config, tmp_path / "mine", tmp_path / "out")
    assert report["mean"]["mean_iou"] == 1
    # frame 2 is flagged absent: two of three frames can pass
    assert report["conventions"]["spmtrack"]["auc"] == pytest.approx(2 / 3 * 20 / 21)
    assert report["conventions"]["official"]["auc"] == pytest.approx(2 / 3 * 20 / 21)
    assert any("count pixels from 1" in note for note in report["notes"]) == bool(origin)
    assert report["got10k"]["ao"] == 1 and report["confidence_auc"] is None
    for name in ("results.json", "table.md", "results.csv", "table.tex", "frames.npz"):
        assert (tmp_path / "out" / name).stat().st_size
    with np.load(tmp_path / "out" / "frames.npz") as frames:
        assert frames["names"].tolist() == ["cat-2"]
        assert frames["visible"].tolist() == [True, False, True]
        np.testing.assert_array_equal(frames["boxes_xywh"], frames["truth_xywh"])


def test_a_first_box_that_is_nan_does_not_hide_the_origin(tmp_path):
    make_lasot(tmp_path / "data")
    text(tmp_path / "data" / "testing_set.txt", "cat-1", "cat-2")
    for name, first in (("cat-1", "nan,nan,nan,nan"), ("cat-2", "2,3,5,6")):
        text(tmp_path / "mine" / f"{name}.txt", first, *ROWS[1:])
    config = DatasetConfig("lasot", str(tmp_path / "data"), "test")
    report = rescore(config, tmp_path / "mine", tmp_path / "out")
    assert any("count pixels from 1" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("place", "label"),
    [
        ("ostrack-1.4", "ostrack-1.4"),
        ("ostrack-1.5/boxes", "ostrack-1.5"),
        ("results", "mine"),
        ("ostrack-1.4.zip", "ostrack-1.4"),
    ],
)
def test_a_tracker_is_called_as_its_folder_or_zip(tmp_path, place, label):
    make_lasot(tmp_path / "data")
    path = tmp_path / "mine" / place
    if place.endswith(".zip"):
        path.parent.mkdir()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("cat-2.txt", "\n".join(ROWS))
    else:
        text(path / "cat-2.txt", *ROWS)
    config = DatasetConfig("lasot", str(tmp_path / "data"), "test")
    assert rescore(config, path, tmp_path / "out")["tracker"] == label


def test_rescoring_names_what_is_missing_too_long_and_broken(tmp_path, spmtrack):
    make_otb2015(tmp_path / "data")
    text(tmp_path / "mine" / "David.txt", *["2,3,5,6"] * 4)  # two too many
    text(tmp_path / "mine" / "Jogging-1.txt", "1,3,5,6")  # one too few
    text(tmp_path / "mine" / "Jogging-2.txt", "2,3,5,6", "one,2,3,4")
    text(tmp_path / "mine" / "Walking.txt", "2,3,5,6", "nan,nan,nan,nan")
    code, out, err = spmtrack(
        *("eval", "otb2015", "--root", tmp_path / "data", "--rescore", tmp_path / "mine"),
        *("--output", tmp_path / "out"),
    )
    assert code == 3
    assert "Human4_2: no result file" in err and "Jogging_2: " in err and "line 2" in err
    assert "2 boxes more than frames" in out
    assert "a box is NaN or has a negative size: an error by pytracking" in " ".join(out.split())


def test_a_result_of_another_key_is_not_taken_over(tmp_path):
    boxes = np.tile([1.0, 2, 3, 4], (3, 1))
    run = SequenceRun(boxes, np.ones(3), np.full(3, np.nan), np.array([False, True, False]))
    folder = ResultFolder(tmp_path)
    folder.write("a", run, "one")
    again = folder.read("a", "one", 3)
    assert again is not None and again.lost.tolist() == [False, True, False]
    assert folder.read("a", "two", 3) is None
    assert folder.read("a", "one", 4) is None
    folder.fail("a", "broken")
    assert folder.failure("a", 0) == "broken"
    assert folder.read("a", "one", 3) is not None  # of the attempt before
    folder.write("a", run, "one")
    assert folder.failure("a", 0) is None


def test_a_result_that_is_half_replaced_is_none(tmp_path, monkeypatch):
    run = SequenceRun(np.ones((3, 4)), np.ones(3), np.ones(3), np.zeros(3, bool))
    folder = ResultFolder(tmp_path)
    folder.write("a", run, "one")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savetxt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.write("a", run, "one")
    assert folder.read("a", "one", 3) is None


def test_a_sequence_is_claimed_by_one_process(tmp_path):
    folder = ResultFolder(tmp_path)
    with folder.claim("a") as mine, folder.claim("a") as again:
        assert (mine, again) == (True, False)
    with folder.claim("a") as mine:
        assert mine


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="file system with locks"):
        with ResultFolder(tmp_path).claim("a"):
            pass


def test_a_run_on_lasot_leaves_boxes_for_its_toolkit(tmp_path, spmtrack, tiny_checkpoint):
    make_lasot(tmp_path / "data")
    common = "eval", "lasot", "--root", tmp_path / "data"
    weights = "--weights", tiny_checkpoint, "--device", "cpu"
    code, _, err = spmtrack(*common, *weights, "--output", tmp_path / "out")
    assert code == 0, err
    boxes, toolkit = (
        np.loadtxt(tmp_path / "out" / kind / "cat-2.txt", delimiter=",")
        for kind in ("boxes", "toolkit")
    )
    np.testing.assert_allclose(toolkit - boxes, [[1, 1, 0, 0]] * 3)
    reports = [json.loads((tmp_path / "out" / "results.json").read_text())]
    for kind in ("boxes", "toolkit"):
        code, _, err = spmtrack(
            *common, "--rescore", tmp_path / "out" / kind, "--output", tmp_path / kind
        )
        assert code == 0, err
        reports.append(json.loads((tmp_path / kind / "results.json").read_text()))
    scores = [report["mean"]["success_auc"] for report in reports]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-6)
    assert reports[0]["dataset"] == reports[1]["dataset"] == reports[2]["dataset"]
    code, _, err = spmtrack(
        *common, "--rescore", tmp_path / "out" / "boxes", "--output", tmp_path / "out"
    )
    assert (code, "holds the results to score" in err) == (2, True)
    before = (tmp_path / "out" / "results.json").read_text()
    code, _, err = spmtrack(
        *common, "--rescore", tmp_path / "toolkit", "--output", tmp_path / "out"
    )
    assert (code, "holds a run and its report; choose another" in err) == (2, True)
    assert (tmp_path / "out" / "results.json").read_text() == before


@pytest.mark.parametrize(
    ("split", "lengths", "frames"),
    [
        ("pytracking", {"nfs_bee.txt": 2}, 2),  # as many as there are images
        ("pytracking", {"bee.txt": 3}, 3),
        ("pytracking", {"bee.txt": 1}, None),  # not complete
        ("test", {"bee.txt": 1, "pingpong_2.txt": 33}, 1),
    ],
)
def test_nfs_may_lack_the_last_box(tmp_path, split, lengths, frames):
    make_nfs(tmp_path / "data")
    for file, length in lengths.items():
        text(tmp_path / "mine" / file, *["2,3,5,6"] * length)
    config = DatasetConfig("nfs", str(tmp_path / "data"), split)
    report = rescore(config, tmp_path / "mine", tmp_path / "out")
    error = "error" in report["conventions"]["spmtrack"]
    assert error is (frames is None)
    note = f"bee: {frames} result boxes for {(frames or 0) + 1} true ones: the last true box"
    assert any(each.startswith(note) for each in report["notes"]) is (frames in (1, 2))
    assert report["sequences"][0]["frames"] == (frames or 3)


def test_tables_have_the_rows_of_their_dataset(tmp_path):
    make_lasot(tmp_path / "data")
    text(tmp_path / "a_b{50%}" / "cat-2.txt", *ROWS)
    config = DatasetConfig("lasot", str(tmp_path / "data"), "test")
    rescore(config, tmp_path / "a_b{50%}", tmp_path / "out")
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| convention |" in table and "AO" not in table and "TrackingNet" not in table
    assert "1 of 280 sequences, " in table
    assert (
        r"a\_b\{50\%\} & lasot test (1 of 280) &" in (tmp_path / "out" / "table.tex").read_text()
    )


def test_a_file_without_any_score_is_left_out(tmp_path, spmtrack):
    make_lasot(tmp_path / "data")
    text(tmp_path / "data" / "testing_set.txt", "cat-1", "cat-2", "none-1")
    text(tmp_path / "mine" / "cat-1.txt", *ROWS[:2])
    text(tmp_path / "mine" / "cat-2.txt", *ROWS)
    text(tmp_path / "mine" / "none-1.txt", *ROWS)
    code, out, err = spmtrack(
        *("eval", "lasot", "--root", tmp_path / "data", "--rescore", tmp_path / "mine"),
        *("--output", tmp_path / "out"),
    )
    assert (code, "1 of 3 sequences evaluated" in err) == (3, True)
    assert "1 of 280 sequences of lasot: a part of the split" in out
    assert "cat-1: 2 boxes for 3 frames" in err
    assert f"none-1: no boxes at {tmp_path / 'data' / 'none-1' / 'groundtruth.txt'}" in err
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["dataset"]["split_sequences"] == 280
    assert report["conventions"]["spmtrack"]["auc"] > 0.6  # one of three frames is absent


def test_no_score_by_the_default_convention_is_told(tmp_path, spmtrack):
    make_nfs(tmp_path / "data")
    text(tmp_path / "mine" / "bee.txt", "2,3,5,6")
    code, _, err = spmtrack(
        *("eval", "nfs", "--root", tmp_path / "data", "--split", "pytracking"),
        *("--rescore", tmp_path / "mine", "--output", tmp_path / "out"),
    )
    assert code == 3
    assert "no score by the convention spmtrack: bee: 1 boxes for 3 frames" in err
