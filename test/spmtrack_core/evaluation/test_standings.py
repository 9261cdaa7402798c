"""Runs side by side: the paper's figures, intervals, and files that are no reports."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import MAKE, make_got10k, make_lasot, text
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.config import DatasetConfig
from spmtrack_core.evaluation import plots
from spmtrack_core.evaluation.rescore import rescore
from spmtrack_core.evaluation.standings import (
    markdown,
    paired_interval,
    read_reports,
    write_standings,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """LaSOT, result files of two trackers, and their reports."""
    root = tmp_path_factory.mktemp("made")
    make_lasot(root / "data")
    for name, shift in (("good", 0), ("bad", 3)):
        rows = (f"{1 + n + (shift if n else 0)},2,5,6" for n in range(3))
        text(root / name / "cat-2.txt", *rows)
        config = DatasetConfig("lasot", str(root / "data"), "test")
        rescore(config, root / name, root / f"out_{name}")
    return root


@pytest.fixture
def runs(tmp_path, made):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "out_bad", tmp_path / "out_good"


def test_runs_stand_beside_the_papers_figures(tmp_path, runs, spmtrack):
    code, out, err = spmtrack("eval", "table", *runs, "--output", tmp_path / "table")
    assert code == 0, err
    assert out.index("good") < out.index("bad") < out.index("SPMTrack-B (paper)")
    assert "74.9" in out
    table = (tmp_path / "table" / "table.md").read_text()
    assert re.search(r"\| lasot test \| good and bad \| \+[\d.]+ \| .* \| 1 \|", table), table
    assert "| SPMTrack-G (paper) | 77.4 | 85.0 | 86.6 |" in table
    assert re.search(r"\| good \|.*\| 1 of 280 \|\n\| bad \|.*\| 1 of 280 \|\n", table), table
    assert r"lasot test (1 of 280) & 63.49" in (tmp_path / "table" / "table.tex").read_text()
    assert (tmp_path / "table" / "lasot-test" / "success.png").stat().st_size > 1000
    assert "other true boxes" not in table


def test_a_table_has_the_scores_of_the_convention_and_of_the_dataset(tmp_path, runs, spmtrack):
    truth = tmp_path / "data" / "cat" / "cat-2" / "groundtruth.txt"
    text(truth, "1,3,5,6", "0,3,5,6", "0,3,5,6")  # the last two are not all positive
    shutil.copytree(tmp_path / "bad", tmp_path / "edge")
    make_got10k(tmp_path / "got10k")
    val = tmp_path / "got10k" / "val" / "GOT-10k_Val_000001"
    text(val / "absence.label", 0, 0, 0)
    text(val / "cover.label", 8, 8, 8)
    text(tmp_path / "mine" / "GOT-10k_Val_000001.txt", *["1.5,2.5,5,6"] * 3)
    for dataset, split, root, name in (
        ("lasot", "test", "data", "edge"),
        ("got10k", "val", "got10k", "mine"),
    ):
        config = DatasetConfig(dataset, str(tmp_path / root), split)
        rescore(config, tmp_path / name, tmp_path / f"out_{name}")
    folders = [tmp_path / f"out_{name}" for name in ("good", "edge", "mine")]
    code, _, err = spmtrack(
        *("eval", "table", *folders, "--output", tmp_path / "t", "--convention", "pytracking")
    )
    assert code == 0, err
    rows, latex = ((tmp_path / "t" / f"table.{kind}").read_text() for kind in ("md", "tex"))
    assert "The runs have other sequences or other true boxes." in rows
    scores = re.search(r"\| edge \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", rows)
    default = json.loads((tmp_path / "out_edge" / "results.json").read_text())["mean"]
    assert scores and scores[1] != f"{100 * default['success_auc']:.2f}"
    assert f"edge & lasot test (1 of 280) & {' & '.join(scores.groups())}" in latex
    assert (
        "AO & SR50 & SR75" in latex and "mine & got10k val (1 of 180) & 100.00 & 100.00" in latex
    )


@pytest.mark.parametrize(
    ("dataset", "paper"),
    [
        ("got10k", "| SPMTrack-B (paper) | 76.5 | 85.9 | 76.3 |"),
        ("trackingnet", "| SPMTrack-B (paper) | 86.1 | 85.6 | 90.2 |"),
    ],
)
def test_a_run_that_a_server_scores_stands_beside_the_papers_figures(
    tmp_path, spmtrack, tiny_checkpoint, dataset, paper
):
    MAKE[dataset](tmp_path / "data")
    run = tmp_path / "run"
    code, _, err = spmtrack(
        *("eval", dataset, "--root", tmp_path / "data", "--output", run),
        *("--weights", tiny_checkpoint, "--device", "cpu"),
    )
    assert code == 0, err
    code, out, err = spmtrack("eval", "table", run, "--output", tmp_path / "table")
    assert code == 0, err
    assert "scored by the server" in out and "SPMTrack-G (paper)" in out
    table, latex = ((tmp_path / "table" / f"table.{kind}").read_text() for kind in ("md", "tex"))
    row = r"\| tiny \w+ \| - \| - \| - \| 1 of \d+, scored by the server \|"
    assert re.search(row, table), table
    assert paper in table
    assert re.search(rf"{dataset} test \(1 of \d+\) & - & - & -", latex), latex


@pytest.mark.parametrize(
    ("dataset", "convention"),
    [
        ("lasot", "official"),  # another toolkit may have another winner
        ("got10k", "spmtrack"),  # the table has AO
        ("trackingnet", "spmtrack"),
    ],
)
def test_the_best_by_the_shown_score_comes_first(runs, dataset, convention):
    bad, good = read_reports(runs)
    assert bad["mean"]["success_auc"] < good["mean"]["success_auc"]
    for report, score in ((bad, 0.9), (good, 0.1)):
        report["dataset"]["name"] = dataset
        report["conventions"]["official"]["auc"] = score
        report["got10k"] = {"ao": score}
        report["trackingnet"]["auc"] = score
    table = markdown([good, bad], convention)
    assert table.index("| bad | 90.00 |") < table.index("| good | 10.00 |")


@pytest.mark.parametrize(
    ("counts", "title"),
    [
        ((80, 80), "success, 80 sequences, "),
        ((80, 75), "success, 75 to 80 sequences, "),
        ((1, 1), "success, 1 sequence, "),
    ],
)
def test_plots_name_the_sequences_behind_the_curves(tmp_path, runs, monkeypatch, counts, title):
    reports = read_reports(runs)
    for report, count in zip(reports, counts, strict=True):
        report["dataset"]["sequences"] = count
    titles = {}

    def keep(path, figure):
        titles[path.name] = figure.axes[0].get_title()

    monkeypatch.setattr(plots, "save", keep)
    write_standings(tmp_path / "table", reports)
    assert titles["success.png"].startswith(title)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "expected the output folder of spmtrack eval"),
        ("{", "is no report of this version"),
        ("[]", "is no report of this version"),
        (json.dumps({"tracker": "a", "sequences": [{}]}), "is no report of this version"),
    ],
)
def test_what_is_no_report_is_named(tmp_path, content, match):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        read_reports([tmp_path])


@pytest.mark.parametrize("output", ["out_good", "out_bad", "by-dataset"])
def test_no_file_of_a_run_is_replaced(tmp_path, runs, spmtrack, output):
    # plots are below the output, in a folder named after the dataset
    shutil.move(runs[1], tmp_path / "by-dataset" / "lasot-test")
    shutil.copytree(tmp_path / "by-dataset" / "lasot-test", runs[1])
    before = content(tmp_path)
    code, _, err = spmtrack("eval", "table", *runs, "--output", tmp_path / output)
    assert (code, "holds a run of spmtrack eval; choose another output" in err) == (2, True), err
    assert content(tmp_path) == before


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_output_that_cannot_be_written_is_named_before_the_table(tmp_path, runs, spmtrack):
    (tmp_path / "file").touch()
    code, out, err = spmtrack("eval", "table", *runs, "--output", tmp_path / "file" / "table")
    assert (code, out) == (2, "") and "table.md cannot be written" in err


def test_a_table_that_cannot_be_completed_leaves_the_old_one(tmp_path, runs, monkeypatch):
    reports = read_reports(runs)
    write_standings(tmp_path / "table", reports)
    before = (tmp_path / "table" / "table.md").read_bytes()
    write_text = Path.write_text

    def fail(path, data, **options):
        write_text(path, data[:10], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="cannot be written: No space left"):
        write_standings(tmp_path / "table", reports)
    assert (tmp_path / "table" / "table.md").read_bytes() == before


def test_names_that_are_no_texts_are_shown_escaped(tmp_path, made, spmtrack):
    name = b"caf\xe9 $x^$".decode(errors="surrogateescape")
    shutil.copytree(made / "good", tmp_path / name)
    config = DatasetConfig("lasot", str(made / "data"), "test")
    rescore(config, tmp_path / name, tmp_path / "run")
    code, out, err = spmtrack("eval", "table", tmp_path / "run", "-o", tmp_path / "table")
    assert code == 0, err
    assert "caf" in out
    shown = r"caf\udce9 $x^$"
    assert f"| {shown} |" in (tmp_path / "table" / "table.md").read_text()
    latex = (tmp_path / "table" / "table.tex").read_text()
    assert r"caf\textbackslash{}udce9 \$x\textasciicircum{}\$ &" in latex
    assert f"# {shown} on lasot test" in (tmp_path / "run" / "table.md").read_text()


@pytest.mark.parametrize(
    ("folders", "names", "reason"),
    [
        (["out/lasot", "out/window"], ["lasot", "window"], "side by side"),
        (["a/lasot", "b/lasot"], ["a/lasot", "b/lasot"], "the last names are alike, too"),
        (["out", "out/window"], ["out", "out/window"], "one in the other"),
    ],
)
def test_two_runs_of_one_tracker_are_told_apart_by_their_folders(
    tmp_path, runs, spmtrack, monkeypatch, folders, names, reason
):
    for folder, run in zip(folders, runs, strict=True):
        report = json.loads((run / "results.json").read_text()) | {"tracker": "b 1"}
        text(tmp_path / folder / "results.json", json.dumps(report))
    monkeypatch.chdir(tmp_path)
    code, _, err = spmtrack("eval", "table", *folders, "--output", "table")
    assert code == 0, err
    table = Path("table", "table.md").read_text()
    assert f"| b 1 ({names[1]}) and b 1 ({names[0]}) | +" in table, reason
    assert Path("table", "table.tex").read_text().count("b 1 (") == 2


@pytest.mark.parametrize("second", ["out_bad", "copy"])
def test_the_same_run_twice_is_an_error(tmp_path, runs, spmtrack, second):
    shutil.copytree(runs[0], tmp_path / "copy")
    code, _, err = spmtrack("eval", "table", runs[0], tmp_path / second)
    assert (code, "hold the same run of bad on lasot test; leave one" in err) == (2, True)


def test_another_convention_is_an_error(runs, spmtrack):
    code, _, err = spmtrack("eval", "table", *runs, "--convention", "vot")
    assert (code, "convention must be one of" in err) == (2, True)


@given(st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=30))
def test_an_interval_holds_the_difference(differences):
    a = {str(n): 0.5 + value for n, value in enumerate(differences)}
    b = {str(n): 0.5 for n in range(len(differences))}
    mean, low, high, count = paired_interval(a, b)
    assert count == len(differences)
    assert low <= mean + 1e-9 and mean - 1e-9 <= high
    backwards = paired_interval(b, a)
    np.testing.assert_allclose(backwards[1:3], [-high, -low], atol=1e-9)


def test_runs_without_a_common_sequence_cannot_be_compared():
    with pytest.raises(ValueError, match="no sequence in common"):
        paired_interval({"a": 1.0}, {"b": 1.0})
