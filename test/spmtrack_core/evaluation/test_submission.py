"""Zips for the servers: what is in them, and every fault that a server does not report."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from dataset_trees import MAKE, text

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.passes import Passes, key_of, whole_boxes
from spmtrack_core.evaluation.results import ResultFolder, SequenceRun, read_results
from spmtrack_core.evaluation.submission import (
    Expected,
    check,
    empty_boxes,
    read_submission,
    write_zip,
)
from spmtrack_core.evaluation.upload import submission

BOX = np.array([1.0, 2, 3, 4])
GOOD = np.tile(BOX, (3, 1))
EXPECTED = [Expected("a_0", 3, BOX), Expected("b_0", 3, BOX)]


def changed(row, column, value):
    boxes = GOOD.copy()
    boxes[row, column] = value
    return boxes


@pytest.mark.parametrize(
    ("dataset", "results", "fault"),
    [
        ("got10k", {"a_0": [GOOD], "b_0": [GOOD, GOOD]}, None),
        ("trackingnet", {"a_0": [GOOD]}, "b_0: no boxes"),
        ("trackingnet", {"a_0": [GOOD[:2]], "b_0": [GOOD]}, "a_0: 2 boxes for 3 frames"),
        (
            "got10k",
            {"a_0": [GOOD, GOOD[:2]], "b_0": [GOOD]},
            "a_0, repetition 2: 2 boxes for 3 frames",
        ),
        ("got10k", {"a_0": [changed(1, 2, np.nan)], "b_0": [GOOD]}, "a_0: a box has a value"),
        ("got10k", {"a_0": [changed(2, 3, -1)], "b_0": [GOOD]}, "a_0, line 3: a box has a neg"),
        ("got10k", {"a_0": [changed(2, 3, 0)], "b_0": [GOOD]}, None),
        ("got10k", {"a_0": [changed(0, 0, 9)], "b_0": [GOOD]}, "a_0: the first box is not"),
        ("got10k", {"a_0": [GOOD], "b_0": [changed(0, 2, 4.9)]}, None),  # widened to whole numbers
        ("got10k", {"a_0": [GOOD], "b_0": [GOOD], "c": [GOOD]}, "c: not a sequence"),
        ("trackingnet", {"a_0": [GOOD], "b_0": [GOOD], "xa_0": [GOOD]}, "a_0: also part of"),
    ],
)
def test_what_a_server_would_not_report(dataset, results, fault):
    found = check(dataset, EXPECTED, results)
    if fault is None:
        assert found == []
    else:
        assert any(line.startswith(fault) for line in found), found


@pytest.mark.parametrize(
    ("dataset", "members"),
    [
        ("trackingnet", ["a_0.txt"]),
        ("got10k", ["a_0/a_0_001.txt", "a_0/a_0_002.txt", "a_0/a_0_time.txt"]),
    ],
)
def test_a_zip_has_the_servers_layout_and_always_the_same_hash(tmp_path, dataset, members):
    results = {"a_0": [GOOD, GOOD]}
    seconds = {"a_0": [np.full(3, 0.5), np.full(3, 0.25)]}
    hashes = {write_zip(tmp_path / f"{n}.zip", dataset, results, seconds) for n in (1, 2)}
    assert len(hashes) == 1
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.namelist() == members
        assert archive.read(members[0]).decode() == "1,2,3,4\n" * 3
        if dataset == "got10k":
            assert archive.read(members[-1]).decode() == "0.500000,0.250000\n" * 3
    found, _ = read_results(tmp_path / "1.zip", ["a_0"])
    assert len(found["a_0"]) == (2 if dataset == "got10k" else 1)


@pytest.mark.parametrize("dataset", ["got10k", "trackingnet"])
def test_the_command_makes_a_zip_for_a_split_without_truth(
    tmp_path, spmtrack, tiny_checkpoint, dataset
):
    MAKE[dataset](tmp_path / "data")
    code, out, err = spmtrack(
        *("eval", dataset, "--root", tmp_path / "data", "--weights", tiny_checkpoint),
        *("--output", tmp_path / "out", "--as", "paper", "precision=float32", "repetitions=2"),
        *("--device", "cpu"),
    )
    assert code == 0, err
    assert "(the server scores the others 0), 2 repetition(s)" in out and "sha256" in out
    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as archive:
        name = archive.namelist()[0]
        rows = archive.read(name).decode().splitlines()
    assert len(rows) == 3
    assert all(float(value).is_integer() for value in rows[1].split(","))
    again = "eval", dataset, "--root", tmp_path / "data"
    code, out, err = spmtrack(*again, "--rescore", tmp_path / "out" / "submission.zip")
    assert (code, "can be uploaded: 1 of " in out) == (0, True), err
    shutil.unpack_archive(tmp_path / "out" / "submission.zip", tmp_path / "short")
    (tmp_path / "mine").mkdir()
    code, out, err = spmtrack(*again, "--rescore", tmp_path / "short")
    assert (code, "packed without the folder itself, can be up" in out) == (0, True), err
    (tmp_path / "short").rename(tmp_path / "mine" / "short")
    code, _, err = spmtrack(*again, "--rescore", tmp_path / "mine")  # as SPMTrack's code packs it
    assert code == 0, err
    text(tmp_path / "mine" / "short" / name, *rows[:2])
    code, _, err = spmtrack(*again, "--rescore", tmp_path / "mine" / "short")
    assert (code, "2 boxes for 3 frames" in err) == (2, True)


LINES = "1,2,3,4\n" * 3
SPACED = LINES.replace(",", ", ") + "\n"
A = {"a_0/a_0_001.txt": LINES, "a_0/a_0_time.txt": "0.1\n" * 3}


@pytest.mark.parametrize(
    ("dataset", "files", "fault", "reason"),
    [
        ("trackingnet", {"a_0.txt": LINES}, None, "as the server expects it"),
        ("trackingnet", {"a_0.txt": SPACED}, None, "servers skip blanks and empty lines"),
        ("trackingnet", {"a_0.txt": LINES, "b_0.txt": "?"}, None, "of another sequence"),
        ("trackingnet", {"A_0.txt": LINES}, "a_0: no a_0.txt", "capitals"),
        ("trackingnet", {"T/a_0/a_0.txt": LINES}, None, "as SPMTrack's code packs it"),
        ("trackingnet", {"a_0.txt": LINES, "__MACOSX/._a_0.txt": "?"}, None, "of macOS"),
        (
            "trackingnet",
            {"T/a_0.txt": LINES, "U/a_0.txt": LINES},
            "a_0: also part of the name U/a_0.txt; the server rejects both",
            "two trackers",
        ),
        (
            "trackingnet",
            {"a_0.txt": LINES, "xa_0.txt": LINES},
            "a_0: also part of the name xa_0.txt; the server rejects both",
            "a name that contains the expected one",
        ),
        (
            "trackingnet",
            {"a_0.txt": LINES.replace(",", ";")},
            "a_0: a_0.txt, line 1: expected numbers between commas, 4 a line; got '1;2;3;4'",
            "semicolons",
        ),
        (
            "trackingnet",
            {"a_0.txt": LINES.replace("\n", ",\n")},
            "a_0: a_0.txt, line 1: expected",
            "pandas takes five columns for an index and four numbers",
        ),
        ("got10k", A, None, "as the server expects it"),
        ("got10k", {**A, "a_0/a_0_002.txt": LINES}, None, "a second repetition"),
        ("got10k", {**A, "a_0/a_0_time.txt": "0.1,0.2\n" * 3}, None, "times of two repetitions"),
        ("got10k", {f"T/{name}": A[name] for name in A}, None, "as SPMTrack's code packs it"),
        (
            "got10k",
            {f"T/U/{name}": A[name] for name in A},
            "a_0: no a_0/a_0_001.txt",
            "two folders above",
        ),
        ("got10k", {**A, "__MACOSX/T/._a_0.txt": "?"}, None, "of macOS"),
        ("got10k", {"a_0_001.txt": LINES}, "a_0: no a_0/a_0_001.txt", "without folders"),
        ("got10k", {"a_0/a_0.txt": LINES}, "a_0: no a_0/a_0_001.txt", "without a number"),
        (
            "got10k",
            {"a_0/a_0_001.txt": LINES},
            "a_0: no a_0/a_0_time.txt",
            "without times",
        ),
        (
            "got10k",
            {**A, "a_0/a_0_time.txt": "0.1 0.2\n"},
            "a_0: a_0/a_0_time.txt, line 1: expected",
            "blanks between times",
        ),
        ("got10k", {**A, "a_0/a_0_time.txt": ""}, "a_0: a_0/a_0_time.txt is empty", "no time"),
        (
            "got10k",
            {**A, "a_0/a_0_001.txt": LINES.replace(",", "\t")},
            "a_0: a_0/a_0_001.txt, line 1: expected",
            "tabs",
        ),
    ],
)
def test_a_server_reads_its_own_layout_alone(tmp_path, dataset, files, fault, reason):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    results, faults = read_submission(dataset, tmp_path, ["a_0"])
    if fault is None:
        assert (list(results), faults) == (["a_0"], []), reason
        passes = 2 if "a_0/a_0_002.txt" in files else 1
        np.testing.assert_array_equal(results["a_0"], [GOOD] * passes)
    else:
        assert (results, faults[0].startswith(fault)) == ({}, True), (reason, faults)


def test_boxes_without_an_area_are_counted():
    found = empty_boxes({"a": [GOOD, changed(2, 3, 0)], "b": [changed(0, 2, 0)], "c": [GOOD]})
    (line,) = found
    assert line.startswith("warning: 2 boxes have no area")
    assert line.endswith("first a, repetition 2, line 3")
    assert empty_boxes({"c": [GOOD]}) == []


@pytest.mark.parametrize(
    ("box", "whole", "reason"),
    [
        ([1.6, 2.6, 8.5, 7.5], [1, 2, 10, 9], "both far edges go up: 10.1 and 10.1 to 11"),
        ([3, 4, 5, 6], [3, 4, 5, 6], "whole already"),
        ([0, 5, 0.4, 9], [0, 5, 1, 9], "what the border leaves of a box keeps a pixel"),
        ([0.5, 0.5, 9.50005, 9.50005], [0, 0, 10, 10], "0.0001 px are a rounding error"),
        ([-2.5, -1.2, 3, 3], [-3, -2, 4, 4], "beyond the border as well"),
    ],
)
def test_whole_boxes_hold_the_pixels_that_a_box_touches(box, whole, reason):
    np.testing.assert_array_equal(whole_boxes(np.array([box])), [whole], reason)


def test_a_box_without_an_area_is_a_warning_of_a_run(
    tmp_path, spmtrack, tiny_checkpoint, monkeypatch
):
    MAKE["trackingnet"](tmp_path / "data")

    def write(self, name, run, key, write=ResultFolder.write):
        boxes = run.boxes_xywh.copy()
        boxes[1:] = [0, 5, 0, 9]
        write(self, name, run._replace(boxes_xywh=boxes), key)

    monkeypatch.setattr(ResultFolder, "write", write)
    common = "eval", "trackingnet", "--root", tmp_path / "data"
    code, out, err = spmtrack(
        *(*common, "--weights", tiny_checkpoint, "--device", "cpu"),
        *("--output", tmp_path / "out", "--as", "paper", "precision=float32"),
    )
    assert code == 0, err
    warning = "warning: 2 boxes have no area"
    assert (out.count(warning), "wrote" in out) == (1, True)
    code, out, err = spmtrack(*common, "--rescore", tmp_path / "out" / "submission.zip")
    assert (code, out.count(warning), "nothing is wrong" in out) == (0, 1, False), err


def test_a_zip_holds_the_boxes_of_its_run_alone(tmp_path):
    sequence = FrameSequence(
        "a_0", lambda: iter([np.zeros((9, 9, 3), np.uint8)] * 3), 3, None, BOX[None]
    )
    folder, passes = ResultFolder(tmp_path), Passes("one")
    run = SequenceRun(GOOD, np.ones(3), np.ones(3), np.zeros(3, bool))
    folder.write("a_0", run, key_of(sequence, replace(passes, identity="two")))
    with pytest.raises(ValueError, match="no submission: 1 faults, first a_0: no boxes"):
        submission("got10k", [sequence], [], folder, passes)
    folder.write("a_0", run, key_of(sequence, passes))
    with pytest.raises(ValueError, match="no submission: 1 faults, first b_0: broken"):
        submission("got10k", [sequence], ["b_0: broken"], folder, passes)
    assert not (tmp_path / "submission.zip").exists()
    summary, *warnings = submission("got10k", [sequence], [], folder, passes)
    assert (summary.count("1 of 180 sequences"), warnings) == (1, [])


def test_a_run_without_a_sequence_of_the_split_makes_no_zip(tmp_path, spmtrack, tiny_checkpoint):
    MAKE["trackingnet"](tmp_path / "data")
    text(tmp_path / "data" / "TEST" / "anno" / "u_0.txt", "1,2,3,4")  # its frames are missing
    code, out, err = spmtrack(
        *("eval", "trackingnet", "--root", tmp_path / "data", "--weights", tiny_checkpoint),
        *("--output", tmp_path / "out", "--device", "cpu"),
    )
    assert (code, "no submission: 1 faults, first u_0" in err) == (2, True)
    assert f"wrote {tmp_path / 'out' / 'results.json'}" in out  # what was tracked is told first
    assert not (tmp_path / "out" / "submission.zip").exists()
