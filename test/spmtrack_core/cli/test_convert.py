"""``spmtrack convert``: complete files from weights and trunk, one line for bad input."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_model import golden_model
from published_files import crop_overrides, published_part, published_shapes, trunk_part
from safetensors import safe_open
from safetensors.torch import save_file

from spmtrack_core import load_tracker
from spmtrack_core.config import ModelConfig
from spmtrack_core.model.spmtrack import build_spmtrack, trainable_names
from spmtrack_core.model.weights import load_checkpoint, mean_of, save_checkpoint

RUN = "from spmtrack_core.cli import main; main()"
SETTINGS = crop_overrides("default")


@pytest.fixture
def files(tmp_path):
    save_file(published_part("default"), tmp_path / "published.bin")
    torch.save(trunk_part("default"), tmp_path / "dinov2.pth")
    save_file(trunk_part("default", "timm"), tmp_path / "timm.safetensors")
    return tmp_path


def test_both_trunks_give_one_file_with_the_same_tensors(files, spmtrack):
    for trunk in ("dinov2.pth", "timm.safetensors"):
        code, out, err = spmtrack(
            "convert",
            files / "published.bin",
            *SETTINGS,
            "--trunk",
            files / trunk,
            "-o",
            files / f"from_{trunk}",
        )
        assert code == 0, err
        assert "scaling 1, template 56x56, search 98x98 px" in out
    expected = golden_model("model_default_params").state_dict()
    for trunk in ("dinov2.pth", "timm.safetensors"):
        state = load_checkpoint(files / f"from_{trunk}").model.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())


def test_all_forms_of_the_same_weights_give_the_same_boxes(files, spmtrack):
    """Converted, adapters alone, and adapters converted back."""
    trunk = ("--trunk", files / "dinov2.pth")
    full, adapters, again = (files / f"{name}.safetensors" for name in ("full", "few", "again"))
    published = files / "published.bin"
    assert spmtrack("convert", published, *SETTINGS, *trunk, "-o", full)[0] == 0
    assert spmtrack("convert", full, "-o", adapters, "--adapters-only")[0] == 0
    assert spmtrack("convert", adapters, *trunk, "-o", again)[0] == 0
    assert adapters.stat().st_size < full.stat().st_size
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, 120, 160, 3), np.uint8)
    seen = []
    for tracker in (
        load_tracker(full, "cpu"),
        load_tracker(again, "cpu"),
        load_tracker(adapters, "cpu", trunk=files / "timm.safetensors"),
        load_tracker(adapters, "cpu", trunk=full),
    ):
        tracker.init(frames[0], (60, 40, 30, 20))
        seen.append([tracker.update(frame).box_xywh for frame in frames[1:]])
    assert seen[0] == seen[1] == seen[2] == seen[3]


def test_the_mean_of_weights_has_the_provenance_of_all(files, spmtrack):
    full, other, mean, few = (files / f"{n}.safetensors" for n in ("full", "other", "mean", "few"))
    trunk = ("--trunk", files / "dinov2.pth")
    assert spmtrack("convert", files / "published.bin", *SETTINGS, *trunk, "-o", full)[0] == 0
    checkpoint = load_checkpoint(full)
    model = checkpoint.model
    trained = trainable_names(model)
    for name, parameter in model.named_parameters():
        parameter.data = parameter + (name in trained)
    save_checkpoint(other, replace(checkpoint, provenance={"command": "the other"}))
    code, _, err = spmtrack("convert", full, "--mean-with", other, "-o", mean)
    assert code == 0, err
    made, once = load_checkpoint(mean), load_checkpoint(full)
    for name, parameter in once.model.named_parameters():
        wanted = parameter + 0.5 * (name in trained)
        torch.testing.assert_close(made.model.get_parameter(name), wanted)
    assert made.tracker_config == once.tracker_config
    assert json.loads(made.provenance["mean_of"]) == [once.provenance, {"command": "the other"}]
    assert spmtrack("convert", full, "--mean-with", other, "-o", few, "--adapters-only")[0] == 0
    adapters = load_checkpoint(few, files / "dinov2.pth").model.state_dict()
    assert all(torch.equal(adapters[name], made.model.get_parameter(name)) for name in trained)
    marked = load_checkpoint(few, frozen=False)
    assert mean_of([replace(marked, trunk_mark=""), marked]).trunk_mark == marked.trunk_mark != ""

    code, _, err = spmtrack("convert", full, "--mean-with", "nano", "-o", mean)
    assert (code, "a mean needs weights of one network" in err, err.count("\n")) == (2, True, 1)


def test_given_settings_are_stored_in_the_file(files, spmtrack):
    code, _, err = spmtrack(
        "convert",
        files / "published.bin",
        *SETTINGS,
        "tracker.reference_rule=thirds",
        "--trunk",
        files / "dinov2.pth",
        "-o",
        files / "o.safetensors",
        "--precision",
        "bfloat16",
    )
    assert code == 0, err
    checkpoint = load_checkpoint(files / "o.safetensors")
    assert checkpoint.tracker_config.reference_rule == "thirds"
    assert checkpoint.provenance["trunk"] == "dinov2.pth"
    assert "reference_rule=thirds" in checkpoint.provenance["settings given"]
    with safe_open(files / "o.safetensors", "pt") as file:
        assert file.get_tensor("head.score.layers.0.weight").dtype is torch.bfloat16
        assert file.get_tensor("trunk.pos_embed").dtype is torch.float32


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["absent.bin"], "neither a file nor bundled"),
        (["published.bin", "--trunk", "absent.pth"], "absent.pth"),
        (["published.bin", "--trunk", "cut.pth"], "cut.pth is not a complete torch file"),
        (["cut.bin", "--trunk", "dinov2.pth"], "cut.bin is not a complete safetensors file"),
        (["published.bin", "--trunk", "published.bin"], "none of the names of a DINOv2 trunk"),
        (["dinov2.pth"], "it is a trunk, for adapters-only weights"),
        (["published.bin", "--trunk", "dinov2.pth", "model.rank=9"], "mis-shaped"),
        (["published.bin", "--trunk", "dinov2.pth", "rank=9"], "unknown key 'rank'"),
        (["published.bin", "--trunk", "dinov2.pth", "--precision", "int4"], "float32, bfloat16"),
    ],
)
def test_bad_input_is_one_line_and_overwrites_nothing(
    files, spmtrack, monkeypatch, arguments, match
):
    monkeypatch.chdir(files)
    for whole, cut in (("published.bin", "cut.bin"), ("dinov2.pth", "cut.pth")):
        (files / cut).write_bytes((files / whole).read_bytes()[:-999])
    output = files / "out.safetensors"
    output.write_text("what was there before")
    before = sorted(files.iterdir())
    code, out, err = spmtrack("convert", *arguments, *SETTINGS, "-o", output)
    assert code == 2
    assert match in err
    assert err.count("\n") == 1
    assert not out
    assert output.read_text() == "what was there before"
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("name", ["published.bin", "dinov2.pth", "link"])
def test_an_input_is_never_the_output(files, spmtrack, name):
    (files / "link").symlink_to(files / "dinov2.pth")
    before = {path: path.read_bytes() for path in files.iterdir()}
    code, _, err = spmtrack(
        "convert",
        files / "published.bin",
        *SETTINGS,
        "--trunk",
        files / "dinov2.pth",
        "-o",
        files / name,
    )
    assert (code, "is an input" in err) == (2, True)
    assert before == {path: path.read_bytes() for path in files.iterdir()}


@pytest.mark.parametrize(
    ("output", "match"),
    [(".", "is a folder"), ("", "is a folder"), ("a.onnx", "a.onnx is the name of a file of spm")],
)
def test_such_an_output_is_rejected_before_weights_are_read(spmtrack, output, match):
    code, _, err = spmtrack("convert", "nano", "-o", output)
    assert (code, match in err) == (2, True)


def test_adapters_alone_need_no_trunk(files, spmtrack):
    """Nor the hub: no tensor of the trunk is stored."""
    adapters = files / "adapters.safetensors"
    code, out, err = spmtrack(
        "convert", files / "published.bin", *SETTINGS, "--adapters-only", "-o", adapters
    )
    assert code == 0, err
    assert "of 4 heads" in out
    model = load_checkpoint(adapters, files / "dinov2.pth").model
    expected = golden_model("model_default_params").state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("arguments", [[], ["--trunk", "dinov2.pth"]])
def test_adapters_keep_the_mark_of_their_trunk(files, spmtrack, monkeypatch, arguments):
    """Whatever is made of them, with their trunk at hand or without it."""
    monkeypatch.chdir(files)
    published = ("published.bin", *SETTINGS, "--adapters-only", "--trunk")
    other = trunk_part("default")
    torch.save(other | {"norm.weight": other["norm.weight"] + 0.1}, "other.pth")
    for trunk, few in (("dinov2.pth", "few.safetensors"), ("other.pth", "foreign.safetensors")):
        assert spmtrack("convert", *published, trunk, "-o", few)[0] == 0
    makes = {
        "again.safetensors": ["tracker.lost_threshold=0.3"],
        "mean.safetensors": ["--mean-with", "few.safetensors"],
    }
    for made, how in makes.items():
        command = ("convert", "few.safetensors", *how, *arguments, "--adapters-only", "-o", made)
        assert spmtrack(*command)[0] == 0
        load_checkpoint(made, "dinov2.pth")
        with pytest.raises(ValueError, match=f"{made} was trained on another trunk than other"):
            load_checkpoint(made, "other.pth")
    for refused, match in (
        (["--mean-with", "foreign.safetensors"], "trunk"),
        (["--trunk", "other.pth"], "few.safetensors was trained on another trunk than other.pth"),
    ):
        command = ("convert", "few.safetensors", *refused, "--adapters-only", "-o", "no")
        code, _, err = spmtrack(*command)
        assert (code, match in err, err.count("\n")) == (2, True, 1)


@pytest.mark.slow
def test_g_is_built_in_less_than_8_gb(tmp_path):
    """Needs 8 GB of disk: a trunk of the size of DINOv2 g/14 and adapters, both of zeros."""
    trunk = "vit_giant_patch14_dinov2"
    with torch.device("meta"):
        model = build_spmtrack(ModelConfig(trunk=trunk))
    state, trained = model.state_dict(), trainable_names(model)
    frozen = {name.removeprefix("trunk."): t for name, t in state.items() if name not in trained}
    tensors = {n: torch.zeros(t.shape) for n, t in frozen.items() if ".qkv." not in n}
    for block in range(40):
        tensors[f"blocks.{block}.attn.qkv.weight"] = torch.zeros(3 * 1536, 1536)
        tensors[f"blocks.{block}.attn.qkv.bias"] = torch.zeros(3 * 1536)
    torch.save(tensors, tmp_path / "trunk.pth")
    del tensors
    shapes = published_shapes(1536, 40, 4096, swiglu=True)
    published = {name: torch.zeros(shape) for name, shape in shapes.items()}
    published |= {"expert_alpha": torch.tensor(64.0), "use_rsexpert": torch.tensor(False)}
    save_file(published, tmp_path / "g.bin")
    command = [
        sys.executable,
        "-c",
        RUN,
        "convert",
        tmp_path / "g.bin",
        "--trunk",
        tmp_path / "trunk.pth",
        "-o",
        tmp_path / "g.safetensors",
        "--precision",
        "bfloat16",
    ]
    subprocess.run(command, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak < 8e9, f"{peak / 1e9:.1f} GB"
