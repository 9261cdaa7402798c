"""The built-in scene: always the same, with boxes that fit the target."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from spmtrack_core.data import scene as module
from spmtrack_core.data.scene import FRAME_HW, FRAMES, scene, scene_boxes_xywh


@pytest.fixture(scope="module")
def frames():
    return list(scene())


def test_frames_and_boxes_agree_in_number_and_size(frames):
    boxes = scene_boxes_xywh()
    assert len(frames) == len(boxes) == FRAMES
    assert {frame.shape for frame in frames} == {(*FRAME_HW, 3)}
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= FRAME_HW[::-1]).all()


def test_no_two_runs_differ(frames):
    assert all(map(np.array_equal, islice(scene(), 60), frames))


def test_the_box_is_where_the_target_is(frames, monkeypatch):
    """Without the target, the picture changes inside the box and nowhere else."""
    paste, calls = module._paste, []

    def paste_all_but_the_target(*inputs):
        calls.append(1)
        if len(calls) % 2:  # the cup comes first, then the target
            paste(*inputs)

    monkeypatch.setattr(module, "_paste", paste_all_but_the_target)
    hidden = islice(scene(), 0, None, 30)
    boxes = scene_boxes_xywh()[::30]
    for with_target, without, box in zip(frames[::30], hidden, boxes, strict=True):
        rows, columns = np.nonzero(np.abs(with_target.astype(int) - without).max(-1) > 12)
        x, y, w, h = box
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(found, (x, y, x + w, y + h), atol=3)


def test_the_target_moves_smoothly():
    boxes = scene_boxes_xywh()
    assert np.abs(np.diff(boxes, axis=0)).max() < 0.2 * boxes[:, 2:].min()
