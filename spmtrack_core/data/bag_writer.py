"""Writes what a tracker found into a rosbag2, without ROS: messages of the node's own types."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spmtrack_core.files import lock_part, part_of

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
# Fields as in the packages of these names; the first words of a line are the type.
DEFINITIONS = {
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score",
    "vision_msgs/msg/ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose"
    ),
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id"
    ),
    "vision_msgs/msg/Detection2DArray": (
        "std_msgs/Header header\nvision_msgs/Detection2D[] detections"
    ),
    "spmtrack_ros/msg/TrackState": (
        "uint8 IDLE=0\nuint8 TRACKING=1\nuint8 LOST=2\nuint8 UNCERTAIN=3\n"
        "uint8 REASON_NONE=0\nuint8 REASON_LOW_CONFIDENCE=1\nuint8 REASON_LEFT_IMAGE=2\n"
        "uint8 REASON_NO_IMAGE=3\nuint8 REASON_IMAGE_SIZE_CHANGED=4\n"
        "uint8 REASON_INVALID_IMAGE=5\nuint8 REASON_INTERNAL_ERROR=255\n"
        "std_msgs/Header header\nstring id\nstring label\nuint8 state\nfloat32 score\n"
        "vision_msgs/BoundingBox2D bbox\nbool primary\nfloat32 age\n"
        "builtin_interfaces/Time last_seen\nuint32 frames_lost\nuint8 reason"
    ),
    "spmtrack_ros/msg/TrackStateArray": (
        "std_msgs/Header header\nbool enabled\nspmtrack_ros/TrackState[] targets\n"
        "float32 processing_time\nstring message"
    ),
    "foxglove_msgs/msg/Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a",
    "foxglove_msgs/msg/Point2": "float64 x\nfloat64 y",
    "foxglove_msgs/msg/CircleAnnotation": (
        "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nfloat64 diameter\n"
        "float64 thickness\nfoxglove_msgs/Color fill_color\nfoxglove_msgs/Color outline_color"
    ),
    "foxglove_msgs/msg/PointsAnnotation": (
        "builtin_interfaces/Time timestamp\nuint8 UNKNOWN=0\nuint8 POINTS=1\nuint8 LINE_LOOP=2\n"
        "uint8 LINE_STRIP=3\nuint8 LINE_LIST=4\nuint8 type\nfoxglove_msgs/Point2[] points\n"
        "foxglove_msgs/Color outline_color\nfoxglove_msgs/Color[] outline_colors\n"
        "foxglove_msgs/Color fill_color\nfloat64 thickness"
    ),
    "foxglove_msgs/msg/TextAnnotation": (
        "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nstring text\n"
        "float64 font_size\nfoxglove_msgs/Color text_color\nfoxglove_msgs/Color background_color"
    ),
    "foxglove_msgs/msg/ImageAnnotations": (
        "foxglove_msgs/CircleAnnotation[] circles\nfoxglove_msgs/PointsAnnotation[] points\n"
        "foxglove_msgs/TextAnnotation[] texts"
    ),
}
"""Types that no library brings along."""


def own_types() -> Any:
    """A typestore of ``rosbags`` with the types of ROS 2 Jazzy and ``DEFINITIONS``."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for name, text in DEFINITIONS.items():
        types.update(get_types_from_msg(text, name))
    store.register(types)
    return store


class BagWriter:
    """Writes messages to a bag that appears at ``close``, when it is complete.

    ``path`` becomes a rosbag2 folder or, if it ends in ``.mcap``, a single file. The same messages
    give the same bytes. As a context manager it is closed where the block ends well, and discarded
    otherwise. Raises ``ValueError`` for a folder that exists or another storage than those of
    ``STORAGES``, and ``OSError`` where nothing can be written: the bag is discarded then.
    """

    def __init__(self, path: str | Path, topics: dict[str, str], storage: str = "mcap") -> None:
        check_bag_path(path, storage)
        self.path = Path(path)
        self._target = Path(os.path.realpath(path))  # a link stays a link
        self._beside = part_of(self._target)
        self.failed = False
        """Whether the bag was discarded, as it could not be written."""
        self._lock: int | None = None
        with self._writing():
            self._beside.mkdir(parents=True, exist_ok=True)
        self._lock = lock_part(self._beside, self.path)
        self._types = own_types()
        name = "bag" if self.path.suffix == ".mcap" else self.path.name  # is in the metadata
        with self._writing():
            for each in self._beside.iterdir():  # what a run left that was killed
                shutil.rmtree(each)
            self._writer = Writer(self._beside / name, version=9, storage_plugin=STORAGES[storage])
            self._writer.open()
            self._connections = {
                topic: self._writer.add_connection(topic, kind, typestore=self._types)
                for topic, kind in topics.items()
            }

    def new(self, kind: str) -> Any:
        """An empty message of a type such as ``vision_msgs/msg/Detection2D``."""
        fields = self._types.fielddefs[kind][1]
        return self._types.types[kind](**{name: self._empty(field) for name, field in fields})

    def _empty(self, field: Any) -> Any:
        form, about = field
        if form == Nodetype.BASE:
            return {"string": "", "bool": False}.get(
                about[0], 0.0 if about[0].startswith("float") else 0
            )
        if form == Nodetype.NAME:
            return self.new(about)
        inner, length = about if form == Nodetype.ARRAY else (about[0], 0)
        if inner[0] == Nodetype.BASE and inner[1][0] != "string":
            return np.zeros(length, inner[1][0])
        return [self._empty(inner) for _ in range(length)]

    def write(self, topic: str, message: Any, time_ns: int) -> None:
        """Append a message, recorded at ``time_ns``."""
        connection = self._connections[topic]
        data = self._types.serialize_cdr(message, connection.msgtype)
        with self._writing():
            self._writer.write(connection, time_ns, bytes(data))

    def close(self) -> None:
        """Complete the bag."""
        folder = self._writer.path
        try:
            with self._writing():
                self._writer.close()
                single = self.path.suffix == ".mcap"
                os.replace(next(folder.glob("*.mcap")) if single else folder, self._target)
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._lock is None:  # discarded or complete
            return
        with suppress(Exception):
            self._writer.abort()
        shutil.rmtree(self._beside, ignore_errors=True)
        os.close(self._lock)
        self._lock = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self.failed = True
            self.discard()
            reason = getattr(error, "strerror", None) or error
            raise OSError(f"{self.path} cannot be written: {reason}") from None

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def check_bag_path(path: str | Path, storage: str = "mcap") -> None:
    """Raise ``ValueError`` for what cannot be the name of a new bag."""
    if storage not in STORAGES:
        raise ValueError(f"storage must be one of {', '.join(STORAGES)}; got {storage!r}")
    if Path(path).suffix == ".mcap":
        if storage != "mcap":
            raise ValueError(f"{path} is a single file, which has the storage mcap; got {storage}")
        if os.path.isdir(path):
            raise IsADirectoryError(f"{path} is a folder; expected the name of an .mcap file")
    elif os.path.lexists(path):
        raise ValueError(f"{path} exists; a bag is a new folder: remove it or choose another name")
