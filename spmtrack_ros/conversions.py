"""Messages of the node alone are filled and read here: any object with the fields will do.

Those that bags hold as well are in ``spmtrack_core.data.messages``, and are offered here too. Free
of rclpy.
"""

from __future__ import annotations

import array
import math
from collections.abc import Collection
from typing import Any

import numpy as np

from spmtrack_core.data.messages import (
    bbox_to_xywh,
    fill_bbox,
    fill_detection,
    fill_stamp,
    fill_track_state,
    stamp_text,
    stamp_to_ns,
)
from spmtrack_core.geometry.image import Image, encode_image

__all__ = [
    "bbox_to_xywh",
    "best_class",
    "fill_answer",
    "fill_bbox",
    "fill_compressed",
    "fill_detection",
    "fill_image",
    "fill_stamp",
    "fill_track_state",
    "stamp_text",
    "stamp_to_ns",
]


def fill_image(message: Any, image: Image, header: Any) -> Any:
    """Put an RGB image (H, W, 3) into an empty ``sensor_msgs/Image``; return that.

    Raises ``ValueError`` unless the image is uint8 of that shape.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.dtype} {image.shape}: expected uint8 (H, W, 3)")
    message.header = header
    message.height, message.width = image.shape[:2]
    message.encoding = "rgb8"
    message.is_bigendian = 0
    message.step = 3 * image.shape[1]
    # The field checks an ndarray number by number: 74 ms for VGA. An array.array: 0.06 ms.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(image).data.cast("B"))
    message.data = data
    return message


def fill_compressed(message: Any, image: Image, header: Any) -> Any:
    """Put an RGB image (H, W, 3) as JPEG into an empty ``sensor_msgs/CompressedImage``; return it.

    Raises ``ValueError`` for an image that JPEG cannot hold: no side is above 65500 px.
    """
    jpeg = encode_image(image, ".jpg")
    message.header = header
    message.format = "jpeg"
    message.data = array.array("B", jpeg)
    return message


def fill_answer(response: Any, reply: Any) -> Any:
    """Put a ``Reply`` into the response of a service of this package; return that."""
    response.success = reply.code == 0
    response.code, response.message = reply.code, reply.message
    if hasattr(response, "init_stamp"):
        response.id, response.score = reply.id, reply.score
        fill_stamp(response.init_stamp, reply.stamp_ns)
        fill_bbox(response.bbox, reply.box_xywh)
        response.frames_caught_up = reply.frames_caught_up
    return response


def best_class(detection: Any, classes: Collection[str] = ()) -> tuple[str, float]:
    """class_id and score of the best hypothesis of a ``vision_msgs/Detection2D``.

    With ``classes`` only of these; ``("", -inf)`` if there is none with a score.
    """
    hypotheses = [each.hypothesis for each in detection.results]
    scores = [(each.score, each.class_id) for each in hypotheses if not math.isnan(each.score)]
    scores = [each for each in scores if not classes or each[1] in classes]
    score, name = max(scores, default=(-math.inf, ""))
    return name, score
