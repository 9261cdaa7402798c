"""Annotations for Foxglove, with the real messages."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("foxglove_msgs", reason="foxglove_msgs is absent: an optional ROS 2 package")
pytest.importorskip("visualization_msgs", reason="visualization_msgs is absent: no ROS 2 here")

from builtin_interfaces.msg import Time

from spmtrack_core.session.frame_buffer import Frame
from spmtrack_core.tracking.followed import State, Target
from spmtrack_ros.annotations import image_annotations

pytestmark = pytest.mark.ros
STAMP = Time(sec=3, nanosec=5)


def target(state):
    return Target("7", "cup", state, 0.25, (10, 20, 30, 40), Frame(1, 0, SimpleNamespace()), 0)


@pytest.mark.parametrize(
    ("state", "boxes", "text"),
    [
        (State.TRACKING, 1, "7 cup 0.25"),
        (State.UNCERTAIN, 1, "7 cup 0.25"),
        (State.LOST, 0, "7 cup lost"),  # never the stale box
    ],
)
def test_boxes_and_labels(state, boxes, text):
    message = image_annotations(STAMP, [target(state)])
    assert len(message.points) == boxes
    for box in message.points:
        corners = [(point.x, point.y) for point in box.points]
        assert corners == [(10, 20), (40, 20), (40, 60), (10, 60)]
        assert (box.timestamp, box.type) == (STAMP, box.LINE_LOOP)
    (label,) = message.texts
    assert (label.text, label.timestamp) == (text, STAMP)


def test_no_targets_clear_the_picture():
    message = image_annotations(STAMP, [])
    assert not message.points and not message.texts
