"""NanoTrack through OpenCV's networks: any square map, and files that are something else.

The test writes two small ONNX networks with NanoTrack's inputs and outputs. Users' files are
tried where ``SPMTRACK_NANOTRACK`` names a folder with ``backbone.onnx`` and ``head.onnx``.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from spmtrack_core.data.scene import scene
from spmtrack_core.evaluation.metrics import mean_iou
from spmtrack_core.evaluation.nanotrack import NanoTrack
from spmtrack_core.evaluation.opencv import opencv_trackers

onnx = pytest.importorskip("onnx", reason="onnx writes the networks")
from onnx import TensorProto, helper, numpy_helper

FILES = os.environ.get("SPMTRACK_NANOTRACK")
CELL = 16


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def save(path, nodes, inputs, outputs, constants):
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in each]
        for each in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "net", *values, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


def make_networks(folder, side, half=20.0):
    """A backbone that averages cells of 16 px, and a head that finds the brightest cell."""
    kernel = np.full((1, 3, CELL, CELL), 1 / (3 * CELL * CELL))
    save(
        folder / "backbone.onnx",
        [helper.make_node("Conv", ["x", "k"], ["z"], strides=[CELL, CELL], pads=[0, 0, 1, 1])],
        [("x", [1, 3, None, None])],
        [("z", [1, 1, None, None])],
        [constant("k", kernel)],
    )
    cut = [("starts", [0, 0]), ("ends", [side, side])]
    save(
        folder / "head.onnx",
        [
            helper.make_node("Slice", ["input2", "starts", "ends", "axes"], ["map"]),
            helper.make_node("ReduceMean", ["input1"], ["mean"], axes=[2, 3]),
            helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
            helper.make_node("Add", ["map", "zero"], ["bright"]),
            helper.make_node("Mul", ["bright", "down"], ["dark"]),
            helper.make_node("Concat", ["dark", "bright"], ["output1"], axis=1),
            helper.make_node("Mul", ["map", "nothing"], ["blank"]),
            helper.make_node("Add", ["blank", "half"], ["one"]),
            helper.make_node("Concat", ["one"] * 4, ["output2"], axis=1),
        ],
        [("input1", [1, 1, 8, 8]), ("input2", [1, 1, 16, 16])],
        [("output1", [1, 2, side, side]), ("output2", [1, 4, side, side])],
        [
            *(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in cut),
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
            constant("nothing", [0.0]),
            constant("down", [-1.0]),
            constant("half", [half]),
        ],
    )
    return folder / "backbone.onnx", folder / "head.onnx"


def spot(x, y):
    """A frame with a bright spot in the middle of the box x, y, 20, 20."""
    frame = np.zeros((200, 240, 3), np.uint8)
    frame[y + 7 : y + 13, x + 7 : x + 13] = 255
    return frame


def test_a_bright_spot_is_followed(tmp_path):
    tracker = NanoTrack(make_networks(tmp_path, 15))
    assert tracker.side == 15
    tracker.init(spot(100, 80), (100, 80, 20, 20))
    for step in range(1, 8):
        result = tracker.update(spot(100 + 6 * step, 80 + 4 * step))
        x, y, w, h = result.box_xywh
        center = x + w / 2, y + h / 2
        # a cell of the map is 16 px of a search region that is magnified
        assert np.abs(np.subtract(center, (110 + 6 * step, 90 + 4 * step))).max() < 8
        assert 0.5 < result.confidence <= 1


def test_a_target_beyond_the_frame_does_not_break_it(tmp_path):
    tracker = NanoTrack(make_networks(tmp_path, 15))
    tracker.init(spot(0, 0), (-15, -15, 20, 20))
    for _ in range(3):
        assert np.isfinite(tracker.update(np.zeros((200, 240, 3), np.uint8)).box_xywh).all()


def test_version_3_takes_its_own_way_in_the_comparison(tmp_path):
    trackers, _ = opencv_trackers(make_networks(tmp_path, 15))
    assert isinstance(trackers["NanoTrack"], NanoTrack)


def test_other_networks_are_named(tmp_path):
    backbone, head = make_networks(tmp_path, 15)
    with pytest.raises(ValueError, match="are not backbone and head of NanoTrack"):
        NanoTrack((head, backbone))
    with pytest.raises(FileNotFoundError, match="no ONNX file at"):
        NanoTrack((backbone, tmp_path / "absent.onnx"))
    head.write_bytes(b"no network")
    with pytest.raises(ValueError, match="are not backbone and head of NanoTrack"):
        NanoTrack((backbone, head))


@pytest.mark.skipif(
    FILES is None, reason="SPMTRACK_NANOTRACK names no folder of NanoTrack's files"
)
def test_users_files_follow_the_built_in_scene():
    tracker = NanoTrack([Path(str(FILES)) / f"{name}.onnx" for name in ("backbone", "head")])
    sequence = scene()
    boxes = []
    for index, frame in enumerate(islice(sequence, 40)):
        if index == 0:
            tracker.init(frame, sequence.boxes_xywh[0])
            boxes.append(tuple(sequence.boxes_xywh[0]))
        else:
            boxes.append(tracker.update(frame).box_xywh)
    assert mean_iou(boxes, sequence.boxes_xywh[:40]) > 0.6
