"""The markers of targets: where they are and when they go."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("visualization_msgs", reason="visualization_msgs is absent: no ROS 2 here")

from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from spmtrack_core.session.frame_buffer import Frame
from spmtrack_core.tracking.followed import State, Target
from spmtrack_ros.markers import target_markers

pytestmark = pytest.mark.ros
HEADER = Header(frame_id="camera")
BOX = (100.0, 50.0, 40.0, 20.0)


def ray(point):
    """A camera with a focal length of 100 px that looks through (120, 60); not of unit length."""
    x, y = point
    return (x - 120) / 100 * 3, (y - 60) / 100 * 3, 3.0


def target(state=State.TRACKING):
    frame = Frame(1, 0, SimpleNamespace(header=HEADER))
    return Target("7", "cup", state, 0.25, BOX, frame, 0)


def test_a_target_is_drawn_at_the_depth():
    box, edges, arrow, label = target_markers(HEADER, [target()], ray, 2.0).markers
    assert [each.ns for each in (box, edges, arrow, label)] == ["box", "edges", "ray", "label"]
    corners = [(-0.4, -0.2), (0.4, -0.2), (0.4, 0.2), (-0.4, 0.2), (-0.4, -0.2)]
    assert [(p.x, p.y, p.z) for p in box.points] == [pytest.approx((x, y, 2)) for x, y in corners]
    assert (arrow.points[0].z, arrow.points[1].z) == (0, 2) and arrow.points[1].x == 0
    assert len(edges.points) == 8 and label.text == "cup\n0.25"
    for each in (box, edges, arrow, label):
        assert each.action == Marker.ADD and each.header == HEADER and each.lifetime.sec == 1


def test_a_lost_target_keeps_its_box_without_a_ray():
    markers = target_markers(HEADER, [target(State.LOST)], ray, 1.0).markers
    assert [each.ns for each in markers if each.action == Marker.ADD] == ["box", "label"]
    assert [each.ns for each in markers if each.action == Marker.DELETE] == ["edges", "ray"]
    assert markers[0].color.r == 1 and markers[-1].text == "cup\nlost"


def test_a_target_outside_the_lens_hides_no_other():
    def narrow(point):
        if point[0] > 120:
            raise ValueError("no direction")
        return ray(point)

    left = replace(target(), box_xywh=(10.0, 50.0, 40.0, 20.0))
    markers = target_markers(HEADER, [target(), left], narrow, 1.0).markers
    assert [(each.ns, each.id) for each in markers] == [
        ("box", 1),
        ("edges", 1),
        ("ray", 1),
        ("label", 1),
    ]
    assert target_markers(HEADER, [target()], narrow, 1.0).markers == []


def test_several_targets_and_none():
    markers = target_markers(HEADER, [target(), target()], ray, 1.0).markers
    assert {(each.ns, each.id) for each in markers if each.ns == "box"} == {("box", 0), ("box", 1)}
    (only,) = target_markers(HEADER, [], ray, 1.0).markers
    assert only.action == Marker.DELETEALL
