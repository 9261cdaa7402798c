"""Disturbances: boxes still fit their frames, and every reading gives the same frames."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.disturb import (
    DISTURBANCES,
    dark,
    hidden,
    lit,
    redrawn,
    shaken,
    slow,
    small,
)

SIDE = 40
"""Of a white square, px, that moves by 2 px a frame over a gray picture."""


@pytest.fixture
def sequence() -> FrameSequence:
    boxes = np.array([[100.0 + 2 * k, 60.0, SIDE, SIDE] for k in range(30)])

    def frames():
        for x, y, w, h in boxes.astype(int):
            frame = np.full((200, 320, 3), 90, np.uint8)
            frame[y : y + h, x : x + w] = 255
            yield frame

    boxes_with_a_gap = boxes.copy()
    boxes_with_a_gap[5] = np.nan
    return FrameSequence("square", frames, 30, 30.0, boxes_with_a_gap)


def white_box(frame: np.ndarray) -> list[float]:
    y, x = (frame.min(2) > (int(frame.max()) + int(np.median(frame))) / 2).nonzero()
    return [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]


@pytest.mark.parametrize("name", DISTURBANCES)
def test_a_disturbed_sequence_can_be_read_twice(sequence, name):
    harder = DISTURBANCES[name](sequence)
    first, again = list(harder), list(harder)
    assert len(first) == len(harder.boxes_xywh) == harder.length
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert {(frame.dtype.name, frame.shape) for frame in first} == {("uint8", first[0].shape)}
    assert np.isfinite(harder.boxes_xywh[0]).all()
    absent = np.isnan(harder.boxes_xywh).any(1)
    # frame 5 is not one in three; frames 12 to 19 of 20 are hidden
    assert absent.sum() == {"slow": 0, "hidden": 9}.get(name, 1)


@pytest.mark.parametrize("change", [small, lit, shaken, slow])
def test_boxes_stay_on_the_target(sequence, change):
    harder = change(sequence)
    for frame, box in zip(harder, harder.boxes_xywh, strict=True):
        if np.isfinite(box).all():
            np.testing.assert_allclose(white_box(frame), box, atol=1.5)


def test_small_frames_are_gray_and_no_larger_than_asked_for(sequence):
    harder = small(sequence, side=20.0)
    frame = next(iter(harder))
    assert frame.shape == (100, 160, 3) and np.ptp(frame, 2).max() == 0
    same = small(sequence, side=50.0)
    assert next(iter(same)).shape == (200, 320, 3)
    np.testing.assert_array_equal(same.boxes_xywh, sequence.boxes_xywh)


def test_dark_has_less_light_and_noise(sequence):
    frame = next(iter(dark(sequence)))
    corner = frame[:50, :90].astype(float)
    assert corner.mean() == pytest.approx(0.4 * 90, abs=1)
    assert corner.std() == pytest.approx(12, abs=1)


def test_a_lamp_is_switched_on(sequence):
    means = [frame[0, 0].mean() for frame in lit(sequence)]
    assert means == [18] * 12 + [90] * 18


def test_redrawn_boxes_stay_inside_the_frame(sequence):
    wide = redrawn(sequence, 1.0, 2.0, 0.5, -0.5)
    np.testing.assert_allclose(wide.boxes_xywh[0], [60, 0, 100, 80])
    gone = redrawn(replace(sequence, boxes_xywh=np.array([[1.0, 1, 10, 10]] * 30)), -2, 0, 0, 0)
    assert np.isnan(gone.boxes_xywh).all()


def test_a_target_shaken_out_of_the_frame_is_absent(sequence):
    far = shaken(sequence, amount=10.0)
    seen = np.isfinite(far.boxes_xywh).all(1)
    assert seen[0] and 0 < seen.sum() < 29
    for frame, box in itertools.compress(zip(far, far.boxes_xywh, strict=True), seen):
        x, y, w, h = box
        assert x >= 0 and y >= 0 and x + w <= frame.shape[1] and y + h <= frame.shape[0]


def test_sequences_without_boxes_are_rejected(sequence):
    for name, change in DISTURBANCES.items():
        if name not in ("dark", "lamp"):
            with pytest.raises(ValueError, match="square has no boxes"):
                change(replace(sequence, boxes_xywh=None))


@pytest.mark.parametrize(
    ("x", "width"),
    [(0, 40), (100, 40), (280, 40), (250, 40), (60, 200), (30, 260), (0, 320)],
    ids=["left", "middle", "right", "near the right", "little beside", "less", "nothing"],
)
def test_hidden_covers_the_target_with_pixels_from_beside_it(sequence, x, width):
    boxes = np.array([[x, 60.0, width, SIDE]] * 30)

    def frames():
        for _ in boxes:
            frame = np.full((200, 320, 3), 90, np.uint8)
            frame[60 : 60 + SIDE, x : x + width] = 255
            yield frame

    harder = hidden(replace(sequence, open=frames, boxes_xywh=boxes), every=10, frames_gone=3)
    gone = np.isnan(harder.boxes_xywh).any(1)
    assert gone.nonzero()[0].tolist() == [7, 8, 9, 17, 18, 19, 27, 28, 29]
    for is_gone, frame in zip(gone, harder, strict=True):
        assert (frame.max() < 255) == is_gone


@pytest.mark.parametrize("frames_gone", [0, 20])
def test_hidden_leaves_some_frames(sequence, frames_gone):
    with pytest.raises(ValueError, match=rf"must be in 1\.\.19; got {frames_gone}"):
        hidden(sequence, frames_gone=frames_gone)
