"""The box and the reason of a target that is LOST when the size of the images changes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from spmtrack_core.tracking.followed import Reason, State, Target
from spmtrack_core.tracking.result import TrackResult, TrackState

FRAME = SimpleNamespace(number=0, stamp_ns=0, message=None)


def lost_in(sizes_hw, box_xywh, aspect_changed=()):
    """A target of an image of 480 x 640 px, LOST in images of ``sizes_hw``."""
    handle = SimpleNamespace(lost_reason="")
    target = Target.started_in(FRAME, (480, 640), "1", "cup", box_xywh, handle, 0.0)
    for image_hw in sizes_hw:
        handle.lost_reason = "another aspect" if image_hw in aspect_changed else ""
        result = TrackResult((0.0, 0.0, 9.0, 9.0), 0.05, TrackState.LOST)
        target = target.found(FRAME, result, image_hw)
    assert target.state is State.LOST
    return target


@pytest.mark.parametrize(
    ("sizes_hw", "before", "after", "reason"),
    [
        ([(480, 640)], (400, 200, 50, 60), (400, 200, 50, 60), Reason.LOW_CONFIDENCE),
        # not at the right border, although 400 + 50 is beyond 320
        ([(240, 320)], (400, 200, 50, 60), (200, 100, 25, 30), Reason.LOW_CONFIDENCE),
        # at the right border, although 600 + 40 is not near 1280
        ([(960, 1280)], (600, 200, 40, 50), (1200, 400, 80, 100), Reason.LEFT_IMAGE),
        ([(240, 320), (960, 1280)], (80, 40, 20, 10), (160, 80, 40, 20), Reason.LOW_CONFIDENCE),
    ],
)
def test_the_last_box_is_in_pixels_of_the_newest_image(sizes_hw, before, after, reason):
    target = lost_in(sizes_hw, before)
    assert target.box_xywh == after
    assert target.reason is reason


def test_a_box_is_not_scaled_to_another_aspect():
    wide, box = (240, 640), (400, 200, 50, 60)
    target = lost_in([wide], box, aspect_changed=[wide])
    assert (target.box_xywh, target.reason) == (box, Reason.IMAGE_SIZE_CHANGED)
    target = lost_in([wide, (240, 320)], box, aspect_changed=[wide])
    assert target.box_xywh == (200, 100, 25, 30)
