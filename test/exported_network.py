"""A network that takes a millisecond, in the two files of ``spmtrack export``."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
from tiny_model import TINY

from spmtrack_core.config import TrackerConfig
from spmtrack_core.runtimes.description import describe
from spmtrack_core.runtimes.exported import ONNX_FORMAT, second_file

LOCATE = """
<ir_version: 8, opset_import: ["": 18]>
locate (float[batch,3,64,64] search, float[batch,3,4,32] references, float[batch,1,32] state_token)
  => (float[batch,4,4] score_map, float[batch,4,4,4] boxes, float[batch,1,32] next_state_token)
{
  one = Constant <value_ints = [1]> ()
  tokens = Constant <value_ints = [1, 2, 3]> ()
  all = Constant <value_ints = [-1, 1, 1]> ()
  last = Constant <value_ints = [-1]> ()
  cells = AveragePool <kernel_shape = [16, 16], strides = [16, 16]> (search)
  seen = ReduceMean <keepdims = 0> (cells, one)
  mean = ReduceMean <keepdims = 0> (references, tokens)
  known = Reshape (mean, all)
  sum = Add (seen, known)
  score_map = Mul (sum, weight)
  corner = Unsqueeze (score_map, last)
  boxes = Concat <axis = -1> (corner, corner, corner, corner)
  next_state_token = Mul (state_token, weight)
}
"""
ENCODE = """
<ir_version: 8, opset_import: ["": 18]>
encode (float[batch,3,32,32] reference, float[batch,2,2] mask) => (float[batch,4,32] encoded)
{
  pixels = Constant <value_ints = [1, 2, 3]> ()
  cells = Constant <value_ints = [0, 4, 1]> ()
  mean = ReduceMean <keepdims = 0> (reference, pixels)
  column = Constant <value_ints = [-1, 1, 1]> ()
  image = Reshape (mean, column)
  marks = Reshape (mask, cells)
  both = Add (image, marks)
  wide = Constant <value_ints = [1, 1, 32]> ()
  row = Expand (both, wide)
  encoded = Mul (row, weight)
}
"""
"""Not SPMTrack, but with its inputs and outputs; each output depends on its own target alone."""


def write_network(path, weight=1.0):
    """Write ``LOCATE`` to ``path`` and ``ENCODE`` beside it, as ``export_onnx`` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for part, text, file in (("locate", LOCATE, path), ("encode", ENCODE, second_file(path))):
        model = onnx.parser.parse_model(text)
        array = np.full(1, weight, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, "weight"))
        onnx.helper.set_model_props(
            model, describe(ONNX_FORMAT, SETTINGS, part=part, weights=f"of {weight}")
        )
        onnx.save(model, file)
    return path


SETTINGS = SimpleNamespace(
    model_config=TINY, tracker_config=TrackerConfig(lost_threshold=0.0), provenance={}
)


def arrays(targets):
    """Inputs of ``ENCODE`` and of ``LOCATE``, different for each target."""
    rng = np.random.default_rng(0)
    return [
        [rng.random((targets, *shape)).astype(np.float32) for shape in shapes]
        for shapes in (((3, 32, 32), (2, 2)), ((3, 64, 64), (3, 4, 32), (1, 32)))
    ]
