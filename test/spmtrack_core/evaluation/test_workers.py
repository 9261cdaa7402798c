"""Several processes on one evaluation, and the commands that track nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dataset_trees import make_lasot, make_uav123

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.recording import write_image
from spmtrack_core.data.sequence import FrameSequence, read_boxes
from spmtrack_core.evaluation.rescore import check_dataset
from spmtrack_core.evaluation.workers import Rank, longest_first


def make_folder(root, frames):
    for name, count in frames.items():
        for index in range(count):
            write_image(root / name / f"{index}.png", np.full((60, 80, 3), 90, np.uint8))
        (root / name / "groundtruth.txt").write_text("9,9,20,20\n" * count)


def evaluate(spmtrack, tmp_path, weights, output, *more):
    return spmtrack(
        *("eval", "folder", "--root", tmp_path / "data", "--weights", weights, "--device", "cpu"),
        *("--output", tmp_path / output, *more),
    )


def test_processes_and_ranks_find_the_same_boxes(tmp_path, spmtrack, tiny_checkpoint, monkeypatch):
    make_folder(tmp_path / "data", {"a": 3, "b": 5, "c": 4})
    (tmp_path / "data" / "b" / "3.png").write_bytes(b"")
    for output, more in (("one", ()), ("two", ("--processes", 2, "--batch", 2))):
        code, _, err = evaluate(spmtrack, tmp_path, tiny_checkpoint, output, *more)
        assert code == 3 and "b: frame 4: " in err and "2 of 3 sequences" in err
    names = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    for rank in ("1", "0"):  # one after the other: the second finds all done, and reports
        for name, value in (names | {"RANK": rank}).items():
            monkeypatch.setenv(name, value)
        code, out, _ = evaluate(spmtrack, tmp_path, tiny_checkpoint, "ranks")
        assert (code, "wrote" in out) == ((0, False) if rank == "1" else (3, True))
    for name in ("a", "c"):
        one, two, ranks = (
            read_boxes(tmp_path / o / "boxes" / f"{name}.txt") for o in ("one", "two", "ranks")
        )
        np.testing.assert_array_equal(one, ranks)
        np.testing.assert_allclose(one, two, atol=2e-3)  # two at once: other roundings
    reports = [json.loads((tmp_path / o / "results.json").read_text()) for o in ("one", "two")]
    assert reports[0]["mean"]["success_auc"] == reports[1]["mean"]["success_auc"]
    assert [report["speed"]["batch"] for report in reports] == [[1], [2]]
    assert reports[0]["dataset"] == reports[1]["dataset"]


def test_settings_are_of_the_run_and_reported(tmp_path, spmtrack, tiny_checkpoint):
    make_folder(tmp_path / "data", {"a": 3})
    more = ("--as", "paper", "--precision", "float32", "tracker.window_weight=0.2")
    code, out, err = evaluate(spmtrack, tmp_path, tiny_checkpoint, "out", *more)
    assert code == 0, err
    assert "not as the recipe says: tracker.window_weight: 0.2 (instead of 0.45)" in " ".join(
        out.split()
    )
    run = json.loads((tmp_path / "out" / "results.json").read_text())["run"]
    assert run["settings"]["tracker.window_weight"] == 0.2
    assert len(run["weights_sha256"]) == 64 and run["recipe"] == "paper"
    # other settings are another run: nothing is taken over, or replaced unless asked for
    note = tmp_path / "out" / "done" / "a.json"
    before, other = note.read_text(), "tracker.window_weight=0.3"
    for more in ((), ("--processes", 2)):
        code, _, err = evaluate(spmtrack, tmp_path, tiny_checkpoint, "out", other, *more)
        assert (code, err.count("\n")) == (2, 1)
        assert "holds a of another run" in err and "--fresh to replace" in err
    assert note.read_text() == before
    code, _, err = evaluate(spmtrack, tmp_path, tiny_checkpoint, "out", other, "--fresh")
    assert (code, note.read_text() == before) == (0, False), err


def test_results_below_the_sequences_are_no_sequence(tmp_path, spmtrack, tiny_checkpoint):
    make_folder(tmp_path / "data", {"a": 3, "more/b": 3})
    output = tmp_path / "data" / "more"  # a folder of sequences, too
    for missing in ("", "results.json", ""):  # without it: interrupted after the plots
        code, _, err = evaluate(spmtrack, tmp_path, tiny_checkpoint, output)
        assert code == 0, err
        report = json.loads((output / "results.json").read_text())
        assert [row["sequence"] for row in report["sequences"]] == ["a", "b"]
        assert (output / "success.png").is_file()
        if missing:
            (output / missing).unlink()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Rank(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Rank(3, 8, 1)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "2"}, Rank(2, 4, 2)),
        ({"RANK": "x", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Rank(0, 1, 0)),
    ],
)
def test_the_rank_is_read_from_the_environment(monkeypatch, environment, expected):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Rank.of_environment() == expected


@pytest.mark.parametrize(
    ("names", "processes", "error"),
    [
        ({"SLURM_PROCID": "0"}, 8, "no folder at"),  # a batch script without srun
        ({"SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}, 8, "without torchrun and srun"),
        ({"SLURM_PROCID": "3"}, 8, "without torchrun and srun"),
        ({"SLURM_PROCID": "0", "RANK": "0"}, 8, "without torchrun and srun"),
        ({"SLURM_PROCID": "3", "SLURM_STEP_ID": "0"}, 1, "no folder at"),
    ],
)
def test_a_batch_script_may_have_processes_of_its_own(
    tmp_path, spmtrack, monkeypatch, names, processes, error
):
    others = {"SLURM_LOCALID": "0", "SLURM_NTASKS": "8"}
    others |= {"LOCAL_RANK": "0", "WORLD_SIZE": "8"} if "RANK" in names else {}
    for name, value in (names | others).items():
        monkeypatch.setenv(name, value)
    code, _, err = evaluate(spmtrack, tmp_path, "nano", "out", "--processes", processes)
    assert (code, error in err) == (2, True), err
    assert Rank.of_environment() == Rank(int(names["SLURM_PROCID"]), 8, 0)


def test_the_longest_come_first():
    sequences = [FrameSequence(str(n), lambda: iter(()), n) for n in (2, 9, 5)]
    assert [each.name for each in longest_first(sequences)] == ["9", "5", "2"]


def test_check_verifies_without_tracking(tmp_path, spmtrack):
    make_uav123(tmp_path)
    code, out, _ = spmtrack("eval", "uav123", "--root", tmp_path, "--check")
    assert code == 3
    assert "uav123 test: 3 sequences, 8 frames" in out
    assert "wrong: 3 sequences on disk; the dataset has 123" in out
    (tmp_path / "data_seq" / "UAV123" / "car1" / "000005.jpg").unlink()
    _, out, _ = spmtrack("eval", "uav123", "--root", tmp_path, "--check")
    assert "car1 has 4 images; car1_2 needs 3 to 5" in out


@pytest.mark.parametrize(
    ("exclude", "only", "counted"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
def test_a_part_of_a_split_is_not_counted(tmp_path, exclude, only, counted):
    make_uav123(tmp_path)
    (tmp_path / "names.txt").write_text("car1_2\n")
    names = str(tmp_path / "names.txt")
    config = DatasetConfig(
        "uav123", str(tmp_path), "test", names if exclude else None, names if only else None
    )
    _, faults = check_dataset(config)
    assert faults == ["3 sequences on disk; the dataset has 123"] * counted


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["lasot"], "--output is missing"),
        (["lasot", "--check"], "--check needs --root"),
        (["lasot", "--rescore", "x", "--output", "out"], "--rescore needs --root"),
        (["lasot", "--root", "data", "--rescore", "x", "--output", "out"], "no folder or zip"),
        (["lasot", "a=1", "--rescore", "x", "--output", "out"], "--rescore tracks nothing"),
        (["lasot", "--root", "data", "--output", "out", "--as", "papers"], "no recipe 'papers'"),
        (
            ["lasot", "--root", "data", "--output", "out", "--attributes", "none"],
            "expected one file a sequence with 14 flags",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(tmp_path, spmtrack, monkeypatch, arguments, match):
    monkeypatch.chdir(tmp_path)
    make_lasot(tmp_path / "data")
    code, _, err = spmtrack("eval", *arguments)
    assert code == 2
    assert match in err.splitlines()[-1]


def test_attributes_are_read_from_the_toolkits_files(tmp_path, spmtrack, tiny_checkpoint):
    make_lasot(tmp_path / "data")
    (tmp_path / "att").mkdir()
    (tmp_path / "att" / "cat-2.txt").write_text(",".join("1" + "0" * 12 + "1"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cat-2.txt").write_text("1,2,5,6\n" * 3)
    code, _, err = spmtrack(
        *("eval", "lasot", "--root", tmp_path / "data", "--rescore", tmp_path / "mine"),
        *("--attributes", tmp_path / "att", "--output", tmp_path / "out"),
    )
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(report["attributes"]) == ["ARC", "IV"]
    assert (tmp_path / "out" / "attributes.png").stat().st_size > 1000
