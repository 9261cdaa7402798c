"""``spmtrack export``: a file to track with, one line for bad input."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from published_files import published_part, trunk_part
from safetensors.torch import save_file

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from exported_network import write_network

from spmtrack_core import export as module
from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.runtimes.description import ENTRY, description_of
from spmtrack_core.runtimes.inference import INPUTS
from spmtrack_core.runtimes.tensorrt_model import ENGINE_FORMAT, read_engines


def test_an_exported_file_can_be_tracked_with(tiny_checkpoint, tmp_path, spmtrack):
    output = tmp_path / "out" / "tiny.onnx"
    options = ("--precision", "int8")
    code, out, err = spmtrack("export", "--weights", tiny_checkpoint, *options, "-o", output)
    assert code == 0, err
    files = [output, output.with_name("tiny.references.onnx")]
    assert [line.split(" (")[0] for line in out.splitlines()] == [f"wrote {f}" for f in files]
    assert sorted(output.parent.iterdir()) == files
    code, out, err = spmtrack(
        "track", "synthetic", "--weights", output, "--device", "cpu", "--max-frames", 4
    )
    assert code == 0, err
    assert "4 frames, lost in 0" in out
    before = files[1].read_bytes()
    code, out, err = spmtrack("track", "synthetic", "--weights", output, "--boxes", files[1])
    assert (code, "is an input of this run" in err) == (2, True), err
    assert files[1].read_bytes() == before


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_each_format_is_written_by_its_function(
    tiny_checkpoint, tmp_path, spmtrack, monkeypatch, precision
):
    """The file itself is tested with ``export_torch``."""
    output, given = tmp_path / "tiny.pt2", []

    def write(checkpoint, path, dtype):
        given.append((checkpoint.model_config.embed_dim, dtype))
        path.write_bytes(b"network")
        return [path]

    monkeypatch.setitem(module.FORMATS, "torch", module.FORMATS["torch"]._replace(write=write))
    options = ("--format", "torch", "--precision", precision)
    code, out, err = spmtrack("export", "--weights", tiny_checkpoint, *options, "-o", output)
    assert code == 0, err
    assert f"wrote {output}" in out
    assert given == [(32, getattr(torch, precision))]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--weights", "absent"], "neither a file nor bundled"),
        (["--format", "caffe"], "format must be one of onnx, torch, tensorrt"),
        (["--precision", "bfloat16"], "float32 or float16 or int8; got 'bfloat16'"),
        (["--precision", "int8", "--format", "torch"], "to torch must be float32 or float16; got"),
        (["--trunk", "nano"], "has a trunk of its own"),
        (["--weights", "published.bin", "--trunk", "cut.pth"], "cut.pth is not a complete"),
    ],
)
def test_bad_input_is_one_line_and_overwrites_nothing(
    tmp_path, spmtrack, monkeypatch, arguments, match
):
    monkeypatch.chdir(tmp_path)
    save_file(published_part("default"), tmp_path / "published.bin")
    save_file(trunk_part("default"), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-999])
    output = tmp_path / "out.onnx"
    output.write_text("what was there before")
    before = sorted(tmp_path.iterdir())
    code, out, err = spmtrack("export", *arguments, "-o", output)
    assert code == 2
    assert match in err
    assert err.count("\n") == 1
    assert not out
    assert output.read_text() == "what was there before"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("format", "name", "match"),
    [
        ("onnx", "nano.bin", ".bin must end in .onnx but not in .references.onnx"),
        ("torch", "nano.onnx", "must end in .pt2 but not in .references.pt2"),
        ("tensorrt", "nano.onnx", "must end in .engine; what reads it"),
        ("onnx", "nano.references.onnx", "but not in .references.onnx"),
        ("torch", "nano.references.pt2", "but not in .references.pt2"),
    ],
)
def test_what_reads_a_file_recognizes_it_by_its_name(tmp_path, spmtrack, format, name, match):
    code, _, err = spmtrack("export", "--format", format, "-o", tmp_path / name)
    assert (code, match in err, f"--format {format}," in err) == (2, True, True), err


def test_the_second_file_is_checked_before_the_work(tiny_checkpoint, tmp_path, spmtrack):
    weights = tmp_path / "a.references.pt2"  # weights are recognized by their content
    weights.write_bytes(tiny_checkpoint.read_bytes())
    (tmp_path / "b.references.onnx").mkdir()
    for options, match in (
        (("--format", "torch", "-o", tmp_path / "a.pt2"), "is an input of this run"),
        (("-o", tmp_path / "b.onnx"), "b.references.onnx is a folder"),
    ):
        code, _, err = spmtrack("export", "--weights", weights, *options)
        assert (code, match in err, err.count("\n")) == (2, True, 1), err


@pytest.mark.parametrize(
    ("format", "file", "missing", "match"),
    [
        ("tensorrt", "x.engine", "tensorrt", "on the machine it is for: pip install tensorrt"),
        ("onnx", "x.onnx", "onnxscript", "spmtrack_ros[onnx]"),
    ],
)
def test_missing_packages_are_named(tmp_path, spmtrack, monkeypatch, format, file, missing, match):
    monkeypatch.setattr(module, missing, None)
    code, _, err = spmtrack("export", "--format", format, "-o", tmp_path / file)
    assert code == 2
    assert match in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_only_int8_needs_onnx_runtime(tmp_path, spmtrack, monkeypatch):
    with monkeypatch.context() as without:
        for name in ("onnxruntime", "onnxruntime.quantization"):
            without.setitem(sys.modules, name, None)
        spec = importlib.util.find_spec(module.__name__)
        again = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(again)
    again.check_installed("onnx")
    monkeypatch.setattr(module, "quantize_dynamic", again.quantize_dynamic)
    output = tmp_path / "x.onnx"
    code, _, err = spmtrack("export", "--precision", "int8", "-o", output)
    assert (code, "needs the package onnxruntime" in err, err.count("\n")) == (2, True, 1)
    assert not output.exists()


def test_an_engine_is_built_by_the_calls_tensorrt_documents(
    tiny_checkpoint, tmp_path, spmtrack, monkeypatch
):
    """TensorRT itself needs a GPU: this only checks the calls and their arguments."""
    profiles, cleared = [], []

    class Network:
        def read(self, path):
            inputs = onnxruntime.InferenceSession(path).get_inputs()
            self.inputs = [SimpleNamespace(name=i.name, shape=(-1, *i.shape[1:])) for i in inputs]
            self.num_inputs, self.content = len(inputs), Path(path).read_bytes()

        def get_input(self, index):
            return self.inputs[index]

    class Parser:
        num_errors = 0

        def __init__(self, network, logger):
            self.network = network

        def parse_from_file(self, path):
            self.network.read(path)
            return True

    class Profile(dict):
        def set_shape(self, name, *sizes):
            self[name] = sizes

    builder = SimpleNamespace(
        create_network=lambda flags: Network() if flags == 1 << 3 else None,
        create_optimization_profile=Profile,
        create_builder_config=lambda: SimpleNamespace(
            add_optimization_profile=profiles.append, clear_flag=cleared.append
        ),
        build_serialized_network=lambda network, config: memoryview(network.content),
    )
    logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None})
    tensorrt = SimpleNamespace(
        __version__="10.3.0",
        BuilderFlag=SimpleNamespace(TF32="TF32"),
        Logger=logger,
        Builder=lambda _: builder,
        OnnxParser=Parser,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=3),
    )
    monkeypatch.setattr(module, "tensorrt", tensorrt)
    # what it writes is tested with it, and takes long
    monkeypatch.setattr(module, "export_onnx", lambda _, path, dtype: write_network(path))
    output = tmp_path / "tiny.engine"
    code, out, err = spmtrack(
        "export", "--weights", tiny_checkpoint, "--format", "tensorrt", "-o", output
    )
    assert code == 0, err
    assert f"wrote {output}" in out
    settings, engines = read_engines(output)
    checkpoint = load_checkpoint(tiny_checkpoint)
    about = description_of({ENTRY: settings}, ENGINE_FORMAT)
    assert about.model_config == checkpoint.model_config
    for part, profile in zip(INPUTS, profiles, strict=True):
        session = onnxruntime.InferenceSession(engines[part])
        assert [each.name for each in session.get_inputs()] == list(INPUTS[part]) == list(profile)
    assert cleared == ["TF32"] * 2
    one, eight = ((targets, 3, 64, 64) for targets in (1, 8))
    assert profiles[1]["search"] == (one, one, eight)


@pytest.mark.parametrize(
    ("version", "match"),
    [
        ("8.6.2", "an engine needs NVIDIA's tensorrt, 10 or later"),
        ("10.3.0", "TensorRT cannot use a GPU here: factory function returned nullptr"),
    ],
)
def test_what_tensorrt_cannot_do_is_known_before_the_network_is_traced(
    tiny_checkpoint, tmp_path, spmtrack, monkeypatch, version, match
):
    def builder(_):
        raise TypeError("factory function returned nullptr")

    logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None})
    tensorrt = SimpleNamespace(__version__=version, Logger=logger, Builder=builder)
    monkeypatch.setattr(module, "tensorrt", tensorrt)
    monkeypatch.setattr(module, "export_onnx", lambda *_: pytest.fail("this takes minutes"))
    options = ("--format", "tensorrt", "-o", tmp_path / "x.engine")
    code, _, err = spmtrack("export", "--weights", tiny_checkpoint, *options)
    assert (code, match in err, err.count("\n")) == (2, True, 1), err
    assert not list(tmp_path.iterdir())
