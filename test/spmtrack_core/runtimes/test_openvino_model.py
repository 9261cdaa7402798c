"""OpenVINO computes what PyTorch computes, for every variant of the network."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from golden_model import golden_config, golden_model

from spmtrack_core.config import TrackerConfig
from spmtrack_core.data.recording import write_image
from spmtrack_core.data.scene import scene
from spmtrack_core.model.fused import fuse
from spmtrack_core.model.openvino_export import to_openvino
from spmtrack_core.model.torch_model import TorchSPMTrack
from spmtrack_core.model.weights import Checkpoint
from spmtrack_core.runtimes.openvino_model import OpenVinoSPMTrack
from spmtrack_core.tracking.loading import choose_runtime, load_tracker
from spmtrack_core.tracking.references import REFERENCES

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "spmtrack"


def inputs_of(network, config, batch):
    random = np.random.default_rng(batch)

    def normal(*shape):
        return random.standard_normal((batch, *shape), np.float32)

    masks = (normal(*config.template_grid_hw) > 0).astype(np.float32)
    kept = [normal(REFERENCES, *shape) for shape in network.reference_shapes]
    search = normal(3, *config.search_hw)
    return (normal(3, *config.template_hw), masks), (search, *kept, normal(1, config.embed_dim))


@needs_openvino
@pytest.mark.parametrize(
    "variant", ["default", "shared_expert", "route_compression", "swiglu_nonsquare"]
)
def test_every_variant_gives_the_numbers_of_pytorch(variant):
    name = f"model_{variant}_params"
    config = golden_config(name)
    checkpoint = Checkpoint(golden_model(name), config, TrackerConfig(), {"made": "so"})
    by_torch = TorchSPMTrack(fuse(checkpoint.model))
    network = OpenVinoSPMTrack(to_openvino(checkpoint, REFERENCES))
    assert network.reference_shapes == by_torch.reference_shapes
    assert network.no_state.tolist() == by_torch.no_state.tolist()
    described = network.model_config, network.tracker_config, network.provenance
    assert described == (config, TrackerConfig(), {"made": "so"})
    for batch in (1, 3, 1):  # of other sizes than the converted examples, and one again
        reference, located = inputs_of(by_torch, config, batch)
        expected = (*by_torch.encode_reference(*reference), *by_torch(*located))
        found = (*network.encode_reference(*reference), *network(*located))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


@needs_openvino
def test_the_bundled_tracker_gives_the_same_boxes(cache):
    pytest.importorskip("skimage")
    frames, rows = list(itertools.islice(scene(), 6)), []
    for runtime in ("torch", "openvino", "auto"):
        tracker = load_tracker("nano", "cpu", runtime=runtime)
        box = scene().boxes_xywh[0]
        targets = [tracker.start(frames[0], b) for b in (box, np.add(box, [40, 20, 0, 0]))]
        found = [result for frame in frames[1:] for result in tracker.follow(frame, targets)]
        rows.append([[*result.box_xywh, result.confidence] for result in found])
    np.testing.assert_allclose(rows[1], rows[0], atol=0.01)
    assert rows[2] == rows[1]  # auto takes OpenVINO, now from the cache
    assert len(list(cache.glob("*.xml"))) == len(list(cache.glob("*.bin"))) == 2


WITHOUT_TORCH = """
import sys
import numpy as np
from spmtrack_core import load_tracker
tracker = load_tracker({weights!r}, runtime="openvino", lost_threshold=0.25)
tracker.init(np.zeros((60, 80, 3), np.uint8), (20, 20, 30, 20))
tracker.update(np.zeros((60, 80, 3), np.uint8))
assert tracker.config.lost_threshold == 0.25
print("torch" in sys.modules)
"""


@needs_openvino
def test_only_the_first_start_needs_torch(tiny_checkpoint):
    """A process that tracks with a converted network is a third of the size."""
    command = [sys.executable, "-c", WITHOUT_TORCH.format(weights=str(tiny_checkpoint))]
    told = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)]
    assert [each.stdout for each in told] == ["True\n", "False\n"]


WITHOUT_TORCH_EITHER = """
import sys
from spmtrack_core.cli import main
try:
    main()
finally:
    print("torch" in sys.modules)
"""


@needs_openvino
def test_nor_does_an_evaluation(tiny_checkpoint, tmp_path):
    load_tracker(tiny_checkpoint, "cpu", runtime="openvino")
    for index in range(2):
        write_image(tmp_path / "data" / "a" / f"{index}.png", np.full((60, 80, 3), 90, np.uint8))
    (tmp_path / "data" / "a" / "groundtruth.txt").write_text("9,9,20,20\n" * 2)
    command = [sys.executable, "-c", WITHOUT_TORCH_EITHER, "eval", "folder", "--device", "cpu"]
    command += ["--weights", str(tiny_checkpoint), "--runtime", "openvino"]
    command += ["--root", str(tmp_path / "data"), "--output", str(tmp_path / "results")]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0 and told.stdout.endswith("\nFalse\n"), told.stderr


@needs_openvino
def test_a_broken_file_in_the_cache_is_made_again(cache, tiny_checkpoint, caplog):
    load_tracker(tiny_checkpoint, "cpu", runtime="openvino").warm_up()
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert {"compiled", "spmtrack"} == {path.parent.name for path in files}
    for path in files:
        path.unlink()  # some are read-only
        path.write_bytes(b"")
    tracker = load_tracker(tiny_checkpoint, "cpu", runtime="openvino")
    tracker.warm_up()
    assert "made again" in caplog.text
    caplog.clear()
    load_tracker(tiny_checkpoint, "cpu", runtime="openvino")
    assert not caplog.text


@pytest.mark.parametrize(
    ("runtime", "device", "match"),
    [
        (
            "tpu",
            "cpu",
            "runtime must be one of torch, openvino, onnxruntime, tensorrt, auto; got 'tpu'",
        ),
        ("openvino", "cuda:99", "cuda:99 not found"),
        ("openvino", "tpu", "device must be auto, cpu, cuda or cuda:N; got 'tpu'"),
        ("onnxruntime", "cpu", "runtime onnxruntime runs an .onnx file of spmtrack export"),
    ],
)
def test_runtimes_that_cannot_be_used_are_named(tiny_checkpoint, runtime, device, match):
    with pytest.raises(ValueError, match=match):
        load_tracker(tiny_checkpoint, device, runtime=runtime)


def test_an_exported_file_is_none_for_openvino():
    with pytest.raises(ValueError, match=r"takes a checkpoint; got nano\.onnx: give onnxruntime"):
        choose_runtime(Path("nano.onnx"), "cpu", "openvino")
    assert choose_runtime(Path("nano.onnx"), "cpu", "auto") == "onnxruntime"


def test_without_openvino_the_cure_is_named(tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeError, match=r"spmtrack_ros\[openvino\]"):
        load_tracker(tiny_checkpoint, "cpu", runtime="openvino")
