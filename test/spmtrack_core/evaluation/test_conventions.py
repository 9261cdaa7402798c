"""Scores equal those of the toolkits: on the committed edge cases, and on real ones where given.

``test/golden/evaluation`` holds made-up boxes with the scores that the toolkits gave them.
``SPMTRACK_EVALUATION_CASES`` may name a folder of more cases: ``truth/``, ``results/`` and
``expected.json``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.data.sequence import read_boxes
from spmtrack_core.evaluation.conventions import (
    CONVENTIONS,
    RULES,
    Rules,
    curves,
    got10k_overlaps,
    got10k_scores,
    trackingnet_scores,
)

EDGES = Path(__file__).parents[2] / "golden" / "evaluation"
MORE = os.environ.get("SPMTRACK_EVALUATION_CASES")
DATASETS = {
    "lasot": "lasot",
    "LaSOT": "lasot",
    "lasot_extension_subset": "lasot_ext",
    "LaSOT_Extension": "lasot_ext",
    "otb": "otb2015",
    "TNL2K": "tnl2k",
    "uav": "uav123",
    "UAV123": "uav123",
}
BOX = [10.0, 10.0, 20.0, 20.0]
AWAY = [200.0, 200.0, 20.0, 20.0]
NAN = [np.nan] * 4
ZERO = [0.0] * 4


def cases(folder: Path):
    for name, expected in json.loads((folder / "expected.json").read_text()).items():
        scores = expected.get("AUC P Pnorm by", expected)
        for toolkit, score in scores.items():
            if toolkit != "image_wh":
                yield pytest.param(folder, name, toolkit, expected["image_wh"], score)


def toolkit_scores(toolkit, predicted, truth, absent, image_wh):
    """Our scores in the order of the expected ones."""
    if toolkit.startswith("got10k 0.1.3 AO"):
        return got10k_scores(got10k_overlaps(predicted, truth, absent, image_wh)).values()
    if "ExperimentOTB" in toolkit:  # as spmtrack, but its first box is the true one
        first_true = np.concatenate([truth[:1], predicted[1:]])
        found = curves("spmtrack", first_true, truth, absent).scores()
        return [found["auc"], found["precision"]]
    if toolkit.startswith("matlab"):
        return curves("official", predicted, truth, absent).scores().values()
    convention, dataset = toolkit.split("/")
    rules = RULES.get(DATASETS[dataset], Rules())
    return curves(convention, predicted, truth, absent, rules).scores().values()


@pytest.mark.golden
@pytest.mark.parametrize(
    ("folder", "name", "toolkit", "image_wh", "expected"),
    [*cases(EDGES), *(cases(Path(MORE)) if MORE else ())],
)
def test_scores_equal_the_toolkits(folder, name, toolkit, image_wh, expected):
    truth = read_boxes(folder / "truth" / f"{name}.txt")
    predicted = read_boxes(folder / "results" / f"{name}.txt")
    absent = np.isnan(truth).any(1)
    truth[absent] = 0  # what the toolkits were given
    arguments = toolkit, predicted, truth, absent, image_wh
    if isinstance(expected, list):
        np.testing.assert_allclose(list(toolkit_scores(*arguments)), expected, atol=1e-6)
    elif len(predicted) > len(truth):
        # where the toolkit ends in an error, the boxes beyond the truth do not count
        shorter = toolkit, predicted[: len(truth)], truth, absent, image_wh
        assert list(toolkit_scores(*arguments)) == list(toolkit_scores(*shorter))
    else:
        with pytest.raises(ValueError, match="an error by"):
            toolkit_scores(*arguments)


@pytest.mark.parametrize(
    ("convention", "second", "truth", "expected", "reason"),
    [
        ("spmtrack", ZERO, BOX, (10 / 21, 0.5, 0.5), "an empty box fails"),
        ("ostrack", ZERO, BOX, (20 / 21, 1, 1), "an empty box becomes the one before it"),
        ("spmtrack", BOX, ZERO, (10 / 21, 0.5, 1), "without a truth: -1 passes Pnorm alone"),
        ("official", BOX, ZERO, (10 / 21, 1, 1), "without a truth: -1 passes both"),
        ("pytracking", [0, 10, 20, 20], [0, 10, 20, 20], (10 / 21, 0.5, 1), "x is not positive"),
        ("ostrack", [0, 10, 20, 20], [0, 10, 20, 20], (20 / 21, 1, 1), "but w and h are"),
        ("spmtrack", NAN, BOX, (10 / 21, 0.5, 0.5), "NaN fails"),
        ("official", NAN, BOX, (20 / 21, 1, 1), "NaN becomes the box before it"),
        ("spmtrack", AWAY, BOX, (10 / 21, 0.5, 0.5), "nothing shared"),
    ],
)
def test_the_rules_for_one_frame(convention, second, truth, expected, reason):
    found = curves(convention, np.array([BOX, second]), np.array([BOX, truth])).scores()
    np.testing.assert_allclose(list(found.values()), expected, err_msg=reason)


@pytest.mark.parametrize(
    ("dataset", "expected", "reason"),
    [
        ("lasot", (10 / 21, 0.5, 0.5), "a flagged frame fails all"),
        ("lasot_ext", (10 / 21, 0.5, 1), "a flagged frame passes Pnorm"),
        ("tnl2k", (20 / 21, 1, 1), "flags do not count"),
    ],
)
def test_flags_of_absence_count_for_some_datasets(dataset, expected, reason):
    boxes, absent = np.array([BOX, BOX]), np.array([False, True])
    found = curves("spmtrack", boxes, boxes, absent, RULES.get(dataset, Rules())).scores()
    np.testing.assert_allclose(list(found.values()), expected, err_msg=reason)


def test_an_unknown_convention_names_the_known_ones():
    with pytest.raises(ValueError, match="one of spmtrack, ostrack, pytracking, official"):
        curves("vot", np.array([BOX]), np.array([BOX]))


@pytest.mark.filterwarnings("error")
def test_got10k_needs_no_finite_boxes():
    overlaps = got10k_overlaps(np.array([BOX, [np.inf] * 4, [1e200] * 4]), np.array([BOX] * 3))
    assert overlaps.tolist() == [0, 0]


def test_trackingnet_counts_perfect_boxes_fully():
    truth = np.random.default_rng(0).uniform(1, 300, (50, 4))
    assert trackingnet_scores(truth, truth) == {
        "auc": 1.0,
        "precision": 1.0,
        "normalized_precision": 1.0,
    }
    half = trackingnet_scores(truth[:25], truth)
    assert half["auc"] == pytest.approx(0.5)  # missing lines fail, without an error


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(CONVENTIONS)))
def test_curves_are_monotonous_shares(seed, convention):
    random = np.random.default_rng(seed)
    truth = random.uniform(1, 100, (12, 4))
    predicted = truth + random.normal(0, 3, (12, 4))
    predicted[:, 2:] = np.abs(predicted[:, 2:])
    found = curves(convention, predicted, truth)
    for curve in found:
        assert (0 <= curve).all()
        assert (curve <= 1).all()
    assert (np.diff(found.success) <= 0).all()
    assert (np.diff(found.precision) >= 0).all()
    assert (np.diff(found.normalized) >= 0).all()
