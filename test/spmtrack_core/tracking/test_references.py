"""Reference frames: the published rule while all frames fit, the nearest stored ones later."""

from __future__ import annotations

import json

import numpy as np
import pytest
from golden_model import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from spmtrack_core.config import REFERENCE_RULES
from spmtrack_core.tracking.references import (
    ExactReferences,
    ReferenceBuffer,
    select_references,
)

RULES = json.loads((GOLDEN / "memory_selection.json").read_text())


def parts(frame: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(1, float(frame)), np.full((2, 1), float(frame))


def filled(frames: int, capacity: int) -> ReferenceBuffer:
    """A buffer whose frames are two arrays filled with their own index."""
    buffer = ReferenceBuffer(capacity, (1,), (2, 1))
    for frame in range(frames):
        buffer.append(*parts(frame))
    return buffer


def gathered(buffer: ReferenceBuffer, rule: str) -> list[int]:
    frames = buffer.gather(rule)
    assert all(one.shape == (1,) and two.tolist() == [[one[0]]] * 2 for one, two in frames)
    return [int(one[0]) for one, _ in frames]


@pytest.mark.golden
@pytest.mark.parametrize("rule", ["half_segments", "thirds"])
def test_selection_is_the_published_one(rule, parity):
    for source, first in (("by_memory_length", 1), (f"rule_{rule}", 4)):
        for stored, expected in RULES[source].items():
            if stored.isdecimal() and int(stored) >= first:
                parity.equal(
                    "memory_selection",
                    f"memory indices, {rule}",
                    select_references(int(stored), rule),
                    expected,
                    stored,
                )


def test_the_first_frames_fill_the_slots_in_order():
    assert [select_references(n, "thirds") for n in (1, 2, 3)] == [(0, 0, 0), (0, 1, 1), (0, 1, 2)]


def test_template_twice_takes_the_template_twice_and_the_middle():
    found = [select_references(n, "template_twice") for n in (1, 2, 3, 100)]
    assert found == [(0, 0, 0), (0, 0, 1), (0, 0, 1), (0, 0, 50)]


@pytest.mark.parametrize("rule", REFERENCE_RULES)
def test_a_video_shorter_than_the_buffer_uses_exactly_the_selected_frames(rule):
    for frames in range(1, 33):
        assert gathered(filled(frames, 32), rule) == list(select_references(frames, rule))


@given(st.integers(1, 700), st.integers(8, 40), st.sampled_from(REFERENCE_RULES))
@settings(max_examples=60, deadline=None)
def test_longer_videos_use_the_nearest_stored_frames(frames, capacity, rule):
    buffer = filled(frames, capacity)
    stored = buffer.parts[0][: buffer.entries].ravel().tolist()
    assert stored == list(range(0, frames, buffer.stride))  # even, from the template on
    assert frames <= capacity or buffer.entries > capacity // 2 - 1
    for wanted, used in zip(select_references(frames, rule), gathered(buffer, rule), strict=True):
        assert abs(used - wanted) == min(abs(frame - wanted) for frame in stored)


@pytest.mark.parametrize("capacity", [8, 9])
def test_skipped_frames_need_no_crop(capacity):
    whole, sparse = filled(200, capacity), filled(0, capacity)
    made = 0
    for frame in range(200):
        if sparse.keeps_next:
            made += 1
            sparse.append(*parts(frame))
        else:
            sparse.skip()
    assert gathered(sparse, "thirds") == gathered(whole, "thirds")
    assert (sparse.frames, sparse.stride, sparse.entries) == (200, whole.stride, whole.entries)
    assert made < 100


def test_memory_is_allocated_once():
    buffer = filled(1, 8)
    before = buffer.parts[1]
    for frame in range(1000):
        buffer.append(*parts(frame))
    assert buffer.parts[1] is before
    assert buffer.parts[1].shape == (8, 2, 1)


@pytest.mark.parametrize(("stored", "rule"), [(0, "thirds"), (9, "quarters"), (2, "quarters")])
def test_unknown_rules_and_empty_buffers_are_rejected(stored, rule):
    with pytest.raises(ValueError):
        select_references(stored, rule)


@pytest.mark.parametrize("rule", REFERENCE_RULES)
@pytest.mark.parametrize("stride", [2, 3])
def test_with_a_stride_from_the_start_the_nearest_stored_frames_are_used(rule, stride):
    buffer = ReferenceBuffer(8, (1,), (2, 1), stride=stride)
    for frame in range(60):
        assert buffer.keeps_next == (frame % buffer.stride == 0)
        buffer.append(*parts(frame))
        for found, wanted in zip(
            gathered(buffer, rule), select_references(frame + 1, rule), strict=True
        ):
            assert found % stride == 0 and abs(found - wanted) < buffer.stride
    assert gathered(buffer, rule)[0] == 0
    assert buffer.stride == 4 * stride


def test_the_template_stands_in_for_every_reference():
    frames = filled(10, 8).template()
    assert [(one.tolist(), two.tolist()) for one, two in frames] == [([0.0], [[0.0]] * 2)] * 3


@given(st.integers(1, 300), st.sampled_from(REFERENCE_RULES))
@settings(max_examples=30)
def test_exact_references_are_those_of_the_rule_in_little_memory(frames, rule):
    exact = ExactReferences(frames, rule)
    most = 0
    for frame in range(frames):
        if frame:
            assert gathered(exact, rule) == list(select_references(frame, rule))
        if exact.keeps_next:
            exact.append(*parts(frame))
        else:
            exact.skip()
        most = max(most, len(exact.kept))
    share = {"half_segments": 0.23, "thirds": 0.34, "template_twice": 0.26}[rule]
    assert most <= share * frames + 4


def test_exact_references_end_where_the_video_was_said_to_end():
    exact = ExactReferences(2, "thirds")
    for frame in range(2):
        exact.append(*parts(frame))
    with pytest.raises(ValueError, match="made for 2 frames by rule thirds; got frame 3"):
        exact.gather("thirds")
