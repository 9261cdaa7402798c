"""Recipes: the paper's by dataset and network, overrides, and what differs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.evaluation.protocol import make_protocol

B = ModelConfig()
L = ModelConfig(trunk="vit_large_patch14_dinov2")
B_224 = ModelConfig(template_hw=(112, 112), search_hw=(224, 224))
OWN = TrackerConfig(
    window_weight=0.1,
    box_overlap=0.7,
    reference_rule="template_twice",
    reference_stride=2,
    reference_min_confidence=0.3,
    recovery="scan",
    lost_threshold=0.5,
)


@pytest.mark.parametrize(
    ("dataset", "model", "rule", "repetitions", "whole"),
    [
        ("lasot", B, "thirds", 1, False),
        ("lasot", L, "half_segments", 1, False),
        ("lasot", B_224, "half_segments", 1, False),
        ("lasot_ext", B, "half_segments", 3, False),
        ("got10k", B, "half_segments", 3, True),
        ("trackingnet", B, "half_segments", 1, True),
        ("otb2015", B, "half_segments", 1, False),
    ],
)
def test_the_papers_recipe_by_dataset_and_network(dataset, model, rule, repetitions, whole):
    protocol = make_protocol("paper", [], dataset, "test", OWN, model)
    config = protocol.config
    assert config.tracker.reference_rule == rule
    assert (config.repetitions, config.integer_boxes) == (repetitions, whole)
    assert (config.precision, config.exact_references) == ("float16", True)
    assert (config.tracker.window_weight, config.tracker.search_area_factor) == (0.45, 5.0)
    assert config.tracker.lost_threshold == 0.5  # the paper has none: as stored
    published = replace(config.tracker, policy="published").in_force()
    assert replace(published, policy="weights") == config.tracker
    assert protocol.differences == protocol.from_paper == ()


def test_overrides_win_and_are_named():
    overrides = ["tracker.window_weight=0.3", "precision=float32"]
    protocol = make_protocol("paper", overrides, "lasot", "test", OWN, B)
    assert protocol.config.tracker.window_weight == 0.3
    assert sorted(protocol.differences) == [
        "precision: float32 (instead of float16)",
        "tracker.window_weight: 0.3 (instead of 0.45)",
    ]


def test_the_published_policy_is_recorded_as_the_settings_that_it_means():
    protocol = make_protocol(None, ["tracker.policy=published"], "folder", "", OWN, B)
    assert protocol.config.tracker == TrackerConfig("published", lost_threshold=0.5)
    assert "tracker.window_weight: 0.45 (instead of 0.1)" in protocol.differences
    assert not any(each.startswith("tracker.") for each in protocol.from_paper)


def test_without_a_recipe_the_settings_are_those_of_the_weights():
    protocol = make_protocol(None, [], "folder", "", OWN, B)
    assert protocol.config.tracker == OWN
    assert protocol.differences == ()
    assert "tracker.window_weight: 0.1 (instead of 0.45)" in protocol.from_paper


@pytest.mark.parametrize(
    "override",
    ["tracker.reference_stride=2", "tracker.buffer_frames=64", "tracker={buffer_frames: 64}"],
)
def test_a_setting_of_the_buffer_beside_exact_references_is_refused(override):
    name, cure = override.replace("={", ".").rstrip("}").replace(": ", "="), "exact_references"
    with pytest.raises(ValueError, match=f"{name} has no effect with exact .* add {cure}=false"):
        make_protocol("paper", [override], "lasot", "test", OWN, B)
    with pytest.raises(ValueError, match="has no effect"):
        make_protocol(None, [override, f"{cure}=true"], "folder", "", OWN, B)
    make_protocol("paper", [override, f"{cure}=false"], "lasot", "test", OWN, B)
    # weights may have their own
    own = make_protocol(None, [f"{cure}=true"], "folder", "", OWN, B).config.tracker
    assert own.reference_stride == 2


def test_a_recipe_of_your_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "settings: {repetitions: 2}\ncases:\n- when: {dataset: nfs}\n"
        "  settings: {tracker: {min_side: 5}}\n"
    )
    config = make_protocol(str(path), [], "nfs", "test", OWN, B).config
    assert (config.repetitions, config.tracker.min_side, config.tracker.window_weight) == (
        2,
        5.0,
        0.1,
    )


@pytest.mark.parametrize(
    ("recipe", "overrides", "match"),
    [
        ("papers", [], "no recipe 'papers': expected paper, or the path"),
        (None, ["window=0.3"], "window"),
        (None, ["tracker.window_weight=3"], "window_weight must be in"),
        (None, ["repetitions"], "an override must be key=value"),
        (None, ["precision=int8"], "precision must be one of float32, bfloat16, float16"),
        ("settings: {tracker: {windows: 1}}", [], "windows"),
        ("setting: {}", [], "must hold settings and cases; got 'setting'"),
        ("cases: [{dataset: lasot}]", [], "a case has when"),
        ("cases: [{when: {size: 3}}]", [], "a case has when"),
        ("cases: [{when: {dataset: lasot}, settings: 4}]", [], "a case has when"),
        ("cases: 5", [], "cases a list"),
        ("settings: [1, 2]", [], "settings must be keys and values"),
    ],
)
def test_what_is_no_recipe_is_named(tmp_path, recipe, overrides, match):
    if recipe and ":" in recipe:
        (tmp_path / "r.yaml").write_text(recipe)
        recipe = str(tmp_path / "r.yaml")
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        make_protocol(recipe, overrides, "lasot", "test", OWN, B)
