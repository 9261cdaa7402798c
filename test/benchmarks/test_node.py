"""The benchmark of the node: its table and JSON, and its boxes."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")
pytest.importorskip("skimage", reason="scikit-image is absent: install the extra demo")

from benchmarks.node import SIZES_WH, TARGETS, benchmark_node
from robot import grid
from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("size_wh", SIZES_WH)
def test_boxes_lie_inside_the_image_without_overlap(size_wh):
    boxes = xywh_to_xyxy(grid(8, size_wh))
    assert boxes[:, :2].min() >= 0 and (boxes[:, 2:] <= size_wh).all()
    for index in range(1, 8):
        assert iou_xyxy(boxes[index:], boxes[:-index]).max() == 0


def test_more_boxes_than_there_are(tmp_path):
    with pytest.raises(ValueError, match="1 to 8; got 9"):
        grid(9, (640, 480))


@pytest.mark.slow
def test_measures_every_size_and_number_of_targets(tiny_checkpoint, tmp_path, capsys):
    output = tmp_path / "node.json"
    benchmark_node(str(tiny_checkpoint), "cpu", 0.3, 20.0, output)
    report = json.loads(output.read_text())
    rows = report["rows"]
    found = [(row["image"], row["targets"]) for row in rows]
    sizes = ["{}x{}".format(*size) for size in SIZES_WH]
    assert found == [(sizes[0], each) for each in TARGETS] + [(each, 1) for each in sizes[1:]]
    for row in rows:
        assert 0 < row["overhead_p50_ms"] <= row["overhead_p95_ms"]
        assert 0 < row["inference_p50_ms"] < row["latency_p50_ms"]
        assert (row["targets"] > 1) or row["processed_per_s"] > 0
    assert len(report["return_to_tracking_ms"]) == 5
    assert report["machine"]["ros"] and report["machine"]["rmw"]
    printed = capsys.readouterr().out
    assert "camera's return to TRACKING" in printed and "3840x2160" in printed
