"""The loop over frames: one result a frame, and errors at the right frame."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spmtrack_core.tracking.loop import track_frames
from spmtrack_core.tracking.result import TrackResult, TrackState

FRAMES = [np.full((20, 30, 3), 10 * index, np.uint8) for index in range(4)]
BOX = (3, 4, 5.5, 6)


class Drifting:
    """Moves its box by a pixel a frame."""

    def init(self, frame, box_xywh):
        if box_xywh[2] <= 0:
            raise ValueError("no area")
        self.box = tuple(box_xywh)

    def update(self, frame):
        self.box = (self.box[0] + 1, *self.box[1:])
        return TrackResult(self.box, 0.5, TrackState.LOST)


def test_every_frame_is_reported_in_order():
    tracked = list(track_frames(Drifting(), FRAMES, BOX))
    assert all(each.frame is frame for each, frame in zip(tracked, FRAMES, strict=True))
    assert [each.result.box_xywh[0] for each in tracked] == [3, 4, 5, 6]
    first = tracked[0].result
    assert (first.box_xywh, first.state) == (BOX, TrackState.TRACKING)
    assert math.isnan(first.confidence)
    assert all(type(value) is float for value in first.box_xywh)
    assert [each.result.confidence for each in tracked[1:]] == [0.5] * 3
    assert all(each.seconds >= 0 for each in tracked)


def test_frames_before_an_error_are_kept():
    def broken():
        yield from FRAMES[:3]
        raise ValueError("frame 3 cannot be read")

    kept = []
    with pytest.raises(ValueError, match="frame 3"):
        kept.extend(track_frames(Drifting(), broken(), BOX))
    assert len(kept) == 3


def test_a_bad_box_raises_at_the_first_frame_and_no_frame_is_no_error():
    with pytest.raises(ValueError, match="no area"):
        next(track_frames(Drifting(), FRAMES, (1, 2, 0, 4)))
    assert list(track_frames(Drifting(), [], BOX)) == []
