"""Image messages that only cv_bridge can read; ``data.image_messages`` reads all others."""

from __future__ import annotations

from typing import Any

import numpy as np

from spmtrack_core.data import image_messages
from spmtrack_core.data.image_messages import ENCODINGS
from spmtrack_core.geometry.image import Image
from spmtrack_core.geometry.lazy_image import AnyImage

try:
    from cv_bridge import CvBridge
except ImportError:  # an optional package
    CvBridge = None


def check_image(message: Any) -> None:
    """Raise ``ValueError`` as ``image_messages.check_image``; cv_bridge may know the encoding."""
    if not _needs_cv_bridge(message):
        image_messages.check_image(message)


def image_to_array(message: Any) -> Image:
    """As :func:`lazy_image`, all of it."""
    return np.asarray(lazy_image(message))


def lazy_image(message: Any) -> AnyImage:
    """RGB (H, W, 3) of a ``sensor_msgs/Image``: by ``image_messages``, or else by cv_bridge.

    ``image_messages`` converts only the parts that are read. Raises ``ValueError`` where neither
    can read it.
    """
    if not _needs_cv_bridge(message):
        return image_messages.lazy_image(message)
    try:
        image = CvBridge().imgmsg_to_cv2(message, "rgb8")
    except Exception as error:  # cv_bridge raises many kinds
        raise ValueError(f"cv_bridge cannot read '{message.encoding}': {error}") from None
    return np.asarray(image).astype(np.uint8, copy=False)


def _needs_cv_bridge(message: Any) -> bool:
    return CvBridge is not None and message.encoding.lower() not in ENCODINGS
