"""One file of a bag: its topics and the messages of a topic, in the order of the recording.

By its index where it has one (``rosbags``). A file that is damaged, cut off or was never closed is
read from its start to its end instead (``bag_scan``).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import zstandard
from rosbags import rosbag1, rosbag2

from spmtrack_core.data.bag_scan import (
    Record,
    journal_of,
    scan_mcap,
    scan_ros1,
    scan_sqlite,
    sentence,
)
from spmtrack_core.data.image_messages import MAX_PIXELS

_MCAP, _SQLITE, _ROS1, _ZSTD = (
    b"\x89MCAP",
    b"SQLite format 3",
    b"#ROSBAG V2.0",
    b"\x28\xb5\x2f\xfd",
)
_LONGEST_MESSAGE = 8 * MAX_PIXELS + 2**20  # bytes: 4 channels of 16 bits, and a header


def is_bag_file(path: Path) -> bool:
    """Whether a file begins as those of bags do; compressed files count as well."""
    return _magic(path) in (_MCAP, _SQLITE, _ROS1, _ZSTD)


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return b""
    return next((each for each in (_MCAP, _SQLITE, _ROS1, _ZSTD) if start.startswith(each)), b"")


class BagFile:
    """A file of a bag. ``fault`` gets a sentence on each thing that cannot be read.

    What is compressed as a whole is unpacked into a temporary folder, which ``close`` removes.
    Raises ``OSError`` where that folder has no space for it.
    """

    def __init__(self, path: Path, fault: Callable[[str], object]) -> None:
        self.path, self._fault = path, fault
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._plain: Path | None = None
        self._reader: Any = None
        self._broken = ""
        self._topics: dict[str, tuple[str, int]] | None = None

    def topics(self) -> dict[str, tuple[str, int]]:
        """Type and number of messages of each topic."""
        if self._topics is None:
            found: dict[str, tuple[str, int]] = {}
            if reader := self._indexed():
                for each in reader.connections:
                    count = found.get(each.topic, ("", 0))[1] + each.msgcount
                    found[each.topic] = (each.msgtype, count)
            else:
                for record in self._scan(lambda fault: None):
                    found[record.topic] = (record.kind, found.get(record.topic, ("", 0))[1] + 1)
                if not found:
                    self._fault(f"{self.path} holds no message ({self._broken})")
            self._topics = found
        return self._topics

    def records(self, topic: str) -> Iterator[Record]:
        """The messages of a topic."""
        newest = -1
        if reader := self._indexed():
            try:
                chosen = [each for each in reader.connections if each.topic == topic]
                ros1 = isinstance(reader, rosbag1.Reader)
                for connection, time_ns, data in reader.messages(chosen) if chosen else ():
                    record = Record(topic, connection.msgtype, time_ns, _unpacked(data), ros1)
                    newest = max(newest, time_ns)
                    yield record
                return
            except Exception as error:  # rosbags raises many kinds for a damaged file
                self._broken = sentence(error)
        self._fault(f"{self.path} is read without its index ({self._broken})")
        for record in self._scan(self._fault):
            if record.topic == topic and record.time_ns > newest:
                yield record._replace(data=_unpacked(record.data))

    def close(self) -> None:
        """Close the file and remove what was unpacked of it; it may be read again."""
        if self._reader is not None:
            with suppress(Exception):
                self._reader.close()
            self._reader = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
        self._plain = None

    def _indexed(self) -> Any:
        """The reader of the file by its index; None if it has none that is usable."""
        if self._reader is None and not self._broken:
            path = self._unpack()
            try:
                magic = _magic(path)
                if _has_journal(path):
                    raise ValueError("its recorder did not end well")
                reader: Any
                if magic == _ROS1:
                    reader = rosbag1.Reader(path)
                elif magic not in _PLUGINS:
                    raise ValueError("nothing of it can be unpacked")
                else:
                    reader = rosbag2.Reader.STORAGE_PLUGINS[_PLUGINS[magic]](path)
                reader.open()
                if not reader.connections:
                    reader.close()
                    raise ValueError("it lists no topics")
                self._reader = reader
            except Exception as error:  # rosbags raises many kinds for a damaged file
                self._broken = sentence(error)
        return self._reader

    def _scan(self, fault: Callable[[str], object]) -> Iterator[Record]:
        path = self._unpack()
        scan = {_MCAP: scan_mcap, _SQLITE: scan_sqlite, _ROS1: scan_ros1}.get(_magic(path))
        if scan is None:
            fault(f"{self.path} is damaged: it has no message that can be read")
            return
        yield from scan(path, lambda text: fault(f"{self.path}: {text}"))

    def _unpack(self) -> Path:
        """The file itself, or as much of it as can be unpacked."""
        if self._plain is None:
            packed = _magic(self.path) == _ZSTD
            if not packed and not _has_journal(self.path):
                self._plain = self.path
                return self.path
            try:
                self._scratch = tempfile.TemporaryDirectory(prefix="spmtrack-")
                folder = Path(self._scratch.name)
                if packed:
                    self._decompress(folder / self.path.stem)
                    self._plain = folder / self.path.stem
                else:  # SQLite would write to it
                    for each in (self.path, journal_of(self.path)):
                        shutil.copyfile(each, folder / each.name)
                    self._plain = folder / self.path.name
            except OSError as error:
                self.close()  # what is there may fill the disk
                raise OSError(
                    f"{self.path} cannot be unpacked into {tempfile.gettempdir()} "
                    f"({error.strerror or error}); set TMPDIR to a folder with more space"
                ) from None
        return self._plain

    def _decompress(self, path: Path) -> None:
        with self.path.open("rb") as source, path.open("wb") as copy:
            reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
            while True:
                try:
                    piece = reader.read(2**20)
                except (zstandard.ZstdError, OSError) as error:
                    self._fault(f"{self.path} cannot be unpacked to its end: {sentence(error)}")
                    return
                if not piece:
                    return
                copy.write(piece)


_PLUGINS = {_MCAP: ".mcap", _SQLITE: ".db3"}


def _has_journal(path: Path) -> bool:
    return journal_of(path).is_file() and journal_of(path).stat().st_size > 0


def _unpacked(data: bytes | memoryview) -> bytes:
    """A message of its own compression; no message begins as compressed ones do.

    What cannot be unpacked, or is too long then, stays as it is and counts as damaged.
    """
    raw = bytes(memoryview(data))  # not of a number, which would be a length
    if not raw.startswith(_ZSTD):
        return raw
    plain = bytearray()
    try:
        with zstandard.ZstdDecompressor().stream_reader(raw) as reader:
            while piece := reader.read(2**20):
                plain += piece
                if len(plain) > _LONGEST_MESSAGE:
                    return raw
    except zstandard.ZstdError:
        return raw
    return bytes(plain)
