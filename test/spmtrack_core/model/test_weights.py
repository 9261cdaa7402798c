"""Checkpoints: what goes in comes out, and what is broken is named."""

from __future__ import annotations

import pytest
import torch
from golden_model import golden_config, golden_model, golden_tensors
from safetensors.torch import save_file

from spmtrack_core.config import TrackerConfig
from spmtrack_core.model.weights import (
    from_published,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
)


def test_a_checkpoint_brings_back_tensors_settings_and_story(tmp_path):
    name = "model_shared_expert_params"
    model, config = golden_model(name), golden_config(name)
    tracker = TrackerConfig(window_weight=0.3)
    save_checkpoint(tmp_path / "a.safetensors", model, config, tracker, {"made": "by a test"})
    loaded, loaded_config, loaded_tracker, story = load_checkpoint(tmp_path / "a.safetensors")
    assert (loaded_config, loaded_tracker, story) == (config, tracker, {"made": "by a test"})
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path, tiny_checkpoint):
    model, config, tracker, _ = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path / "half.safetensors", model, config, tracker, half=True)
    size = (tmp_path / "half.safetensors").stat().st_size
    assert size < 0.7 * tiny_checkpoint.stat().st_size
    loaded = load_checkpoint(tmp_path / "half.safetensors")[0]
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda data: data[: len(data) // 2], "not a complete safetensors file"),
        (lambda data: b"", "not a complete safetensors file"),
        (lambda data: b"\x80\x04nonsense" * 9, "not a complete safetensors file"),
        (lambda data: data.replace(b"spmtrack-1", b"spmtrack-9"), "is no spmtrack-1 checkpoint"),
        (lambda data: data.replace(b'\\"rank\\"', b'\\"renk\\"'), "unknown key 'renk'"),
    ],
    ids=["truncated", "empty", "pickle", "another format", "unknown setting"],
)
def test_a_broken_file_is_named(tmp_path, tiny_checkpoint, damage, match):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(damage(tiny_checkpoint.read_bytes()))
    with pytest.raises(ValueError, match=match) as error:
        load_checkpoint(path)
    assert "broken.safetensors" in str(error.value)


def test_a_foreign_safetensors_file_and_a_missing_one_are_named(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"foreign\.safetensors is no"):
        load_checkpoint(tmp_path / "foreign.safetensors")
    with pytest.raises(FileNotFoundError, match="absent"):
        load_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.golden
def test_missing_unexpected_and_misshaped_tensors_are_listed():
    tensors = from_published(golden_tensors("model_default_params"))
    del tensors["target_token"]
    tensors["surprise"] = torch.zeros(1)
    tensors["token_types"] = torch.zeros(2, 64)
    with pytest.raises(ValueError) as error:
        load_tensors(golden_model("model_default_params"), tensors, "some file")
    text = str(error.value)
    assert "missing: target_token" in text
    assert "unexpected: surprise" in text
    assert "token_types (2, 64) instead of (3, 64)" in text
