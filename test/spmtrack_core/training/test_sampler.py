"""Frames of a sample: the published rule, tracks too short for it, absences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.training.config import VideoConfig
from spmtrack_core.training.sampler import sample_frames

SEEDS = st.integers(0, 2**32 - 1)
MASKS = st.lists(st.booleans(), min_size=1, max_size=80).filter(any).map(np.array)
CONFIGS = st.builds(
    VideoConfig,
    reference_gap=st.integers(1, 40),
    search_gap=st.integers(2, 40),
    reverse=st.sampled_from([0.0, 0.5, 1.0]),
)


def draw(visible, seed=0, **settings):
    """The five frames in their order of use."""
    config = VideoConfig(**settings)
    frames = sample_frames(np.asarray(visible), np.random.default_rng(seed), config)
    return np.concatenate(frames).tolist()


def shown_at(*frames, length=None):
    visible = np.zeros(length or max(frames) + 1, bool)
    visible[list(frames)] = True
    return visible


@given(MASKS, SEEDS, CONFIGS, st.integers(1, 5))
def test_visible_frames_in_one_direction_of_time(visible, seed, config, count):
    references, searches = sample_frames(visible, np.random.default_rng(seed), config, count)
    assert references.shape == (3,) and searches.shape == (count,)
    frames = np.concatenate([references, searches])
    assert visible[frames].all()
    gaps = np.diff(frames)
    forward, backward = (gaps >= 0).all(), (gaps <= 0).all()
    assert {0.0: forward, 0.5: forward or backward, 1.0: backward}[config.reverse]


@given(st.integers(5, 3000), SEEDS, CONFIGS)
def test_the_gaps_hold_in_a_track_without_absences(length, seed, config):
    references, searches = sample_frames(
        np.ones(length, bool), np.random.default_rng(seed), config
    )
    a, b, c, d, e = sorted([*references.tolist(), *searches.tolist()])

    def drawn(core, outer):
        """Whether ``core`` can be the frames around a base and ``outer`` the two on one side."""
        based = any(0 < max(abs(f - base) for f in core) <= config.reference_gap for base in core)
        away = [core[0] - f if f < core[0] else f - core[2] for f in outer]
        return based and all(0 < gap <= config.search_gap for gap in away)

    assert drawn((a, b, c), (d, e)) or drawn((c, d, e), (a, b))


@given(MASKS, SEEDS, CONFIGS)
def test_frames_depend_on_the_generator_alone(visible, seed, config):
    before = np.random.get_state()[1].copy()
    first, second = (sample_frames(visible, np.random.default_rng(seed), config) for _ in "ab")
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (shown_at(0), [0, 0, 0, 0, 0]),  # a still image
        (shown_at(7, length=20), [7, 7, 7, 7, 7]),  # seen once in a video
        (shown_at(2, 5), [2, 2, 2, 5, 5]),  # searches are at least not the references
        (shown_at(2, 5, 6), [2, 2, 5, 6, 6]),
        (shown_at(0, 1000, 2000, 3000), [0, 1000, 2000, 2000, 3000]),  # all too far apart
        (shown_at(0, 1000, 2000, 3000, 4000), [0, 1000, 2000, 3000, 4000]),
    ],
)
def test_tracks_too_short_or_too_sparse_for_the_rule(visible, expected):
    for seed in range(10):
        assert draw(visible, seed, reverse=0.0) == expected
        assert draw(visible, seed, reverse=1.0) == expected[::-1]


def test_neighbors_in_a_long_sparse_track_are_drawn_from_all_of_it():
    visible = shown_at(*range(0, 10_000, 1000))
    starts = {draw(visible, seed, reverse=0.0)[0] for seed in range(60)}
    assert starts == set(range(0, 6000, 1000))


def test_four_frames_are_enough_for_the_rule():
    seen = {tuple(draw(np.ones(4, bool), seed, reverse=0.0)) for seed in range(300)}
    # two references at one end, the third one of them again, and two searches at the other end
    assert (0, 0, 1, 2, 3) in seen and (0, 1, 2, 2, 3) in seen


def test_both_sides_and_both_directions_are_equally_likely():
    forward = left = 0
    for seed in range(600):
        frames = draw(np.ones(5000, bool), seed, reference_gap=1)
        forward += frames[0] < frames[-1]
        # the three around the base are at most 2 apart here, the other two mostly far away
        first, _, middle, _, last = sorted(frames)
        left += middle - first > last - middle
    assert 250 < forward < 350
    assert 250 < left < 350


def test_absent_last_searches():
    visible = np.ones(300, bool)
    visible[100:150] = False
    sides = set()
    for seed in range(200):
        *seen, last = draw(visible, seed, absent_share=1.0, search_gap=60)
        assert not visible[last] and visible[seen].all()
        assert all(abs(frame - last) <= 60 for frame in seen)
        gaps = np.diff([*seen, last])
        assert (gaps >= 0).all() or (gaps <= 0).all()
        sides.add(seen[0] < last)
    assert sides == {True, False}


@pytest.mark.parametrize(
    ("visible", "why"),
    [
        (np.ones(300, bool), "no absence in this track"),
        (shown_at(*range(50), length=5000), "nearly all of its absence is far from any box"),
    ],
)
def test_absences_that_cannot_be_sampled_leave_the_target_visible(visible, why):
    drawn = [draw(visible, seed, absent_share=1.0, search_gap=20) for seed in range(100)]
    assert sum(visible[frames].all() for frames in drawn) > 90, why


def test_absences_have_their_share():
    visible = np.arange(1000) % 10 != 0
    absent = sum(not visible[draw(visible, s, absent_share=0.25)[-1]] for s in range(600))
    assert 120 < absent < 180


@pytest.mark.parametrize("length", [0, 3])
def test_a_track_that_never_shows_its_target_is_rejected(length):
    with pytest.raises(ValueError, match=f"none of the {length} frames"):
        draw(np.zeros(length, bool))
