"""A removed part has no effect on tracking any more; all other parts keep theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dataset_trees import make_trackingnet
from torch import nn
from torch.nn import functional as F

from benchmarks.ablation import ablation, ablations, average_the_experts
from spmtrack_core.model.tmoe import TMoELinear

FRAMES = np.random.default_rng(0).integers(0, 256, (7, 60, 80, 3), np.uint8)
BOX = (20.0, 15.0, 24.0, 18.0)


@pytest.fixture
def passes(tiny_checkpoint, request):
    """References and states of every pass of the network."""
    tracker = ablations(tiny_checkpoint, "cpu")[request.param]
    network = tracker.tracker.engine.model.network
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1:]))
    tracker.init(FRAMES[0], BOX)
    for frame in FRAMES[1:]:
        tracker.update(frame)
    return seen


@pytest.mark.parametrize("passes", ["template alone"], indirect=True)
def test_template_alone_fills_all_reference_slots(passes):
    for references, _ in passes:
        for slot in references[0]:
            torch.testing.assert_close(slot, passes[0][0][0, 0], rtol=0, atol=0)
    assert passes[-1][1].abs().sum() > 0


@pytest.mark.parametrize("passes", ["no state token"], indirect=True)
def test_no_state_token_passes_to_the_next_frame(passes):
    assert all(not state.any() for _, state in passes)
    assert not torch.equal(passes[-1][0][0, 0], passes[-1][0][0, 2])


def test_a_split_that_a_server_scores_is_refused(tmp_path):
    make_trackingnet(tmp_path)
    with pytest.raises(ValueError, match="only its server can score"):
        ablation("trackingnet", tmp_path / "out", tmp_path)


@torch.no_grad()
def test_without_routing_the_mean_of_the_experts_is_applied():
    torch.manual_seed(0)
    part = TMoELinear(nn.Linear(12, 10), rank=3, experts=4, scaling=0.5)
    nn.init.normal_(part.experts)
    x = torch.randn(2, 5, 12)
    routed = part(x)
    average_the_experts(nn.Sequential(part))
    mean = part.experts.mean(1)  # (out, rank)
    expected = F.linear(x, part.weight, part.bias) + 0.5 * x @ (mean @ part.down[0]).t()
    torch.testing.assert_close(part(x), expected)
    assert not torch.allclose(routed, expected, atol=0.1)
