"""Messages of range sensors to arrays, and those of one moment among the last ones.

Free of rclpy.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from spmtrack_core.data.image_messages import pixel_bytes
from spmtrack_ros.conversions import stamp_to_ns

_DEPTH = {"16uc1": ("u2", 0.001), "mono16": ("u2", 0.001), "32fc1": ("f4", 1.0)}
"""Encodings of depth images by REP 118: type of a pixel, and its unit in m."""
_FLOATS = {7: "f4", 8: "f8"}  # of sensor_msgs/PointField
_MAX_BYTES = 100e6  # of one sensor: one second of clouds of 10 MB, 10 of them a second
_SILENCE = 1.0  # s without a message after which nobody waits for the next one


def depth_to_array(message: Any) -> np.ndarray:
    """Depth (H, W) in m, float32, of a ``sensor_msgs/Image`` with 16UC1 (mm) or 32FC1 (m).

    What is not measured, 0 or NaN, stays so. Raises ``ValueError`` for another encoding, and as
    ``pixel_bytes`` does.
    """
    kind, unit = _DEPTH.get(message.encoding.lower(), ("", 0.0))
    if not kind:
        raise ValueError(f"depth image is {message.encoding}: expected 16UC1 or 32FC1")
    kind = (">" if message.is_bigendian else "<") + kind
    _, pixels = pixel_bytes(message)
    depth = np.ascontiguousarray(pixels).view(kind)[..., 0]
    return depth.astype(np.float32) * np.float32(unit)


def scan_to_points(message: Any) -> np.ndarray:
    """Points (N, 2) in m of a ``sensor_msgs/LaserScan`` in its frame; what is not valid is left
    out, as are 0 and ``range_max``, which some drivers send where nothing came back.
    """
    ranges = np.asarray(message.ranges, np.float64)
    angles = message.angle_min + message.angle_increment * np.arange(len(ranges))
    valid = (ranges > 0) & (ranges >= message.range_min) & (ranges < message.range_max)
    ranges, angles = ranges[valid], angles[valid]
    return np.stack((ranges * np.cos(angles), ranges * np.sin(angles)), axis=1)


def cloud_to_points(message: Any) -> np.ndarray:
    """Points (N, 3) in m of a ``sensor_msgs/PointCloud2`` in its frame, without NaN, and without
    (0, 0, 0), which some drivers send where nothing came back.

    Raises ``ValueError`` for a cloud without real x, y, z, and for less data than its size says.
    """
    fields = {field.name: field for field in message.fields}
    kinds = [_FLOATS.get(fields[name].datatype) if name in fields else None for name in "xyz"]
    if not all(kinds):
        raise ValueError(f"point cloud has the fields {sorted(fields)}: expected real x, y and z")
    offsets = [fields[name].offset for name in "xyz"]
    order = ">" if message.is_bigendian else "<"
    formats = [order + (each or "") for each in kinds]
    ends = [at + np.dtype(each).itemsize for at, each in zip(offsets, formats, strict=True)]
    if max(ends) > message.point_step:  # from 2**31 on numpy reads outside the message
        raise ValueError(
            f"point cloud has points of {message.point_step} bytes, but x, y and z end at {ends}"
        )
    kind = np.dtype(
        {
            "names": list("xyz"),
            "formats": formats,
            "offsets": offsets,
            "itemsize": message.point_step,
        }
    )
    data, (rows, columns) = np.frombuffer(message.data, np.uint8), (message.height, message.width)
    if message.row_step < columns * message.point_step or len(data) < rows * message.row_step:
        raise ValueError(
            f"point cloud of {columns} x {rows} points has {len(data)} bytes: "
            f"expected {rows * columns * message.point_step} or more"
        )
    data = data[: rows * message.row_step].reshape(rows, -1)[:, : columns * message.point_step]
    cloud = np.ascontiguousarray(data).view(kind).reshape(-1)
    points = np.stack([cloud[name].astype(np.float64) for name in "xyz"], axis=1)
    return points[np.isfinite(points).all(axis=1) & points.any(axis=1)]


class Recent:
    """The last messages of one sensor, found by their stamps."""

    def __init__(self, name: str, tolerance: float, count: int) -> None:
        """``tolerance`` in s between the stamps of image and message."""
        self._name, self._tolerance = name, tolerance
        self._messages: deque[Any] = deque(maxlen=count)

    def add(self, message: Any) -> None:
        """Keep a message, and as many of those before it as memory allows."""
        self._messages.append(message)
        while len(self._messages) > 1 and sum(map(_size, self._messages)) > _MAX_BYTES:
            self._messages.popleft()

    def at(self, stamp_ns: int) -> Any:
        """The message closest to a time in ns.

        Raises ``ValueError`` if there is none within the tolerance.
        """
        if not self._messages:
            raise ValueError(f"no {self._name} has arrived")
        closest = min(self._messages, key=lambda each: self._distance(each, stamp_ns))
        away = self._distance(closest, stamp_ns)
        if away > self._tolerance:
            raise ValueError(
                f"the closest {self._name} is {away:.3f} s away, expected {self._tolerance:g} s"
            )
        return closest

    def expects(self, stamp_ns: int) -> bool:
        """Whether the message of a time in ns may still come: the last one is a little older."""
        if not self._messages:
            return False
        behind = (stamp_ns - stamp_to_ns(self._messages[-1].header.stamp)) / 1e9
        return self._tolerance < behind <= _SILENCE

    @staticmethod
    def _distance(message: Any, stamp_ns: int) -> float:
        return abs(stamp_to_ns(message.header.stamp) - stamp_ns) / 1e9


def _size(message: Any) -> int:
    return len(getattr(message, "data", ()))  # in bytes; a scan is small
