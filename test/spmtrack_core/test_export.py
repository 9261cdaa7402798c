"""Exported networks give the numbers of ``SPMTrack``, in ONNX Runtime and in torch.export."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from filelock import FileLock  # PyTorch needs it, too
from golden_model import GOLDEN, golden_config, golden_model, golden_tensors
from torch.testing import assert_close

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from spmtrack_core import export as module
from spmtrack_core.config import TrackerConfig
from spmtrack_core.data.scene import scene
from spmtrack_core.evaluation.metrics import mean_iou
from spmtrack_core.export import export_onnx, export_torch
from spmtrack_core.geometry.boxes import xywh_to_xyxy, xyxy_to_xywh
from spmtrack_core.model.networks import networks
from spmtrack_core.model.spmtrack import Prediction
from spmtrack_core.model.weights import Checkpoint, load_checkpoint
from spmtrack_core.runtimes.description import ENTRY
from spmtrack_core.runtimes.exported import ONNX_FORMAT, second_file
from spmtrack_core.runtimes.onnx_model import OnnxSPMTrack
from spmtrack_core.tracking.host_engine import HostEngine
from spmtrack_core.tracking.loading import BUNDLED_WEIGHTS, load_tracker
from spmtrack_core.tracking.tracker import Tracker

VARIANTS = ["default", "shared_expert", "route_compression", "swiglu_nonsquare"]
NANO = BUNDLED_WEIGHTS / "nano.safetensors"
TINY_SETTINGS = TrackerConfig(reference_rule="thirds", lost_threshold=0.0, window_weight=0.3)
FLOAT32, FLOAT16 = torch.float32, torch.float16


def golden_checkpoint(name, **settings):
    provenance = {"made by": "a test"}
    config = TrackerConfig(**settings)
    return Checkpoint(golden_model(name), golden_config(name), config, provenance)


def inputs_of(config, targets, seed=0):
    """Search regions, reference frames, masks and state tokens, as ``SPMTrack`` takes them."""
    made = torch.Generator().manual_seed(seed)
    return (
        torch.randn(targets, 3, *config.search_hw, generator=made),
        torch.randn(targets, 3, 3, *config.template_hw, generator=made),
        (torch.rand(targets, 3, *config.template_grid_hw, generator=made) > 0.5).float(),
        torch.randn(targets, 1, config.embed_dim, generator=made),
    )


def run(encode, locate, search, references, masks, state):
    """What ``SPMTrack`` computes from tensors, by two networks."""
    encoded = [encode(references[:, i], masks[:, i])[0] for i in range(references.shape[1])]
    return Prediction(*locate(search, torch.stack(encoded, 1), state))


def run_arrays(network, *tensors):
    """The same by a network that takes and gives arrays."""

    def on_arrays(function):
        return lambda *given: [torch.from_numpy(a) for a in function(*(t.numpy() for t in given))]

    return run(on_arrays(network.encode_reference), on_arrays(network), *tensors)


def made_once(factory, name, make):
    """A file that all processes of a test run share: an export takes a minute."""
    folder = factory.getbasetemp()
    path = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / name
    with FileLock(f"{path}.lock"):
        if not path.exists():
            make(path)
    return path


@pytest.fixture(scope="module")
def nano_onnx(tmp_path_factory):
    checkpoint = load_checkpoint(NANO)
    return made_once(
        tmp_path_factory, "nano.onnx", lambda path: export_onnx(checkpoint, path, FLOAT32)
    )


@pytest.fixture(scope="module")
def tiny_onnx(tiny_checkpoint, tmp_path_factory):
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint = replace(checkpoint, tracker_config=TINY_SETTINGS, provenance={"made": "so"})
    return made_once(
        tmp_path_factory, "tiny.onnx", lambda path: export_onnx(checkpoint, path, FLOAT32)
    )


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_frames_give_the_published_maps_in_onnx_runtime(variant, tmp_path, parity):
    export_onnx(golden_checkpoint(f"model_{variant}_params"), tmp_path / "x.onnx", FLOAT32)
    model, io = OnnxSPMTrack(tmp_path / "x.onnx"), golden_tensors(f"model_{variant}_io")
    references = torch.stack([io[f"in.z_{i}"] for i in range(3)], 1)
    masks = torch.stack([io[f"in.z_{i}_feat_mask"] for i in range(3)], 1).float()
    state = torch.from_numpy(model.no_state).repeat(len(references), 1, 1)
    for frame in range(2):
        prediction = run_arrays(model, io[f"in.x_{frame}"], references, masks, state)
        for quantity, actual, name in (
            ("score logits", prediction.score_map, "score_map"),
            ("boxes", prediction.boxes, "boxes"),
        ):
            parity.close(
                f"model_{variant}",
                f"{quantity}, ONNX Runtime",
                actual,
                io[f"out.{frame}_{name}"],
                atol=1e-4,
            )
        state = prediction.state_token


@pytest.mark.golden
@pytest.mark.slow
def test_a_whole_clip_is_tracked_as_published_in_onnx_runtime(tmp_path, parity):
    checkpoint = golden_checkpoint("e2e_params", lost_threshold=0.0)
    export_onnx(checkpoint, tmp_path / "x.onnx", FLOAT32)
    tracker = load_tracker(tmp_path / "x.onnx", "cpu")
    recorded = json.loads((GOLDEN / "e2e_tracking.json").read_text())
    frames = np.load(GOLDEN / "e2e_frames.npz")["frames"]
    for rule in ("half_segments", "thirds"):
        tracker.config = replace(tracker.config, reference_rule=rule)
        tracker.init(frames[0], xyxy_to_xywh(recorded["initial_box"]))
        for record in recorded["runs"][f"rule_{rule}"]:
            box = xywh_to_xyxy(tracker.update(frames[record["t"]]).box_xywh)
            parity.close(
                "e2e_tracking",
                "boxes in the image, ONNX Runtime",
                box,
                record["image_box"],
                atol=1e-2,
            )


def follow(tracker, count):
    """Tracked and true boxes of the built-in scene."""
    sequence = scene()
    first, *rest = itertools.islice(sequence, count)
    tracker.init(first, sequence.boxes_xywh[0])
    return [tracker.update(frame).box_xywh for frame in rest], sequence.boxes_xywh[1:count]


@pytest.mark.slow
def test_nano_tracks_as_well_as_in_torch(nano_onnx):
    found, expected = (follow(load_tracker(w, "cpu"), 30)[0] for w in (nano_onnx, "nano"))
    np.testing.assert_allclose(found, expected, atol=1e-2)


@pytest.mark.slow
def test_nano_tracks_as_well_in_int8(nano_onnx, tmp_path):
    int8 = tmp_path / "int8.onnx"
    for source, target in ((nano_onnx, int8), (second_file(nano_onnx), second_file(int8))):
        module.round_to_int8(source, target)
    assert int8.stat().st_size < 0.7 * nano_onnx.stat().st_size  # convolutions stay float32
    less, full = (mean_iou(*follow(load_tracker(w, "cpu"), 20)) for w in (int8, "nano"))
    assert abs(less - full) < 0.02


@pytest.mark.slow
@torch.no_grad()
def test_a_float16_file_finds_nearly_as_well(tiny_checkpoint, tiny_onnx, tmp_path):
    checkpoint = load_checkpoint(tiny_checkpoint, dtype=FLOAT16)
    export_onnx(checkpoint, tmp_path / "half.onnx", FLOAT16)
    tensors = inputs_of(checkpoint.model_config, 2)
    both = (run_arrays(OnnxSPMTrack(f), *tensors) for f in (tmp_path / "half.onnx", tiny_onnx))
    assert_close(*both, atol=0.02, rtol=0)


@pytest.mark.parametrize("targets", [1, 3])
@torch.no_grad()
def test_any_number_of_targets_in_one_call(tiny_checkpoint, tiny_onnx, targets):
    checkpoint = load_checkpoint(tiny_checkpoint)
    tensors = inputs_of(checkpoint.model_config, targets)
    actual = run_arrays(OnnxSPMTrack(tiny_onnx), *tensors)
    assert_close(actual, checkpoint.model.eval()(*tensors), atol=1e-4, rtol=0)


def test_openvino_reads_the_file_too(tiny_onnx):
    pytest.importorskip("openvino")
    found = [
        follow(load_tracker(tiny_onnx, "cpu", runtime=runtime), 10)[0]
        for runtime in ("openvino", "onnxruntime")
    ]
    np.testing.assert_allclose(*found, atol=1e-2)


@torch.no_grad()
def test_no_state_token_equals_a_state_token_of_zeros(tiny_checkpoint):
    """So the first frame needs no network of its own."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    network = checkpoint.model.eval()
    *images, state = inputs_of(checkpoint.model_config, 2)
    absent, zeros = network(*images), network(*images, torch.zeros_like(state))
    assert all(torch.equal(*pair) for pair in zip(absent, zeros, strict=True))
    assert not torch.equal(network(*images, state).score_map, absent.score_map)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16], ids=["float32", "float16"])
@torch.no_grad()
def test_a_pt2_file_is_loaded_and_run_by_torch_alone(tiny_checkpoint, tmp_path, dtype):
    checkpoint = load_checkpoint(tiny_checkpoint, dtype=dtype)
    export_torch(checkpoint, tmp_path / "x.pt2", dtype)
    settings = {module.TORCH_SETTINGS: ""}
    locate = torch.export.load(tmp_path / "x.pt2", extra_files=settings).module()
    encode = torch.export.load(tmp_path / "x.references.pt2").module()
    assert json.loads(settings[module.TORCH_SETTINGS])["format"] == ONNX_FORMAT
    off = 0.02 if dtype is FLOAT16 else 1e-6
    whole = load_checkpoint(tiny_checkpoint).model.eval()
    for targets in (1, 3):
        tensors = inputs_of(checkpoint.model_config, targets)
        assert_close(run(encode, locate, *tensors), whole(*tensors), atol=off, rtol=0)


def test_settings_and_provenance_go_with_the_file(tiny_checkpoint, tiny_onnx):
    stored = OnnxSPMTrack(tiny_onnx)
    assert stored.model_config == load_checkpoint(tiny_checkpoint).model_config
    assert (stored.tracker_config, stored.provenance) == (TINY_SETTINGS, {"made": "so"})
    assert load_tracker(tiny_onnx, "cpu").config == TINY_SETTINGS
    assert load_tracker(tiny_onnx, "cpu", lost_threshold=0.1).config.lost_threshold == 0.1


LARGE = ["large.onnx", "large.onnx.data", "large.references.onnx", "large.references.onnx.data"]


@pytest.mark.slow
def test_tensors_too_large_for_one_file_go_into_another(
    tiny_checkpoint, tiny_onnx, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "LARGEST_FILE", 1000)
    path = tmp_path / "new" / "large.onnx"
    path.parent.mkdir()
    for name in LARGE:
        path.with_name(name).write_text("an older export")
    files = export_onnx(load_checkpoint(tiny_checkpoint), path, FLOAT32)
    assert files[0] == path
    assert sorted(file.name for file in files) == LARGE
    assert sorted(files) == sorted(path.parent.iterdir())
    inputs = inputs_of(load_checkpoint(tiny_checkpoint).model_config, 1)
    both = (run_arrays(OnnxSPMTrack(each), *inputs) for each in (path, tiny_onnx))
    assert_close(*both, atol=1e-5, rtol=0)

    int8 = tmp_path / path.name
    for source, target in ((path, int8), (second_file(path), second_file(int8))):
        module.round_to_int8(source, target, large=True)
    sizes = (f.with_name("large.onnx.data").stat().st_size for f in (int8, path))
    assert next(sizes) < next(sizes)  # the float32 tensors are not there as well
    assert run_arrays(OnnxSPMTrack(int8), *inputs).score_map.isfinite().all()

    path.with_name("large.onnx.data").unlink()
    with pytest.raises(ValueError, match=r"large\.onnx"):
        OnnxSPMTrack(path)


@pytest.mark.parametrize(("write", "suffix"), [(export_onnx, ".onnx"), (export_torch, ".pt2")])
def test_an_export_that_fails_leaves_older_files_as_they_are(
    tiny_checkpoint, tmp_path, monkeypatch, write, suffix
):
    """A new file of reference frames beside an old network would give wrong boxes."""

    def fail_at_the_second(*_):
        yield "encode", torch.export.export(torch.nn.ReLU(), (torch.zeros(3),))
        raise RuntimeError("no memory")

    monkeypatch.setattr(module, "_programs", fail_at_the_second)
    monkeypatch.setitem(module.INPUTS, "encode", ("reference",))
    path = tmp_path / f"x{suffix}"
    for file in (path, path.with_suffix(f".references{suffix}")):
        file.write_text("older")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="no memory"):
        write(load_checkpoint(tiny_checkpoint), path, FLOAT32)
    assert sorted(tmp_path.iterdir()) == before
    assert {file.read_text() for file in before} == {"older"}


@pytest.mark.parametrize("separate", [False, True])
def test_the_network_of_reference_frames_has_no_more_than_it_needs(tiny_checkpoint, separate):
    """That of SPMTrack-G would have 4 GB."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.model.separate_references = separate
    names = {
        part: {name.split(".")[1] for name in network.module.state_dict()}
        for part, network in networks(checkpoint, FLOAT32, 3).items()
    }
    needed = {"patch_embed", "reference_tables"}
    assert names["encode"] == needed | ({"blocks"} if separate else set())
    assert names["locate"] >= needed | {"blocks", "head", "norm", "search_table", "query"}


def foreign(path):
    """Somebody else's network."""
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [1])], [value("y", 1, [1])])
    opsets = [onnx.helper.make_opsetid("", module.OPSET)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def edited(path, source, **changes):
    model = onnx.load(source)
    (entry,) = (each for each in model.metadata_props if each.key == ENTRY)
    entry.value = json.dumps(json.loads(entry.value) | changes)
    onnx.save(model, path)


NOT_OURS = f"bad.onnx cannot be used: it is no {ONNX_FORMAT} network; spmtrack export writes them"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("empty", "cannot read .*bad.onnx"),
        ("text", "cannot read .*bad.onnx"),
        ("cut", "cannot read .*bad.onnx"),
        ("foreign", NOT_OURS),
        ("version", NOT_OURS),
        ("settings", "bad.onnx cannot be used: unknown key .color. under model"),
        ("alone", "bad.onnx has no bad.references.onnx beside it"),
    ],
)
def test_other_onnx_files_are_named_in_one_line(tiny_onnx, tmp_path, fault, reason):
    path = tmp_path / "bad.onnx"
    match fault:
        case "empty":
            path.touch()
        case "text":
            path.write_text("no network")
        case "cut":
            path.write_bytes(tiny_onnx.read_bytes()[:-9999])
        case "foreign":
            foreign(path)
        case "version":
            edited(path, tiny_onnx, format="spmtrack-onnx-99")
        case "settings":
            edited(path, tiny_onnx, model={"color": "blue"})
        case "alone":
            foreign(path)
    if fault != "alone":
        shutil.copy(second_file(tiny_onnx), second_file(path))
    with pytest.raises((ValueError, FileNotFoundError), match=reason) as caught:
        load_tracker(path, "cpu")
    assert "\n" not in str(caught.value)


def test_trunk_and_precision_of_an_onnx_file_cannot_be_replaced(tiny_onnx):
    for extra in ({"precision": "float16"}, {"trunk": NANO}):
        with pytest.raises(ValueError, match="stores its own trunk and precision"):
            load_tracker(tiny_onnx, "cpu", **extra)


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_unknown_devices_are_named(tiny_onnx, device):
    with pytest.raises(ValueError, match=f"auto, cpu, cuda or cuda:N; got {device!r}"):
        load_tracker(tiny_onnx, device)


def test_without_onnx_runtime_the_error_names_the_extra(tiny_onnx, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeError, match=r"spmtrack_ros\[onnx\]"):
        load_tracker(tiny_onnx, "cpu", runtime="onnxruntime")


def test_an_absent_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        OnnxSPMTrack(tmp_path / "absent.onnx")


def test_a_tracker_can_be_made_from_an_onnx_network(tiny_onnx):
    model = OnnxSPMTrack(tiny_onnx)
    tracker = Tracker(HostEngine(model, model.model_config), model.tracker_config)
    assert np.isfinite(follow(tracker, 4)[0]).all()
