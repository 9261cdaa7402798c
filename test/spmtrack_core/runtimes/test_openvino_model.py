"""OpenVINO computes what PyTorch computes, for every variant of the network."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import time
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
from spmtrack_core.runtimes import openvino_model
from spmtrack_core.runtimes.openvino_model import (
    OpenVinoSPMTrack,
    converted_description,
    remove_oldest,
)
from spmtrack_core.tracking import loading
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
    converted = to_openvino(checkpoint, REFERENCES)
    network = OpenVinoSPMTrack(converted, converted_description(converted))
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


UNLOADED = """
import faulthandler, gc, signal, threading
from spmtrack_core import load_tracker
faulthandler.enable()  # as Python's handlers, on a stack of its own
signal.signal(signal.SIGINT, lambda *_: print("handled"))
first, second = [[load_tracker({weights!r}, runtime="openvino", threads=1)] for _ in range(2)]
for each in (first, second):
    each[0].warm_up()
first.clear()
threads = [threading.Thread(target=act) for act in (second.clear, gc.collect)]
for thread in threads:
    thread.start()
    thread.join()
signal.raise_signal(signal.SIGINT)
"""


@needs_openvino
def test_a_signal_after_trackers_are_gone_is_handled(tiny_checkpoint):
    command = [sys.executable, "-c", UNLOADED.format(weights=str(tiny_checkpoint))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


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
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"{&quot;format", b"[&quot;format"),  # its settings
    ],
)
def test_a_broken_file_in_the_cache_is_made_again(cache, tiny_checkpoint, caplog, damage):
    load_tracker(tiny_checkpoint, "cpu", runtime="openvino").warm_up()
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert {"compiled", "spmtrack"} == {path.parent.name for path in files}
    for path in files:
        content = path.read_bytes()
        path.unlink()  # some are read-only
        path.write_bytes(damage(content))
    tracker = load_tracker(tiny_checkpoint, "cpu", runtime="openvino")
    tracker.warm_up()
    said = [each.getMessage() for each in caplog.records if "made again" in each.getMessage()]
    assert len(said) == 1 and "\n" not in said[0]
    caplog.clear()
    load_tracker(tiny_checkpoint, "cpu", runtime="openvino")
    assert not caplog.text


@needs_openvino
def test_neither_more_targets_nor_a_loss_compile_anything(cache):
    """On a robot that would be a second without boxes, each time."""
    tracker = load_tracker("nano", "cpu", runtime="openvino", threads=1)
    tracker.warm_up()
    compiled = set(cache.glob("compiled/*"))
    blank = np.zeros((120, 160, 3), np.uint8)
    targets = [tracker.start(blank, (60, 40, 40, 40)) for _ in range(3)]
    for _ in range(4):
        tracker.follow(blank, targets)
    assert {target.recovery is None for target in targets} == {False}  # they are searched for
    load_tracker("nano", "cpu", runtime="openvino", threads=1).warm_up()  # nor the next start
    assert set(cache.glob("compiled/*")) == compiled and len(compiled) == 2


@pytest.mark.parametrize(
    ("runtime", "error", "expected", "reason"),
    [
        ("auto", RuntimeError("no such operation"), "torch", "PyTorch can do it"),
        ("auto", ValueError("broken weights"), ValueError, "PyTorch cannot read them either"),
        ("openvino", RuntimeError("no such operation"), RuntimeError, "it was asked for"),
    ],
)
def test_auto_takes_pytorch_where_openvino_fails(
    runtime, error, expected, reason, tiny_checkpoint, monkeypatch, caplog
):
    def fail(*_):
        raise error

    monkeypatch.setattr(loading, "choose_runtime", lambda *_: "openvino")
    monkeypatch.setattr(loading, "openvino_networks", fail)
    if isinstance(expected, str):
        assert load_tracker(tiny_checkpoint, "cpu", runtime=runtime).runtime == expected, reason
        assert "since OpenVINO does not: no such operation" in caplog.text
    else:
        with pytest.raises(expected):
            load_tracker(tiny_checkpoint, "cpu", runtime=runtime)


@needs_openvino
@pytest.mark.parametrize("threads", [0, 2])
def test_auto_compiles_while_it_can_still_take_pytorch(
    threads, tiny_checkpoint, monkeypatch, caplog
):
    import openvino

    def refuse(*_):
        raise RuntimeError("no plugin for this processor")

    load_tracker(tiny_checkpoint, "cpu", runtime="auto", threads=threads)  # with the real one
    monkeypatch.setattr(openvino.Core, "compile_model", refuse)
    tracker = load_tracker(tiny_checkpoint, "cpu", runtime="auto", threads=threads)
    assert tracker.runtime == "torch"
    assert "since OpenVINO does not: no plugin for this processor" in caplog.text


@needs_openvino
@pytest.mark.parametrize("exported", [False, True])
def test_without_a_home_folder_nothing_is_kept(
    exported, tiny_checkpoint, tmp_path, monkeypatch, caplog
):
    import openvino  # its own telemetry, where that is installed, looks for one

    def home():
        raise RuntimeError("Could not determine home directory.")  # an uid without a user

    assert openvino
    weights = tiny_checkpoint
    if exported:
        pytest.importorskip("onnx", reason="onnx writes the network")
        from exported_network import write_network

        weights = write_network(tmp_path / "tiny.onnx")
    before = set(tmp_path.rglob("*"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    load_tracker(weights, "cpu", runtime="openvino", threads=1).warm_up()
    warned = "is not kept: no home folder: set HOME or XDG_CACHE_HOME" in caplog.text
    assert warned is not exported
    assert set(tmp_path.rglob("*")) == before


@needs_openvino
def test_what_a_start_needs_is_not_the_oldest(tiny_checkpoint, cache):
    load_tracker(tiny_checkpoint, "cpu", runtime="openvino")
    old = time.time() - 9 * 86_400
    for path in cache.glob("openvino-*"):
        os.utime(path, (old, old))
    load_tracker(tiny_checkpoint, "cpu", runtime="openvino")
    needed = {path.suffix: path.stat().st_mtime for path in cache.glob("openvino-*")}
    assert set(needed) == {".xml", ".bin"} and min(needed.values()) > old + 86_400


@needs_openvino
def test_every_compilation_keeps_the_limit(tiny_checkpoint, cache, monkeypatch):
    """Those of further numbers of threads, and those of a start that converts nothing."""
    tracker = load_tracker(tiny_checkpoint, "cpu", runtime="openvino", threads=1)
    tracker.warm_up()
    converted = set(cache.glob("openvino-*"))
    size = sum(path.stat().st_size for path in converted)
    largest = max(path.stat().st_size for path in cache.glob("compiled/*.blob"))
    limit = size + 2 * largest
    monkeypatch.setattr(openvino_model.remove_oldest, "__defaults__", (limit,))
    for threads in (2, 3):
        tracker = load_tracker(tiny_checkpoint, "cpu", runtime="openvino", threads=threads)
        tracker.warm_up()
        kept = [*cache.glob("openvino-*"), *cache.glob("compiled/*.blob")]
        assert sum(path.stat().st_size for path in kept) <= limit
        assert converted < set(kept)


@needs_openvino
def test_a_failure_of_the_conversion_is_told_as_one(tiny_checkpoint, monkeypatch, caplog):
    from spmtrack_core.tracking import torch_engines

    def refuse(*_):
        raise NotImplementedError("an operation it does not know")

    monkeypatch.setattr(torch_engines, "convert_for_openvino", refuse)
    with pytest.raises(RuntimeError, match=r"cannot convert .*: an operation it does not know"):
        load_tracker(tiny_checkpoint, "cpu", runtime="openvino")
    assert load_tracker(tiny_checkpoint, "cpu", runtime="auto").runtime == "torch"


def test_the_cache_keeps_what_was_needed_last(tmp_path, monkeypatch):
    compiled = tmp_path / "compiled"
    compiled.mkdir()
    ages = {  # since it was read, and since it was made
        "openvino-1-locate.bin": (50, 50),
        "compiled/1.blob": (40, 40),
        "openvino-2-locate.bin": (25, 25),
        "compiled/2.blob": (20, 90),
        "openvino-3-encode.bin": (95, 95),  # of the weights that were needed last
        "openvino-3-locate.bin": (10, 70),
        "compiled/gone.blob": (0, 0),
        "other.npz": (99, 99),
    }
    now = time.time()
    for name, (read, made) in ages.items():
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (now - read, now - made))
    stat = Path.stat

    def vanished(path, **options):
        if path.name == "gone.blob":  # another process has removed it meanwhile
            raise FileNotFoundError(path)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", vanished)
    for name, age in (("tmp1", 2 * 86_400), ("tmp2", 10)):  # killed, and still at work
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    remove_oldest(tmp_path, limit=250)
    monkeypatch.undo()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} - {"compiled"}
    kept = {"compiled/2.blob", "openvino-3-encode.bin", "openvino-3-locate.bin", "other.npz"}
    assert left == kept | {"tmp2", "compiled/gone.blob"}


@pytest.mark.parametrize(
    ("runtime", "device", "match"),
    [
        (
            "tpu",
            "cpu",
            "runtime must be one of torch, onnxruntime, openvino, tensorrt, auto; got 'tpu'",
        ),
        ("openvino", "cuda:99", "cuda:99 not found"),
        ("openvino", "tpu", "device must be auto, cpu, cuda or cuda:N; got 'tpu'"),
        ("onnxruntime", "cpu", "runtime onnxruntime runs .onnx files of spmtrack export; got"),
    ],
)
def test_runtimes_that_cannot_be_used_are_named(tiny_checkpoint, runtime, device, match):
    with pytest.raises(ValueError, match=match):
        load_tracker(tiny_checkpoint, device, runtime=runtime)


@pytest.mark.parametrize(
    ("weights", "asked", "installed", "chosen"),
    [
        ("nano.onnx", "auto", {"onnxruntime", "openvino"}, "onnxruntime"),
        ("nano.onnx", "torch", {"onnxruntime", "openvino"}, "onnxruntime"),  # the default
        ("nano.onnx", "auto", {"openvino"}, "openvino"),
        ("nano.onnx", "auto", set(), "onnxruntime"),  # the one that its error names
        ("nano.onnx", "openvino", {"onnxruntime"}, "openvino"),
        ("nano.engine", "auto", {"onnxruntime", "openvino"}, "tensorrt"),
        ("nano.safetensors", "auto", {"onnxruntime", "openvino"}, "openvino"),
        ("nano.safetensors", "auto", {"onnxruntime"}, "torch"),
        ("nano.safetensors", "torch", {"openvino"}, "torch"),
    ],
)
def test_each_kind_of_file_has_its_runtimes(monkeypatch, weights, asked, installed, chosen):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name if name in installed else None
    )
    assert choose_runtime(Path(weights), "cpu", asked) == chosen


def test_an_exported_file_asks_no_torch_for_devices(monkeypatch):
    """A computer with NVIDIA's driver may have OpenVINO alone."""
    monkeypatch.setattr(loading, "is_cpu", lambda _: pytest.fail("torch may be absent"))
    assert choose_runtime(Path("nano.onnx"), "auto", "openvino") == "openvino"
    with pytest.raises(ValueError, match="openvino runs on the CPU; got device 'cuda'"):
        choose_runtime(Path("nano.onnx"), "cuda", "openvino")


@pytest.mark.parametrize(
    ("weights", "runtime", "match"),
    [
        ("nano.onnx", "tensorrt", r"tensorrt runs \.engine files of spmtrack export; got nano"),
        ("nano.engine", "onnxruntime", r"onnxruntime runs \.onnx files of spmtrack export; got"),
        ("nano.engine", "openvino", r"runs checkpoints and \.onnx files of spmtrack export; got"),
    ],
)
def test_other_files_are_refused(weights, runtime, match):
    with pytest.raises(ValueError, match=match):
        choose_runtime(Path(weights), "cpu", runtime)


@needs_openvino
def test_an_exported_file_needs_neither_torch_nor_onnx_runtime(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx writes the network")
    from exported_network import arrays, write_network

    assert onnx
    file = write_network(tmp_path / "tiny.onnx")
    absent = "import sys; sys.modules.update(torch=None, onnxruntime=None)\n"
    script = absent + WITHOUT_TORCH.format(weights=str(file)).rpartition("print")[0]
    subprocess.run([sys.executable, "-c", script], check=True)
    reference, located = arrays(3)
    model, expected = (load_tracker(file, runtime=r).engine.model for r in ("openvino", "auto"))
    assert (model.runtime, expected.runtime) == ("openvino", "onnxruntime")
    for ours, theirs in zip(
        (*model.encode_reference(*reference), *model(*located)),
        (*expected.encode_reference(*reference), *expected(*located)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("exported", [False, True])
def test_without_openvino_the_cure_is_named(tiny_checkpoint, tmp_path, monkeypatch, exported):
    weights = tiny_checkpoint
    if exported:
        pytest.importorskip("onnx", reason="onnx writes the network")
        from exported_network import write_network

        weights = write_network(tmp_path / "tiny.onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeError, match=r"spmtrack_ros\[openvino\]"):
        load_tracker(weights, "cpu", runtime="openvino")
