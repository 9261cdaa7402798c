"""Runs on videos as users start them: one process, several, two nodes, interrupted."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from dataset_trees import make_coco, make_got10k, make_lasot, make_trackingnet, text
from published_files import trunk_part
from rich.console import Console

from spmtrack_core.data.recording import write_boxes, write_image
from spmtrack_core.data.scene import scene
from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.settings import load_yaml
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.photo_pool import read_photos
from spmtrack_core.training.sources import first_batch, open_datasets, training_batches
from spmtrack_core.training.trainer import train

RECIPES = Path(__file__).parents[3] / "recipes"
SPMTRACK = Path(sys.executable).with_name("spmtrack")
TORCHRUN = SPMTRACK.with_name("torchrun")


TINY = """
model: {trunk: explicit, embed_dim: 32, depth: 2, num_heads: 2, mlp_hidden: 32, patch_size: 16,
        template_hw: [32, 32], search_hw: [64, 64], rank: 2, alpha: 2.0, experts: 2}
data: videos
validation_samples: 2
validation_frames: 4
device: cpu
steps: 4
batch_size: 4
workers: 0
ema_decay: 0.9
log_every: 1
validation_every: 2
checkpoint_every: 2
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Three clips of the built-in scene as a user's clips; one loses its target for a while."""
    root, sequence = tmp_path_factory.mktemp("clips"), scene()
    frames = list(itertools.islice(sequence, 24))
    scale = np.array([160 / frames[0].shape[1], 120 / frames[0].shape[0]] * 2)
    for clip in range(3):
        part = range(8 * clip, 8 * clip + 8)
        for index in part:
            small = cv2.resize(frames[index], (160, 120))
            write_image(root / f"{clip}" / f"{index:04d}.jpg", small)
        boxes = sequence.boxes_xywh[part.start : part.stop] * scale
        if clip == 2:
            boxes[4:6] = np.nan
        write_boxes(root / f"{clip}" / "groundtruth.txt", boxes)
    return root


@pytest.fixture(scope="module")
def settings(clips, tmp_path_factory) -> Path:
    """A tiny run on those clips."""
    folder = [{"name": "folder", "root": str(clips)}]
    tree = yaml.safe_load(TINY)
    tree |= {"videos": {"datasets": folder, "absent_share": 0.3}, "validation": folder[0]}
    path = tmp_path_factory.mktemp("run") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def alone(settings) -> Path:
    """The run of one process; all other runs must equal it."""
    output = settings.parent / "alone"
    train(load_yaml(settings, TrainConfig, [f"output={output}"]))
    return output


def numbers(run: Path) -> np.ndarray:
    """(steps, 4) figures of a run; the last column is its final validation."""
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ("loss", "gradient_norm", "lr")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    ends = [float(rows[-1][name]) for name in ("validation_iou", "validation_ao")]
    return np.array([[float(row[name]) for name in columns] + ends for row in rows])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "weights.safetensors").model.state_dict()


def start(*command: object) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(word) for word in command],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(*processes: subprocess.Popen) -> str:
    texts = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(texts)
    return texts[0]


def assert_same(run: Path, alone: Path) -> None:
    np.testing.assert_allclose(numbers(run), numbers(alone), rtol=2e-4)
    ours, theirs = weights(run), weights(alone)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture(scope="module")
def mixed(settings, tmp_path_factory) -> TrainConfig:
    """The same run with three synthetic tracks beside each real one."""
    folder, random = tmp_path_factory.mktemp("stills"), np.random.default_rng(0)
    for i in range(3):
        write_image(folder / f"{i}.jpg", random.integers(0, 256, (32, 40, 3), np.uint8))
    changes = [
        "data=mixed",
        "batch_size=8",
        f"synthetic.images={folder}",
        "validation=null",
        "synthetic.image_side=32",
        "synthetic.patch_side=16",
        "validation_samples=8",
    ]
    return load_yaml(settings, TrainConfig, changes)


def test_a_mixed_batch_joins_batches_of_both_kinds(mixed):
    """Each kind has the same samples as without the other, from any step on."""
    pool = read_photos(mixed.synthetic, torch.device("cpu"))
    datasets = open_datasets(mixed, Console(quiet=True))

    def batches(kind: str, size: int, step: int) -> list[Batch]:
        alone = replace(mixed, data=kind, batch_size=size)
        photos = None if kind == "videos" else pool
        return list(training_batches(alone, photos, datasets, step, 3))

    for step in (0, 2):
        parts = batches("synthetic", 6, step), batches("videos", 2, step)
        whole = batches("mixed", 8, step)
        assert len(whole) == 3 - step
        for both, made, real in zip(whole, *parts, strict=True):
            for tensor, *expected in zip(both, made, real, strict=True):
                assert {part.dtype for part in (tensor, *expected)} == {torch.float32}
                torch.testing.assert_close(
                    tensor, torch.cat(expected), rtol=0, atol=0, equal_nan=True
                )


def test_a_mixed_run_resumes_exactly(mixed, tmp_path):
    whole, half = (replace(mixed, output=str(tmp_path / name)) for name in ("whole", "half"))
    provenance = load_checkpoint(train(whole)).provenance
    assert provenance["samples"] == "32 mixed tracks"
    train(half, time_limit_min=1e-9)  # one step
    train(half, resume=True)
    logs = []
    for name in ("whole", "half"):
        with (tmp_path / name / "log.csv").open(newline="") as file:
            logs.append([(row["step"], row["loss"]) for row in csv.DictReader(file)])
    assert len(logs[0]) == 4 and logs[0] == logs[1]
    with (tmp_path / "half" / "log.csv").open(newline="") as file:
        assert float([*csv.DictReader(file)][-1]["validation_iou"]) >= 0  # on synthetic tracks


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_contact_sheet_of_mixed_tracks_shows_both_kinds(mixed, share):
    config = replace(mixed, batch_size=200, video_share=share)
    assert len(first_batch(config).searches) == 12


@pytest.mark.parametrize(
    ("batch_size", "number", "share"),
    [(2, 1, 0.2), (4, 1, 0.9), (16, 4, 0.125)],
    ids=["none is real", "none is synthetic", "two in four micro-batches"],
)
def test_mixed_batches_that_cannot_be_divided_are_rejected(mixed, batch_size, number, share):
    change = {"batch_size": batch_size, "gradient_accumulation_steps": number}
    with pytest.raises(ValueError, match="some of each kind, and a multiple of the"):
        replace(mixed, video_share=share, **change)


def test_gradient_accumulation_gives_the_same_run(settings, alone):
    output = settings.parent / "accumulated"
    change = [f"output={output}", "gradient_accumulation_steps=2"]
    train(load_yaml(settings, TrainConfig, change))
    assert_same(output, alone)


def test_the_number_of_workers_changes_nothing(settings, alone):
    output = settings.parent / "workers"
    train(load_yaml(settings, TrainConfig, [f"output={output}", "workers=2"]))
    assert_same(output, alone)


@pytest.mark.slow
def test_two_processes_resumed_by_one_are_the_same_run(settings, alone):
    output = settings.parent / "two"
    command = SPMTRACK, "train", settings, f"output={output}", "devices=2"
    text = finish(start(*command, "--time-limit", "0.0001"))
    assert text.count("wrote") == 1, text  # one process reports for all
    assert len((output / "log.csv").read_text().splitlines()) == 2  # one step
    change = [f"output={output}", "gradient_accumulation_steps=2"]
    train(load_yaml(settings, TrainConfig, change), resume=True)
    assert_same(output, alone)


@pytest.mark.slow
def test_two_nodes_are_the_same_run(settings, alone):
    """As docs/training.md starts them, both on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = settings.parent / "nodes"
    launch = f"--nnodes 2 --nproc-per-node 1 --master-addr 127.0.0.1 --master-port {port}".split()
    run = SPMTRACK, "train", settings, f"output={output}", "nodes=2"
    finish(*(start(TORCHRUN, *launch, "--node-rank", rank, *run) for rank in range(2)))
    assert_same(output, alone)


@pytest.mark.parametrize(
    "recipe",
    ["spmtrack_b", pytest.param("spmtrack_b_got10k", marks=pytest.mark.slow)],
)
def test_the_published_recipes_run_on_tiny_copies_of_the_datasets(recipe, tmp_path):
    """The recipes of docs/training.md, with smaller sizes."""
    for name, make in (
        ("LaSOT", make_lasot),
        ("TrackingNet", make_trackingnet),
        ("GOT-10k", make_got10k),
        ("COCO", make_coco),
    ):
        make(tmp_path / "data" / name)
    text(tmp_path / "data" / "got10k_vot_exclude.txt", "GOT-10k_Train_000005")
    torch.save(trunk_part("default"), tmp_path / "dinov2.pth")
    tree = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    small = yaml.safe_load(TINY)
    tree["model"] = small["model"] | {
        "embed_dim": 64,
        "depth": 3,
        "num_heads": 4,
        "mlp_hidden": 256,
        "patch_size": 14,
        "template_hw": [56, 56],
        "search_hw": [98, 98],
    }
    # the tiny copy of GOT-10k shows each target once, which cannot be validated on
    tree["validation"] |= {"name": "trackingnet", "root": "data/TrackingNet", "split": "train"}
    for place in (*tree["videos"]["datasets"], tree["validation"]):
        for key in ("root", "exclude"):
            if key in place:
                place[key] = str(tmp_path / place[key])
    tree |= {name: small[name] for name in ("device", "batch_size", "workers", "log_every")}
    tree |= {"trunk": str(tmp_path / "dinov2.pth"), "output": str(tmp_path / "run")}
    tree |= {"devices": 1, "steps": 2}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    weights = train(load_yaml(path, TrainConfig))
    loaded = load_checkpoint(weights, tmp_path / "dinov2.pth")  # adapters alone, as published
    assert loaded.model_config.rank == 2
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert np.isfinite([float(last["loss"]), float(last["validation_iou"])]).all()


def test_a_validation_set_without_visible_targets_is_named_at_the_start(settings, tmp_path):
    make_got10k(tmp_path / "got")
    change = [
        f"output={tmp_path / 'run'}",
        f"validation={{name: got10k, root: {tmp_path / 'got'}}}",
    ]
    with pytest.raises(ValueError, match="no sequence of the validation set got10k shows"):
        train(load_yaml(settings, TrainConfig, change))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("gradient_accumulation_steps=3", "batch_size 4 must be a multiple of 6"),
        ("videos.datasets=[{name: folder, root: nowhere}]", "nowhere"),
        ("videos.datasets=[{name: folder}]", "videos.datasets needs root"),
        ("validation={name: folder, root: nowhere}", "nowhere"),
        ("videos.datasets=[]", "names none"),
        ("start_from=nothing", "no weights 'nothing'"),
        ("trunk=nowhere.pth", "nowhere.pth"),
    ],
)
def test_an_error_of_two_processes_is_one_line(settings, tmp_path, change, match, spmtrack):
    code, _, err = spmtrack("train", settings, "devices=2", f"output={tmp_path / 'x'}", change)
    assert (code, err.count("error")) == (2, 1), err
    assert match in err
    assert not (tmp_path / "x").exists()


@pytest.mark.filterwarnings("ignore:.*cannot be read and is replaced")
def test_validation_goes_on_after_a_broken_frame(settings, clips, tmp_path):
    for clip in clips.iterdir():
        shutil.copytree(clip, tmp_path / "clips" / clip.name)
    (tmp_path / "clips" / "0" / "0003.jpg").write_bytes(b"no image")
    change = [
        f"output={tmp_path / 'run'}",
        "steps=2",
        "validation_samples=3",
        "validation_frames=1000000000000",  # all of them, and no memory for more
        f"validation.root={tmp_path / 'clips'}",
    ]
    with pytest.warns(UserWarning, match=r"not validated on 0: .*0003\.jpg"):
        train(load_yaml(settings, TrainConfig, change))
    assert load_checkpoint(tmp_path / "run" / "best.safetensors")


@pytest.mark.slow
def test_fewer_sequences_than_processes_give_one_score(settings):
    output = settings.parent / "fewer"
    finish(
        start(
            SPMTRACK,
            "train",
            settings,
            f"output={output}",
            "devices=2",
            "validation_samples=1",
            "steps=2",
        )
    )
    provenance = load_checkpoint(output / "best.safetensors").provenance
    alone = settings.parent / "fewer_alone"
    train(load_yaml(settings, TrainConfig, [f"output={alone}", "validation_samples=1", "steps=2"]))
    assert (
        provenance["validation_iou"]
        == load_checkpoint(alone / "best.safetensors").provenance["validation_iou"]
    )


def test_float16_needs_a_gpu(settings):
    config = load_yaml(settings, TrainConfig, ["precision=float16"])
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        train(config)


def test_bundled_weights_adapt_to_own_clips(clips, tmp_path, spmtrack):
    """The recipe of docs/training.md, with nano: network and crops come from its file."""
    change = [
        "start_from=nano",
        f"videos.datasets=[{{name: folder, root: {clips}}}]",
        f"validation={{name: folder, root: {clips}}}",
        "validation_frames=3",
        "device=cpu",
        f"output={tmp_path / 'run'}",
        "steps=2",
        "batch_size=2",
        "workers=0",
        "precision=float32",
        "log_every=1",
        "validation_every=2",
        "checkpoint_every=2",
        "tracker.lost_threshold=0.3",
    ]
    sheet = tmp_path / "sheet.png"
    code, _, err = spmtrack("train", RECIPES / "own_clips.yaml", *change, "--show", sheet)
    assert code == 0, err
    assert cv2.imread(str(sheet)).shape[0] == 12 * (208 + 4)  # what nano sees
    code, _, err = spmtrack("train", RECIPES / "own_clips.yaml", *change)
    assert code == 0, err
    adapted = load_checkpoint(tmp_path / "run" / "weights.safetensors")
    before = load_checkpoint(Path(__file__).parents[3] / "spmtrack_core/weights/nano.safetensors")
    assert adapted.model_config == before.model_config
    assert adapted.tracker_config == replace(before.tracker_config, lost_threshold=0.3)
    assert "before" in adapted.provenance
    same = {
        n
        for n, t in adapted.model.state_dict().items()
        if torch.equal(t, before.model.state_dict()[n])
    }
    assert "trunk.blocks.0.attn.proj.weight" in same
    assert "trunk.blocks.0.attn.proj.experts" not in same


@pytest.mark.slow
def test_the_script_of_nano_makes_all_runs_and_goes_on_where_it_was(settings, tmp_path):
    recipes, runs = tmp_path / "recipes", tmp_path / "runs"
    recipes.mkdir()
    shutil.copy(RECIPES / "nano.sh", recipes)
    shutil.copy(settings, recipes / "nano.yaml")
    path = f"{SPMTRACK.parent}:{os.environ['PATH']}"
    small = "batch_size=4", "decay_steps=4", "stem_frozen_steps=0"

    def call(*arguments):
        return subprocess.run(
            [recipes / "nano.sh", *small, *arguments],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )

    broken = call("steps=4", "synthetic.part_share=7")  # as a run that is interrupted
    assert broken.returncode and not runs.exists(), broken.stderr
    made = call("steps=4")
    assert made.returncode == 0, made.stderr
    assert made.stdout.endswith("wrote runs/nano_third/weights.safetensors\n")
    first, second, third = (
        load_checkpoint(runs / name / "weights.safetensors").provenance
        for name in ("nano", "nano_second", "nano_third")
    )
    assert {first["steps"], second["steps"], third["steps"]} == {"4"}
    before = [each["command"] for each in json.loads(third["before"])]
    assert before == [second["command"], first["command"]] and "before" not in first
    again = call("steps=4")
    assert (again.returncode, again.stderr.count("this run has ended already")) == (0, 1)
