"""Boxes, stamps and detections to messages and back, on plain objects with their fields."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spmtrack_core.session.frame_buffer import Frame
from spmtrack_core.session.init_request import Code, Reply
from spmtrack_core.tracking.followed import Reason, State, Target
from spmtrack_ros.conversions import (
    bbox_to_xywh,
    best_class,
    fill_answer,
    fill_bbox,
    fill_detection,
    fill_stamp,
    fill_track_state,
    stamp_to_ns,
)


def bbox(x, y, w, h, theta=0.0):
    position = SimpleNamespace(x=x, y=y)
    center = SimpleNamespace(position=position, theta=theta)
    return SimpleNamespace(center=center, size_x=w, size_y=h)


FINITE = st.floats(-1e6, 1e6)


@settings(deadline=None)
@given(box=st.tuples(FINITE, FINITE, FINITE, FINITE))
def test_box_to_message_and_back(box):
    message = fill_bbox(bbox(0, 0, 0, 0, theta=1.0), box)
    assert bbox_to_xywh(message) == pytest.approx(box, abs=1e-6)


def test_box_is_center_and_full_size():
    assert bbox_to_xywh(bbox(25.5, 40.0, 30.0, 40.0)) == (10.5, 20.0, 30.0, 40.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # would be a line without severity in the node's log
        assert math.isnan(bbox_to_xywh(bbox(math.inf, 40.0, math.inf, 40.0))[0])
    with pytest.raises(ValueError, match="rotated"):
        bbox_to_xywh(bbox(25.5, 40.0, 30.0, 40.0, theta=0.1))
    with pytest.raises(ValueError, match="rotated"):
        bbox_to_xywh(bbox(25.5, 40.0, 30.0, 40.0, theta=float("nan")))


@settings(deadline=None)
@given(nanoseconds=st.integers(0, 2**31 * 10**9 - 1))
def test_stamps(nanoseconds):
    stamp = fill_stamp(SimpleNamespace(), nanoseconds)
    assert 0 <= stamp.nanosec < 10**9
    assert stamp_to_ns(stamp) == nanoseconds


@pytest.mark.parametrize(
    ("score", "published"), [(0.25, 0.25), (1.2, 1.0), (-0.1, 0.0), (float("nan"), 0.0)]
)
def test_detection(score, published):
    detection = SimpleNamespace(bbox=bbox(0, 0, 0, 0))
    hypothesis = SimpleNamespace(hypothesis=SimpleNamespace())
    box = (10.25, 20.0, 30.0, 40.0)
    assert fill_detection(detection, hypothesis, "header", box, "7", "cat", score) is detection
    assert (detection.header, detection.id) == ("header", "7")
    assert bbox_to_xywh(detection.bbox) == box
    assert detection.results == [hypothesis]
    assert vars(hypothesis.hypothesis) == {"class_id": "cat", "score": published}


def test_track_state():
    frame = Frame(5, 2 * 10**9, SimpleNamespace(header="header"))
    box = (10.0, 20.0, 30.0, 40.0)
    target = Target(
        "7", "cat", State.LOST, 0.25, box, frame, 1_500_000_000, Reason.LEFT_IMAGE, 3, started=4.0
    )
    message = SimpleNamespace(bbox=bbox(0, 0, 0, 0), last_seen=SimpleNamespace())
    assert fill_track_state(message, target, True, now=10.5) is message
    assert (message.header, message.id, message.label) == ("header", "7", "cat")
    assert (message.state, message.reason, message.score) == (2, 2, 0.25)
    assert bbox_to_xywh(message.bbox) == box
    assert (message.primary, message.age, message.frames_lost) == (True, 6.5, 3)
    assert vars(message.last_seen) == {"sec": 1, "nanosec": 500_000_000}


def test_answers():
    reply = Reply(Code.OK, "", "7", 3 * 10**9, 0.5, 2, (1.0, 2.0, 3.0, 4.0))
    empty = SimpleNamespace(init_stamp=SimpleNamespace(), bbox=bbox(0, 0, 0, 0))
    response = fill_answer(empty, reply)
    assert (response.success, response.code, response.message) == (True, 0, "")
    assert (response.id, response.score, response.frames_caught_up) == ("7", 0.5, 2)
    assert vars(response.init_stamp) == {"sec": 3, "nanosec": 0}
    assert bbox_to_xywh(response.bbox) == (1, 2, 3, 4)
    response = fill_answer(SimpleNamespace(), Reply(Code.UNKNOWN_ID, "no such target"))
    assert vars(response) == {"success": False, "code": 8, "message": "no such target"}


@pytest.mark.parametrize(
    ("given_", "classes", "best"),
    [
        ([("cat", 0.2), ("dog", 0.7)], (), ("dog", 0.7)),
        ([("cat", 0.2), ("dog", 0.7)], ("cat", "cow"), ("cat", 0.2)),
        ([("cat", 0.2)], ("cow",), ("", float("-inf"))),
        ([], (), ("", float("-inf"))),
        ([("cat", 0.2), ("dog", float("nan"))], (), ("cat", 0.2)),
        ([("dog", float("nan")), ("cat", 0.2)], (), ("cat", 0.2)),
        ([("dog", float("nan"))], (), ("", float("-inf"))),
    ],
)
def test_best_class(given_, classes, best):
    results = [
        SimpleNamespace(hypothesis=SimpleNamespace(class_id=name, score=score))
        for name, score in given_
    ]
    assert best_class(SimpleNamespace(results=results), classes) == best
