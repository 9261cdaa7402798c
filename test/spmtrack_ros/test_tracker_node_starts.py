"""Nodes of other parameters, over real DDS, and sequences that nano follows."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool

from spmtrack_core.config import TrackerConfig
from spmtrack_core.data.video import open_frames
from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy
from spmtrack_core.tracking.loading import BUNDLED_WEIGHTS
from spmtrack_ros.conversions import bbox_to_xywh, fill_stamp
from spmtrack_ros.parameters import TrackerParameters
from spmtrack_ros.tracker_node import TrackerNode
from test.spmtrack_ros.peer import (
    BOX,
    MS,
    RELIABLE,
    Peer,
    connected,
    picture,
    start_node,
    stop_node,
)
from test.spmtrack_ros.wrong_parameters import assert_refused

pytestmark = pytest.mark.ros


def test_the_search_for_a_lost_target_is_that_of_the_weights_unless_it_is_set():
    weights = TrackerConfig(recovery="scan", lost_threshold=0.4)
    node = SimpleNamespace(_weights_config=weights, _tracker=SimpleNamespace())
    for recovery, expected in (("weights", "scan"), ("none", "none"), ("scan", "scan")):
        TrackerNode._configure_tracker(node, TrackerParameters(recovery=recovery))
        assert node._tracker.config == replace(weights, recovery=expected)


def test_the_published_policy_is_one_switch():
    weights = TrackerConfig(recovery="scan", window_weight=0.6, reference_rule="template_twice")
    node = SimpleNamespace(_weights_config=weights, _tracker=SimpleNamespace())
    given = TrackerParameters(policy="published", recovery="scan", reference_min_confidence=0.5)
    TrackerNode._configure_tracker(node, given)
    assert node._tracker.config.in_force() == TrackerConfig(policy="published")
    TrackerNode._configure_tracker(node, TrackerParameters(reference_min_confidence=0.5))
    assert node._tracker.config.in_force() == replace(weights, reference_min_confidence=0.5)


def test_compressed_images_init_box_after_enable_and_sigterm(tiny_checkpoint):
    parameters = ["image_transport:=compressed", "init_box:=[60,50,40,30]", "label:=kite"]
    # a clock that stands still stops neither images nor diagnostics
    parameters += ["autostart:=false", "use_sim_time:=true", "diagnostics_period:=0.2"]
    process = start_node(*parameters, weights=tiny_checkpoint, name="two")
    peer = Peer("two", CompressedImage, "image/compressed")
    try:
        peer.wait_for_node(process, reset=False)
        reports = peer.collect(DiagnosticArray, "/diagnostics")
        assert peer.until(lambda: any(r.status[0].name == "/two: tracker" for r in reports))
        assert peer.call(SetBool, "enable", data=True).success
        message = CompressedImage(format="jpeg")
        message.data = cv2.imencode(".jpg", picture(0))[1].tobytes()
        for stamp in range(100):  # the first ones may be lost while the peers are connecting
            fill_stamp(message.header.stamp, (1 + stamp) * MS)
            peer.camera.publish(message)
            if peer.until(lambda: peer.detection, 0.1):
                break
        first = peer.detection[0]
        assert bbox_to_xywh(first.bbox) == BOX
        assert first.results[0].hypothesis.class_id == "kite"
    finally:
        peer.close()
        code, output = stop_node(process, signal.SIGTERM)
    assert code == 0 and "Traceback" not in output, output
    assert "loaded in" in output


@pytest.mark.parametrize(
    ("parameter", "words"),
    [("frame_buffer:=0", "frame_buffer"), ("weights:=/no/such/file", "/no/such/file")],
)
def test_a_wrong_parameter_ends_with_one_line_and_code_2(tiny_checkpoint, parameter, words):
    assert_refused("spmtrack", start_node(parameter, weights=tiny_checkpoint), words)


def follow(source, frames):
    """Mean IoU of nano over the frames after the first, each sent when the one before is done."""
    if not (BUNDLED_WEIGHTS / "nano.safetensors").is_file():
        pytest.skip("the bundled weights nano are absent")
    sequence = open_frames(str(source), frames)
    process = start_node(RELIABLE, weights="nano", name="three")
    ious = []
    with connected(Peer("three"), process) as peer:
        for index, (frame, box) in enumerate(zip(sequence, sequence.boxes_xywh, strict=True)):
            heartbeat = peer.send(frame, 10 * (index + 1))
            if index == 0:
                assert peer.init(tuple(map(float, box)), stamp_ms=10).success
                continue
            found = [bbox_to_xywh(each.bbox) for each in heartbeat.detections]
            iou = iou_xyxy(xywh_to_xyxy(found[0]), xywh_to_xyxy(box)) if found else 0.0
            ious.append(float(iou))
    return float(np.mean(ious))


def test_the_built_in_scene_is_followed():
    assert follow("synthetic", 60) >= 0.5


def test_a_real_sequence_is_followed():
    default = Path(__file__).parents[3] / "shared" / "sequences"
    folder = Path(os.environ.get("SPMTRACK_SEQUENCES", default)) / "car_chase"
    if not folder.is_dir():
        pytest.skip("the sequence car_chase is absent from SPMTRACK_SEQUENCES")
    assert follow(folder, 60) >= 0.35
