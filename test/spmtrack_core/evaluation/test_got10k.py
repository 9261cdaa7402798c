"""AO, SR50 and SR75 equal those of the got10k package on a tiny tree of the official layout."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from dataset_trees import images, text

from spmtrack_core.config import DatasetConfig
from spmtrack_core.evaluation.rescore import rescore

OFFICIAL = """
import glob, json, sys
import matplotlib
matplotlib.use("Agg")
from got10k.experiments import ExperimentGOT10k
root, results, reports = sys.argv[1:]
experiment = ExperimentGOT10k(root, subset="val", result_dir=results, report_dir=reports)
experiment.report(["mine"], plot_curves=False) if "plot_curves" in (
    experiment.report.__code__.co_varnames) else experiment.report(["mine"])
print(json.dumps(json.load(open(glob.glob(reports + "/**/performance.json", recursive=True)[0]))))
"""


def package() -> str | None:
    """A Python with the got10k package (and six, which it does not declare)."""
    here = sys.executable if importlib.util.find_spec("got10k") else None
    return os.environ.get("SPMTRACK_GOT10K") or here


def rows(boxes):
    return [",".join(f"{value:.4f}" for value in box) for box in boxes]


def make_tree(root, results, frames=12, resolution="(24, 16)"):
    random = np.random.default_rng(0)
    names = [f"GOT-10k_Val_{number:06d}" for number in (1, 2, 3)]
    for name in names:
        folder = root / "val" / name
        images(folder, [f"{n:08d}.jpg" for n in range(1, frames + 1)])
        truth = np.column_stack(
            [random.uniform(-3, 18, (frames, 2)), random.uniform(3, 9, (frames, 2))]
        )
        found = truth + random.normal(0, 1.5, truth.shape)
        found[:, 2:] = np.maximum(found[:, 2:], 0.5)
        cover = random.integers(0, 9, frames)
        cover[[0, -2, -1]] = 8, 3, 8
        truth[-1, 2:] = 0  # a box without an area counts all the same
        text(folder / "groundtruth.txt", *rows(truth))
        text(folder / "cover.label", *cover)
        text(folder / "absence.label", *(cover == 0).astype(int)[:-2], 1, 0)  # does not count
        text(folder / "cut_by_image.label", *[0] * frames)
        text(
            folder / "meta_info.ini",
            *("[METAINFO]", f"resolution: {resolution}", "anno_fps: 10Hz"),
            *("object_class: cat", "motion_class: walk", "major_class: animal"),
            *("root_class: animal", "motion_adverb: slowly"),
        )
        found[0] = truth[0]
        text(results / "GOT-10k" / "mine" / name / f"{name}_001.txt", *rows(found))
        text(results / "GOT-10k" / "mine" / name / f"{name}_time.txt", *["0.01"] * frames)
    text(root / "val" / "list.txt", *names)


@pytest.mark.skipif(package() is None, reason="no got10k package: SPMTRACK_GOT10K names a Python")
@pytest.mark.parametrize("resolution", ["(24, 16)", "(24.0, 16.0)"])
def test_scores_equal_the_got10k_package(tmp_path, resolution):
    make_tree(tmp_path / "data", tmp_path / "results", resolution=resolution)
    done = subprocess.run(
        [
            *(str(package()), "-c", OFFICIAL, str(tmp_path / "data")),
            *(str(tmp_path / "results"), str(tmp_path / "reports")),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])["mine"]["overall"]
    config = DatasetConfig("got10k", str(tmp_path / "data"), "val")
    found = rescore(config, tmp_path / "results" / "GOT-10k" / "mine", tmp_path / "out")["got10k"]
    assert "boxes clipped to the image" in found["rules"]
    assert found["ao"] == pytest.approx(theirs["ao"], abs=1e-6)
    assert found["sr50"] == pytest.approx(theirs["succ_curve"][50], abs=1e-6)
    assert found["sr75"] == pytest.approx(theirs["succ_curve"][75], abs=1e-6)


def test_only_the_first_and_the_covered_frames_are_left_out(tmp_path):
    name = "GOT-10k_Val_000001"
    folder = tmp_path / "data" / "val" / name
    text(folder / "groundtruth.txt", *["2,3,5,6"] * 4, "2,3,0,6")
    text(folder / "cover.label", 8, 0, 3, 8, 8)
    text(folder / "absence.label", 0, 0, 1, 0, 0)
    text(folder / "meta_info.ini", "[METAINFO]", "resolution: (24.0, 16.0)")
    far = "12,3,5,6"
    text(tmp_path / "mine" / f"{name}.txt", "2,3,5,6", far, far, "2,3,5,6", "2,3,5,6")
    config = DatasetConfig("got10k", str(tmp_path / "data"), "val")
    found = rescore(config, tmp_path / "mine", tmp_path / "out")["got10k"]
    assert "boxes clipped to the image" in found["rules"]
    # of frames 3 to 5: absent, but not covered; right; a true box without an area
    assert (found["ao"], found["sr50"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
