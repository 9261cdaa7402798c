"""The precision of a run: what is rounded, and what is not."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from tiny_model import TINY

from spmtrack_core.model.spmtrack import build_spmtrack
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.optim import adamw, muon
from spmtrack_core.training.processes import Autocast, make_fabric
from spmtrack_core.training.step import TrackingLoss


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Two searches of four tracks; bfloat16 would round 45.37 px to 45.25."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 3, 32, 32), torch.randn(4, 2, 3, 64, 64)
    boxes = torch.tensor([12.62, 13.37, 45.37, 49.62]).expand(4, 2, 4)
    return Batch(images[0], torch.ones(4, 3, 2, 2), images[1], boxes)


def losses(precision: str, batch: Batch) -> tuple[list, torch.dtype, dict[str, float]]:
    """What the network gets, the dtype that its linear layers compute, and the terms."""
    fabric = make_fabric(TrainConfig(device="cpu", precision=precision))
    torch.manual_seed(0)
    network = TrackingLoss(build_spmtrack(TINY))
    given, computed = [], []
    network.register_forward_pre_hook(lambda _, arguments: given.extend(arguments))
    linear = network.model.trunk.blocks[0].attn.proj
    linear.register_forward_hook(lambda *call: computed.append(call[2].dtype))
    terms = fabric.setup_module(network)(batch, torch.tensor([301.0, 299.0]))
    return given, computed[0], {name: float(term.detach()) for name, term in terms.items()}


def test_half_precision_rounds_neither_boxes_nor_divisors(batch):
    """Labels, divisors and the boxes of the loss agree, and the loss is that of float32."""
    given, computed, terms = losses("bfloat16", batch)
    assert computed == torch.bfloat16
    seen, counts = given
    for tensor, whole in zip((*seen, counts), (*batch, torch.tensor([301.0, 299.0])), strict=True):
        assert tensor.dtype == torch.float32 and torch.equal(tensor, whole)
    _, computed, expected = losses("float32", batch)
    assert computed == torch.float32
    assert terms == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("make", [adamw, muon])
def test_scaled_gradients_can_be_clipped(make, batch):
    """A step of float16 with the optimizer of a GPU; its gradient scaler works on a CPU too."""
    fabric = Fabric(accelerator="cpu", devices=1, plugins=Autocast("16-mixed", "cpu"))
    model = build_spmtrack(TINY)
    network = fabric.setup_module(TrackingLoss(model))
    config = TrainConfig(precision="float16")
    trainable = dict(model.named_parameters())
    optimizer = fabric.setup_optimizers(make(trainable, config, torch.device("cuda")))
    before = model.target_token.detach().clone()
    fabric.backward(network(batch)["loss"])
    assert fabric.clip_gradients(network, optimizer, max_norm=1.0).isfinite()
    optimizer.step()
    assert not torch.equal(model.target_token, before)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"devices": 2},
            r"cuda:1 is a single one, but devices 2 \* nodes 1 need 2: set device=cuda",
        ),
        (
            {"nodes": 2},
            r"cuda:1 is a single one, but devices 1 \* nodes 2 need 2: set device=cuda",
        ),
        ({"devices": 3}, "devices must be at most 2, the GPUs of this machine; got 3"),
    ],
)
def test_processes_that_one_gpu_cannot_have(monkeypatch, change, match):
    """They would silently start on GPU 0."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = TrainConfig(device="cuda:1", batch_size=6, **change)
    with pytest.raises(ValueError, match=match):
        make_fabric(config)
