"""Small bags of a bright square that moves over noise, made by ``rosbags`` where a test runs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from rosbags import rosbag1, rosbag2
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_typestore

BOX = (20.0, 12.0, 16.0, 14.0)
START_NS = 1_700_000_000_250_000_000
PERIOD_NS = 40_000_000  # 25 images a second
HW = (48, 64)
ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_JAZZY)
MODES = {
    "none": CompressionMode.NONE,
    "file": CompressionMode.FILE,
    "message": CompressionMode.MESSAGE,
    "storage": CompressionMode.STORAGE,
}


def picture(index, hw=HW):
    image = np.random.default_rng(7).integers(60, 120, (*hw, 3), np.uint8)
    x, y = 20 + index, 12
    image[y : y + 14, x : x + 16] = (230, 60, 40)
    return image


def stamp_ns(index):
    return START_NS + index * PERIOD_NS


def image_message(types, index, kind="sensor_msgs/msg/Image", encoding="rgb8", image=None):
    """A message as a driver would fill it; its stamp is 5 ms before it is recorded."""
    image = picture(index) if image is None else image
    header_kind, time_kind = types["std_msgs/msg/Header"], types["builtin_interfaces/msg/Time"]
    time = time_kind(*divmod(stamp_ns(index), 10**9))
    extra = {"seq": index} if "seq" in header_kind.__dataclass_fields__ else {}
    header = header_kind(stamp=time, frame_id="camera", **extra)
    if kind.endswith("CompressedImage"):
        data = cv2.imencode(".png", image[..., ::-1])[1].ravel()
        return types[kind](header=header, format="png", data=data)
    if encoding == "bgr8":
        image = image[..., ::-1]
    elif encoding == "mono8":
        image = image[..., :1]
    data = np.ascontiguousarray(image).reshape(-1)
    height, width = HW
    return types[kind](
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=len(data) // height,
        data=data,
    )


def write_ros2(
    path,
    indices=range(8),
    storage="mcap",
    compression="none",
    topics=("/camera/image_raw",),
    **fields,
):
    """A rosbag2 folder; returns it."""
    kind = fields.get("kind", "sensor_msgs/msg/Image")
    writer = rosbag2.Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(MODES[compression], CompressionFormat.ZSTD)
    with writer:
        talk = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=ROS2)
        images = [writer.add_connection(topic, kind, typestore=ROS2) for topic in topics]
        for index in indices:
            time = stamp_ns(index) + 5_000_000
            text = ROS2.types["std_msgs/msg/String"]("hello")
            writer.write(talk, time, ROS2.serialize_cdr(text, "std_msgs/msg/String"))
            for connection in images:
                message = image_message(ROS2.types, index, **fields)
                writer.write(connection, time, ROS2.serialize_cdr(message, kind))
    return Path(path)


def write_split(
    path, parts=(range(3), range(3, 11), range(11, 12)), storage="mcap", compression="none"
):
    """A rosbag2 folder of several files, as ``ros2 bag record --max-bag-duration`` leaves it."""
    path.mkdir()
    names = []
    for number, indices in enumerate(parts):
        # more than nine files, so that the order of names is not that of letters
        part = write_ros2(path.parent / f"part_{9 + number}", indices, storage, compression)
        suffix = "mcap" if storage == "mcap" else "db3"
        suffix += ".zstd" if compression == "file" else ""
        names.append(f"part_{9 + number}.{suffix}")
        (part / names[-1]).rename(path / names[-1])
        text = (part / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(
        text.replace(f"  - {names[-1]}\n", "".join(f"  - {name}\n" for name in names))
    )
    return path


def write_ros1(path, indices=range(8), compression=None, kind="sensor_msgs/msg/Image", **fields):
    """A ROS 1 bag; returns it."""
    writer = rosbag1.Writer(path)
    if compression:
        writer.set_compression(rosbag1.Writer.CompressionFormat[compression.upper()])
    with writer:
        connection = writer.add_connection("/camera/image_raw", kind, typestore=ROS1)
        for index in indices:
            message = image_message(ROS1.types, index, kind, **fields)
            data = ROS1.serialize_ros1(message, kind)
            writer.write(connection, stamp_ns(index) + 5_000_000, data)
    return Path(path)
