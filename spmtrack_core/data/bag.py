"""Images of a ROS bag, without ROS: a rosbag2 folder, or an .mcap, .db3 or ROS 1 .bag file.

``bag_files`` reads single files; here they are one bag, and messages become images.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from spmtrack_core.data.bag_files import BagFile, is_bag_file
from spmtrack_core.data.bag_scan import Record, journal_of
from spmtrack_core.data.image_messages import compressed_to_array, image_to_array
from spmtrack_core.data.images import natural_key
from spmtrack_core.data.messages import stamp_to_ns
from spmtrack_core.geometry.image import Image

DECODERS = {
    "sensor_msgs/msg/Image": image_to_array,
    "sensor_msgs/msg/CompressedImage": compressed_to_array,
}
"""The types of image messages, each with what makes RGB uint8 (H, W, 3) of one."""


@dataclass(frozen=True)
class BagImage:
    """One image of a bag, not decoded yet."""

    number: int
    """Position among the images of its topic, from 0."""
    time_ns: int
    """When it was recorded."""
    stamp_ns: int
    """Stamp of its header."""
    message: Any
    kind: str
    """Type of the message, one of ``DECODERS``."""

    @property
    def frame_id(self) -> str:
        """The frame_id of its header."""
        return str(self.message.header.frame_id)

    def decode(self) -> Image:
        """RGB uint8 (H, W, 3). Raises ``ValueError`` for an image that cannot be read."""
        return DECODERS[self.kind](self.message)


class Bag:
    """A bag that is read from its beginning to its end, as far as that is possible.

    A context manager. What cannot be read is passed over and named in ``faults``, which is
    complete when ``images`` has ended or was closed. Raises ``FileNotFoundError`` where nothing is
    and ``ValueError`` for what is no bag.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.faults: list[str] = []
        self._listed_topics: dict[str, tuple[str, int]] = {}
        self._left_out: list[Path] = []
        self._files = [BagFile(each, self._fault) for each in self._paths()]

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def _fault(self, text: str) -> None:
        if text not in self.faults:  # a part may be read twice
            self.faults.append(text)

    @property
    def files(self) -> list[Path]:
        """All that belongs to the bag, read or not: nothing may be written to it."""
        paths = [file.path for file in self._files]
        if self.path.is_dir():
            paths += [self.path / "metadata.yaml", *self._left_out]
        return [*paths, *map(journal_of, paths)]

    def image_topics(self) -> dict[str, int]:
        """The topics with images, and how many messages each has."""
        topics = self._topics()
        return {name: count for name, (kind, count) in topics.items() if kind in DECODERS}

    def _topics(self) -> dict[str, tuple[str, int]]:
        """Type and number of messages of each topic, by metadata.yaml or else by the files."""
        if self._listed_topics:
            return self._listed_topics
        topics: dict[str, tuple[str, int]] = {}
        for file in self._files:
            for name, (kind, count) in file.topics().items():
                before = topics.get(name, (kind, 0))
                topics[name] = before[0], before[1] + count
            if len(self._files) > 1:  # there may be more than can be open, or unpacked
                file.close()
        return topics

    def choose_topic(self, topic: str | None = None) -> str:
        """``topic``, or the only one with images; ``ValueError`` where that is none."""
        counts = self.image_topics()
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        if topic in counts:
            return topic
        if topic is not None:
            problem = f"topic {topic} of {self.path} holds no images"
            if topic not in self._topics():
                problem = f"{self.path} has no topic {topic}"
            raise ValueError(f"{problem}; topics with images: {listed or 'none'}")
        if not counts:
            names = sorted(self._topics())
            faults = f"; {'; '.join(self.faults)}" if self.faults else ""
            raise ValueError(
                f"{self.path} holds no sensor_msgs/Image or CompressedImage; topics: "
                f"{', '.join(names) or 'none'}{faults}"
            )
        if len(counts) > 1:
            raise ValueError(
                f"{self.path} has {len(counts)} topics with images; choose one with --topic: "
                f"{listed}"
            )
        return next(iter(counts))

    def images(self, topic: str) -> Generator[BagImage, None, None]:
        """The images of a topic in the order of the recording."""
        number, unreadable = 0, 0
        try:
            for file in self._files:
                with closing(file):  # one at a time is open, or unpacked
                    for record in file.records(topic):
                        message = _message(record)
                        if message is None:
                            unreadable += 1
                            continue
                        stamp_ns = stamp_to_ns(message.header.stamp)
                        yield BagImage(number, record.time_ns, stamp_ns, message, record.kind)
                        number += 1
        finally:  # also where no more images are wanted
            if unreadable:
                text = f"{unreadable} messages of {topic} are damaged and were left out"
                self.faults.append(text)

    def _paths(self) -> list[Path]:
        path = self.path
        if not path.is_dir():
            if not path.exists():
                raise FileNotFoundError(f"no bag at {path}")
            if not is_bag_file(path):
                raise ValueError(
                    f"{path} is no bag: expected a rosbag2 folder, an .mcap, a .db3 or a ROS 1 "
                    ".bag file"
                )
            return [path]
        present = [each for each in path.iterdir() if each.is_file() and is_bag_file(each)]
        paths = sorted(present, key=lambda each: natural_key(each.name))
        listed = self._listed()
        if listed is not None:
            for each in listed:
                if each not in present:
                    state = "is damaged" if each.exists() else "is missing"
                    self._fault(f"{each}, a part of the bag, {state}")
            unlisted = [each for each in paths if each not in listed]
            parts = [each for each in listed if each in present]
            for each in unlisted:
                done = "is not read" if parts else "is read"
                self._fault(f"{each} {done}: metadata.yaml does not list it")
            self._left_out = [*listed, *unlisted]
            paths = parts or paths
        if not paths:
            raise ValueError(
                f"{path} holds no bag: expected .mcap, .db3 or .bag files"
                + (f"; {'; '.join(self.faults)}" if self.faults else "")
            )
        return paths

    def _listed(self) -> list[Path] | None:
        """The files by metadata.yaml; None where it does not tell. Its topics are kept."""
        file = self.path / "metadata.yaml"
        try:
            content = yaml.safe_load(file.read_bytes())["rosbag2_bagfile_information"]
            names = [PurePath(name).name for name in content["relative_file_paths"]]
            for each in content.get("topics_with_message_count") or ():
                about = each["topic_metadata"]
                topic = str(about["type"]), int(each["message_count"])
                self._listed_topics[str(about["name"])] = topic
            return [self.path / name for name in dict.fromkeys(names)]
        except FileNotFoundError:
            self._fault(f"{file} is missing: every file of the folder is read")
        except Exception:  # PyYAML raises many kinds for a damaged file
            self._listed_topics.clear()
            self._fault(f"{file} is damaged: every file of the folder is read")
        return None


_ROS1, _ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_JAZZY)


def _message(record: Record) -> Any:
    """The message of a record; None if its bytes are not one, or its times cannot be written."""
    time_ns = record.time_ns
    if record.kind not in DECODERS or not (isinstance(time_ns, int) and 0 <= time_ns < 2**63):
        return None
    message: Any
    try:
        if record.ros1:
            message = _ROS1.deserialize_ros1(record.data, record.kind)
        else:
            message = _ROS2.deserialize_cdr(record.data, record.kind)
        seconds = stamp_to_ns(message.header.stamp) // 10**9
        return message if -(2**31) <= seconds < 2**31 else None
    except (SerdeError, AssertionError, IndexError, ValueError, TypeError, KeyError):
        return None
