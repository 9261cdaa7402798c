"""Positive cells against the published rule, for any leading shape."""

from __future__ import annotations

import json

import pytest
import torch
from golden_model import GOLDEN

from spmtrack_core.training.targets import cells_of

LABELS = json.loads((GOLDEN / "labels.json").read_text())


@pytest.mark.golden
@pytest.mark.parametrize("case", LABELS, ids=lambda case: case["name"])
def test_positive_cells(case, parity):
    box = torch.tensor(case["box"], dtype=torch.float64)
    cells = cells_of(box, tuple(case["search_wh"][::-1]), tuple(case["map_wh"][::-1]))
    parity.equal(
        "labels",
        "positive cells",
        cells.flatten().nonzero()[:, 0],
        case["positive"] or [],
        case["name"],
    )


def test_any_leading_shape():
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0], [16.0, 0.0, 48.0, 17.0]]).expand(5, 2, 4)
    cells = cells_of(boxes, (32, 48), (2, 3))
    assert cells.shape == (5, 2, 2, 3)
    assert cells[4].int().tolist() == [[[1, 0, 0], [0, 0, 0]], [[0, 1, 1], [0, 1, 1]]]
