"""Settings: strict reading, overrides, and values out of range."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.settings import from_dict, load_yaml, to_dict


@dataclass(frozen=True)
class Run:
    model: ModelConfig = field(default_factory=ModelConfig)
    rate: float = 1.0
    steps: int = 10
    name: str = "run"
    limit: float | None = None
    sides: tuple[int, ...] = ()


def read(tmp_path, text, overrides=()):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return load_yaml(path, Run, overrides)


def test_values_arrive_with_their_types(tmp_path):
    run = read(
        tmp_path,
        "rate: 1e-4\nlimit: 3\nsides: [1, 2]\nmodel:\n  search_hw: [252, 378]\n",
        ["model.rank=8", "name=other", "limit=null"],
    )
    assert run.rate == 1e-4  # YAML reads 1e-4 as text
    assert run.model.search_hw == (252, 378)
    assert (run.model.rank, run.name, run.limit, run.sides) == (8, "other", None, (1, 2))
    assert from_dict(Run, to_dict(run)) == run


@pytest.mark.parametrize(
    ("text", "overrides", "match"),
    [
        ("speed: 3", (), "unknown key 'speed'"),
        ("model: {width: 3}", (), "unknown key 'width' under model"),
        ("steps: 1.5", (), "steps must be int; got 1.5"),
        ("steps: true", (), "steps must be int"),
        ("rate: fast", (), "rate must be float; got 'fast'"),
        ("name: 3", (), "name must be str"),
        ("model: {search_hw: [1, 2, 3]}", (), r"model\.search_hw must be"),
        ("model: 3", (), "model must be ModelConfig"),
        ("- 1", (), "keys and values"),
        ("a: [", (), "is not YAML"),
        ("seed: 1\nsteps: 2\nseed: 3", (), "the key seed stands twice in .*line 3"),
        ("a: {<<: {}, <<: {}}", (), r"<< stands twice; expected a list, <<: \[\*a, \*b\] in .*"),
        ("", ("steps",), "key=value"),
        ("", ("name.first=x",), "name"),
        ("", ("steps=[1",), "not YAML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, overrides, match):
    with pytest.raises(ValueError, match=match):
        read(tmp_path, text, overrides)


def test_an_absent_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_yaml(tmp_path / "absent.yaml", Run)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"num_heads": 7}, "does not divide"),
        ({"ffn": "moe"}, "ffn must be"),
        ({"stem": "conv"}, "power of two"),
        (
            {"stem": "conv", "patch_size": 16, "template_hw": (96, 96), "search_hw": (192, 192)},
            "explicit",
        ),
        ({"search_hw": (380, 378)}, "multiples of 14"),
        ({"template_hw": (392, 392)}, "must fit in search"),
        ({"shared_expert": True, "expert_compressors": True}, "exclude each other"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"alpha": float("nan")}, "alpha must be finite"),
    ],
)
def test_networks_that_cannot_be_built_are_rejected(settings, match):
    with pytest.raises(ValueError, match=match):
        ModelConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"template_area_factor": float("nan")},
        {"search_area_factor": 0.5},
        {"min_side": float("inf")},
        {"window_weight": 1.1},
        {"lost_threshold": -1},
        {"reference_rule": "all"},
        {"buffer_frames": 2},
    ],
)
def test_tracker_settings_out_of_range_are_rejected(settings):
    with pytest.raises(ValueError):
        TrackerConfig(**settings)


def test_scaling_follows_the_rank():
    assert ModelConfig(rank=8, alpha=12.0).scaling == 1.5
    assert ModelConfig(rank=16, alpha=8.0, rs_scaling=True).scaling == 2.0
