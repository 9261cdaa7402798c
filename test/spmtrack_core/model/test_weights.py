"""Checkpoints: saved and loaded without loss, and faults named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from golden_model import golden_config, golden_model
from safetensors import SafetensorError
from safetensors.torch import save_file

from spmtrack_core.config import TrackerConfig
from spmtrack_core.model import weights
from spmtrack_core.model.tensors import check_finite, read_tensors
from spmtrack_core.model.weights import (
    Checkpoint,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
)
from spmtrack_core.runtimes.description import ENTRY


def test_a_checkpoint_restores_tensors_settings_and_provenance(tmp_path):
    name = "model_shared_expert_params"
    model, config = golden_model(name), golden_config(name)
    tracker = TrackerConfig(window_weight=0.3)
    saved = Checkpoint(model, config, tracker, {"made": "by a test"})
    save_checkpoint(tmp_path / "a.safetensors", saved)
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    loaded = checkpoint.model
    assert (checkpoint.model_config, checkpoint.tracker_config) == (config, tracker)
    assert checkpoint.provenance == {"made": "by a test"}
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path, tiny_checkpoint):
    checkpoint = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path / "half.safetensors", checkpoint, dtype=torch.float16)
    size = (tmp_path / "half.safetensors").stat().st_size
    assert size < 0.7 * tiny_checkpoint.stat().st_size
    loaded = load_checkpoint(tmp_path / "half.safetensors").model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda data: data[: len(data) // 2], "not a complete safetensors file"),
        (lambda data: b"", "neither a safetensors file nor one of torch"),
        (lambda data: b"<!doctype html>" + data, "neither a safetensors file nor one of torch"),
        (lambda data: b"\x80\x04nonsense" * 9, "not a complete torch file: Unsupported oper"),
        (lambda data: b"PK\x03\x04" + data, "not a complete torch file"),
        (lambda data: data.replace(b"spmtrack-1", b"spmtrack-9"), "is neither a spmtrack-1"),
        (lambda data: data.replace(b'\\"rank\\"', b'\\"renk\\"'), "unknown key 'renk'"),
    ],
    ids=["truncated", "empty", "web page", "pickle", "zip", "another format", "unknown setting"],
)
def test_a_broken_file_is_named(tmp_path, tiny_checkpoint, damage, match):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(damage(tiny_checkpoint.read_bytes()))
    with pytest.raises(ValueError, match=match) as error:
        load_checkpoint(path)
    assert "broken.safetensors" in str(error.value)


HUGE = {"embed_dim": 10**18, "num_heads": 1}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda about: about.update(model=None), "model must be dict; got NoneType"),
        (lambda about: about.update(model=[1]), "model must be dict; got list"),
        (lambda about: about.update(tracker=3), "tracker must be dict; got int"),
        (lambda about: about.update(provenance="mine"), "provenance must be dict; got str"),
        (lambda about: about.update(trunk=["a"]), "trunk must be str; got list"),
        (lambda about: about["model"].update(HUGE), "settings that cannot be used"),
        (lambda about: about["model"].update(embed_dim=10**30), "settings that cannot be used"),
        (lambda about: "[" * 100_000, "they are not JSON"),
    ],
)
def test_damaged_settings_are_named(tmp_path, tiny_checkpoint, change, match):
    tensors, metadata = read_tensors(tiny_checkpoint)
    about = json.loads(metadata[ENTRY])
    text = change(about) or json.dumps(about)
    save_file(tensors, tmp_path / "damaged.safetensors", {ENTRY: text})
    with pytest.raises(ValueError, match=match) as error:
        load_checkpoint(tmp_path / "damaged.safetensors")
    assert "damaged.safetensors" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.fill_(torch.nan), r"is not finite: target_token$"),
        (lambda t: t.fill_(-torch.inf), r"is not finite: target_token$"),
        (lambda t: t.to(torch.complex64), r"or bfloat16: target_token$"),
        (lambda t: t.to(torch.int64), r"or bfloat16: target_token$"),
        (lambda t: t.to(torch.float8_e4m3fn), r"or bfloat16: target_token$"),
    ],
)
@pytest.mark.parametrize("adapters_only", [False, True])
def test_tensors_that_are_no_weights_are_named(
    tmp_path, tiny_checkpoint, change, match, adapters_only
):
    path = tmp_path / "odd.safetensors"
    save_checkpoint(path, load_checkpoint(tiny_checkpoint), adapters_only=adapters_only)
    tensors, metadata = read_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    tensors["target_token"] = change(tensors["target_token"])
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=rf"odd\.safetensors .*{match}"):
        load_checkpoint(path, tiny_checkpoint if adapters_only else None)


def test_a_trunk_that_is_not_finite_is_named(tmp_path, tiny_checkpoint):
    few, full = tmp_path / "few.safetensors", tmp_path / "full.safetensors"
    save_checkpoint(few, load_checkpoint(tiny_checkpoint), adapters_only=True)
    tensors, metadata = read_tensors(tiny_checkpoint)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    tensors["trunk.pos_embed"].fill_(torch.nan)
    save_file(tensors, full, metadata)
    with pytest.raises(ValueError, match=r"full\.safetensors is not finite: trunk\.pos_embed"):
        load_checkpoint(few, full)


def test_numbers_whose_sum_is_infinite_are_finite():
    check_finite({"large": torch.full((9,), 3e38)}, "weights")


def test_a_foreign_safetensors_file_and_a_missing_one_are_named(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"foreign\.safetensors is neither"):
        load_checkpoint(tmp_path / "foreign.safetensors")
    with pytest.raises(FileNotFoundError, match="absent"):
        load_checkpoint(tmp_path / "absent.safetensors")


class Hostile:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("function", "argument"),
    [(exec, "raise SystemExit('code of the file was run')"), (os.system, "echo code was run >&2")],
)
def test_a_file_that_would_run_code_is_rejected(tmp_path, capfd, function, argument, zipped):
    content = {"track_query": torch.zeros(1), "x": Hostile(function, (argument,))}
    torch.save(content, tmp_path / "evil.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.bin is damaged or contains more than tensors"):
        load_checkpoint(tmp_path / "evil.bin")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([torch.zeros(1)], "contains a list, expected tensors by name"),
        ({"network": {"a": torch.zeros(1)}}, "is the state of a run"),
        ({"track_query": "text"}, "contains a str at track_query, expected a tensor"),
        ({"pos_embed": torch.zeros(1)}, "is neither a spmtrack-1 checkpoint nor"),
    ],
)
def test_a_torch_file_without_weights_is_named(tmp_path, content, match):
    torch.save(content, tmp_path / "other.bin")
    with pytest.raises(ValueError, match=rf"other\.bin {match}"):
        load_checkpoint(tmp_path / "other.bin")


def test_missing_unexpected_and_misshaped_tensors_are_listed():
    model = golden_model("model_default_params")
    tensors = dict(model.state_dict())
    del tensors["target_token"]
    tensors["surprise"] = torch.zeros(1)
    tensors["token_types"] = torch.zeros(2, 64)
    with pytest.raises(ValueError) as error:
        load_tensors(model, tensors, "some file")
    text = str(error.value)
    assert "missing: target_token" in text
    assert "unexpected: surprise" in text
    assert "token_types (2, 64) instead of (3, 64)" in text


def test_weights_that_are_not_finite_are_not_saved(tmp_path, tiny_checkpoint):
    checkpoint = load_checkpoint(tiny_checkpoint)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"what was there before")
    with torch.no_grad():
        checkpoint.model.target_token[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"weights\.safetensors is not finite: target_token"):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == b"what was there before"


def test_float16_that_overflows_is_not_saved(tmp_path, tiny_checkpoint):
    checkpoint = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        checkpoint.model.head.score.layers[0].weight[0, 0] = 1e5
    save_checkpoint(tmp_path / "whole.safetensors", checkpoint)
    with pytest.raises(ValueError, match=r"is not finite: head\.score\.layers\.0\.weight"):
        save_checkpoint(tmp_path / "half.safetensors", checkpoint, dtype=torch.float16)


def test_float16_that_overflows_is_not_loaded(tmp_path, tiny_checkpoint):
    checkpoint = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        checkpoint.model.head.score.layers[0].weight[0, 0] = 1e5
    save_checkpoint(tmp_path / "whole.safetensors", checkpoint)
    with pytest.raises(ValueError, match=r"whole\.safetensors in float16 .*bfloat16 has"):
        load_checkpoint(tmp_path / "whole.safetensors", dtype=torch.float16)


def test_a_file_that_cannot_be_written_is_named(tiny_checkpoint, monkeypatch):
    def full(*_):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    checkpoint = load_checkpoint(tiny_checkpoint)
    with pytest.raises(OSError, match=r"cannot write .*no_room\.safetensors: No space left"):
        save_checkpoint(tiny_checkpoint.with_name("no_room.safetensors"), checkpoint)
    assert not list(tiny_checkpoint.parent.glob("*no_room*"))


def test_equal_weights_give_equal_files_that_everyone_may_read(tmp_path, tiny_checkpoint):
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in files:
        save_checkpoint(path, load_checkpoint(tiny_checkpoint))
    assert files[0].read_bytes() == files[1].read_bytes()
    files[1].with_name("plain").touch()
    assert files[0].stat().st_mode == files[1].with_name("plain").stat().st_mode


def test_only_linear_layers_are_stored_in_half_precision(tmp_path, tiny_checkpoint):
    save_checkpoint(
        tmp_path / "b.safetensors", load_checkpoint(tiny_checkpoint), dtype=torch.bfloat16
    )
    model = load_checkpoint(tmp_path / "b.safetensors", dtype=torch.bfloat16).model
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds["trunk.blocks.0.attn.proj.experts"] is torch.bfloat16
    assert kinds["trunk.blocks.0.attn.qkv.q.bias"] is torch.bfloat16
    assert kinds["head.box.layers.2.weight"] is torch.bfloat16
    for name in ("pos_embed", "norm.weight", "blocks.0.ls1.gamma"):
        assert kinds[f"trunk.{name}"] is torch.float32, name
    assert kinds["token_types"] is torch.float32


def test_loading_maps_the_file_into_memory_without_a_copy(tmp_path, tiny_checkpoint):
    """Two networks of one file: a change of one changes neither the other nor the file."""
    first, second = (load_checkpoint(tiny_checkpoint).model for _ in range(2))
    before = tiny_checkpoint.read_bytes()
    with torch.no_grad():
        first.target_token.fill_(3.0)
    assert not torch.equal(first.target_token, second.target_token)
    assert tiny_checkpoint.read_bytes() == before
    torch.save({"track_query": torch.zeros(9)}, tmp_path / "zipped.pth")
    kept, _ = read_tensors(tmp_path / "zipped.pth")
    maps = Path("/proc/self/maps").read_text()
    assert str(tiny_checkpoint) in maps and str(tmp_path / "zipped.pth") in maps
    assert kept


@pytest.mark.parametrize("nested", ["model", "state_dict", "net", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_common_wrappers_around_tensors_are_removed(tmp_path, nested, prefix):
    content = {f"{prefix}{name}": torch.ones(2) for name in ("track_query", "other")}
    for name in ("wrapped.bin", "wrapped.safetensors"):  # whatever the name says
        torch.save({nested: content, "epoch": 3} if nested else content, tmp_path / name)
        assert set(read_tensors(tmp_path / name)[0]) == {"track_query", "other"}
