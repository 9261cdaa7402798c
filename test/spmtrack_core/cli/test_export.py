"""``spmtrack export``: a file to track with, one line for bad input."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from published_files import published_part, trunk_part
from safetensors.torch import save_file

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from spmtrack_core import export as module


def test_an_exported_file_can_be_tracked_with(tiny_checkpoint, tmp_path, spmtrack):
    output = tmp_path / "out" / "tiny.onnx"
    code, out, err = spmtrack("export", "--weights", tiny_checkpoint, "-o", output)
    assert code == 0, err
    assert f"wrote {output}" in out
    assert [file.name for file in output.parent.iterdir()] == ["tiny.onnx"]
    code, out, err = spmtrack(
        "track", "synthetic", "--weights", output, "--device", "cpu", "--max-frames", 4
    )
    assert code == 0, err
    assert "4 frames, lost in 0" in out


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_each_format_is_written_by_its_function(
    tiny_checkpoint, tmp_path, spmtrack, monkeypatch, precision
):
    """The file itself is tested with ``export_torch``."""
    output, given = tmp_path / "tiny.pt2", []

    def write(checkpoint, path, dtype):
        given.append((checkpoint.model_config.embed_dim, dtype))
        path.write_bytes(b"network")

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


def test_an_onnx_file_must_end_in_onnx(tmp_path, spmtrack):
    code, _, err = spmtrack("export", "-o", tmp_path / "nano.bin")
    assert (code, "must end in .onnx" in err) == (2, True)


@pytest.mark.parametrize(
    ("format", "missing", "match"),
    [
        ("tensorrt", "tensorrt", "trtexec"),
        ("onnx", "onnxscript", "spmtrack_ros[onnx]"),
    ],
)
def test_missing_packages_are_named(tmp_path, spmtrack, monkeypatch, format, missing, match):
    monkeypatch.setattr(module, missing, None)
    code, _, err = spmtrack("export", "--format", format, "-o", tmp_path / "x.onnx")
    assert code == 2
    assert match in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_engine_is_built_by_the_calls_tensorrt_documents(
    tiny_checkpoint, tmp_path, spmtrack, monkeypatch
):
    """TensorRT itself needs a GPU: this only checks the calls and their arguments."""
    shapes = {}

    class Network:
        num_inputs = 4

        def get_input(self, index):
            return SimpleNamespace(name=module.INPUTS[index], shape=(-1, 3, index))

    class Parser:
        num_errors = 0

        def __init__(self, network, logger):
            pass

        def parse_from_file(self, path):
            return path.endswith(".onnx")

    profile = SimpleNamespace(set_shape=lambda name, *sizes: shapes.__setitem__(name, sizes))
    builder = SimpleNamespace(
        create_network=lambda flags: Network(),
        create_optimization_profile=lambda: profile,
        create_builder_config=lambda: SimpleNamespace(add_optimization_profile=lambda _: 0),
        build_serialized_network=lambda network, config: b"engine",
    )
    logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None})
    monkeypatch.setattr(
        module,
        "tensorrt",
        SimpleNamespace(
            Logger=logger,
            Builder=lambda _: builder,
            OnnxParser=Parser,
            NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        ),
    )
    # what it writes is tested with it, and takes long
    monkeypatch.setattr(module, "export_onnx", lambda _, path, dtype: path.write_bytes(b"onnx"))
    output = tmp_path / "tiny.engine"
    code, _, err = spmtrack(
        "export", "--weights", tiny_checkpoint, "--format", "tensorrt", "-o", output
    )
    assert code == 0, err
    assert output.read_bytes() == b"engine"
    assert shapes["references"] == ((1, 3, 1), (1, 3, 1), (8, 3, 1))
