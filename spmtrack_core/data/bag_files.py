"""One file of a bag: its topics and the messages of a topic, in the order of the recording.

By its index where it has one (``rosbags``). A file that is damaged, cut off or was never closed is
read from its start to its end instead (``mcap``, ``sqlite3``, the records of ROS 1).
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags import rosbag1, rosbag2
from rosbags.rosbag1.reader import Header, RecordType, decompressors, read_bytes, read_uint32

_MCAP, _SQLITE, _ROS1, _ZSTD = (
    b"\x89MCAP",
    b"SQLite format 3",
    b"#ROSBAG V2.0",
    b"\x28\xb5\x2f\xfd",
)
_LONGEST_RECORD = 2**32  # bytes; a damaged length is longer


class Record(NamedTuple):
    """A message as it was recorded."""

    topic: str
    kind: str
    """Type of the message, as ROS 2 names it."""
    time_ns: int
    data: bytes
    ros1: bool
    """Serialized as in ROS 1, else as CDR."""


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

    What is compressed as a whole is unpacked into the folder ``scratch``.
    """

    def __init__(self, path: Path, scratch: Path, fault: Callable[[str], object]) -> None:
        self.path, self._fault, self._scratch = path, fault, scratch
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
                    yield Record(topic, connection.msgtype, time_ns, _unpacked(data), ros1)
                    newest = time_ns
                return
            except Exception as error:  # rosbags raises many kinds for a damaged file
                self._broken = _sentence(error)
        self._fault(f"{self.path} is read without its index ({self._broken})")
        for record in self._scan(self._fault):
            if record.topic == topic and record.time_ns > newest:
                yield record._replace(data=_unpacked(record.data))

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            with suppress(Exception):
                self._reader.close()
            self._reader = None

    def _indexed(self) -> Any:
        """The reader of the file by its index; None if it has none that is usable."""
        if self._reader is None and not self._broken:
            try:
                path = self._unpack()
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
                self._broken = _sentence(error)
        return self._reader

    def _scan(self, fault: Callable[[str], object]) -> Iterator[Record]:
        path = self._unpack()
        scan = {_MCAP: _scan_mcap, _SQLITE: _scan_sqlite, _ROS1: _scan_ros1}.get(_magic(path))
        if scan is None:
            fault(f"{self.path} is damaged: it has no message that can be read")
            return
        yield from scan(path, lambda text: fault(f"{self.path}: {text}"))

    def _unpack(self) -> Path:
        """The file itself, or as much of it as can be unpacked."""
        if self._plain is None:
            self._plain = self.path
            if _magic(self.path) == _ZSTD:
                self._plain = self._scratch / self.path.stem
                with self.path.open("rb") as source, self._plain.open("wb") as copy:
                    try:
                        with zstandard.ZstdDecompressor().stream_reader(
                            source, read_across_frames=True
                        ) as reader:
                            while piece := reader.read(2**20):
                                copy.write(piece)
                    except zstandard.ZstdError as error:
                        self._fault(f"{self.path} cannot be unpacked to its end: {error}")
            elif _has_journal(self.path):  # SQLite would write to it
                self._plain = self._scratch / self.path.name
                for each in (self.path, _journal(self.path)):
                    shutil.copyfile(each, self._scratch / each.name)
        return self._plain


_PLUGINS = {_MCAP: ".mcap", _SQLITE: ".db3"}


def _journal(path: Path) -> Path:
    """What SQLite has not yet brought into the file."""
    return path.with_name(path.name + "-wal")


def _has_journal(path: Path) -> bool:
    return _journal(path).is_file() and _journal(path).stat().st_size > 0


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _unpacked(data: bytes | memoryview) -> bytes:
    """A message of its own compression; no message begins as compressed ones do."""
    raw = bytes(data)
    if not raw.startswith(_ZSTD):
        return raw
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(raw)
    except zstandard.ZstdError:
        return raw  # no message: counted as a damaged one


def _scan_mcap(path: Path, fault: Callable[[str], object]) -> Iterator[Record]:
    schemas: dict[int, str] = {}
    channels: dict[int, Channel] = {}

    def found(record: McapRecord) -> Record | None:
        if isinstance(record, Schema):
            schemas[record.id] = record.name
        elif isinstance(record, Channel):
            channels[record.id] = record
        elif isinstance(record, Message) and (channel := channels.get(record.channel_id)):
            kind = schemas.get(channel.schema_id, "")
            ros1 = channel.message_encoding == "ros1"
            if ros1 and "/msg/" not in kind:
                kind = kind.replace("/", "/msg/")
            return Record(channel.topic, kind, record.log_time, record.data, ros1)
        return None

    with path.open("rb") as file:
        records = StreamReader(file, emit_chunks=True, record_size_limit=_LONGEST_RECORD).records
        while True:
            try:
                record = next(records, None)
            except Exception as error:  # struct.error, EndOfFile, ...
                fault(f"it ends or is damaged at byte {file.tell()} ({_sentence(error)})")
                return
            if record is None:
                return
            parts = [record]
            if isinstance(record, Chunk):
                try:
                    parts = breakup_chunk(record, validate_crc=True)
                except Exception as error:  # of the decompressor, struct.error, ...
                    fault(f"a chunk of {len(record.data)} bytes is damaged ({_sentence(error)})")
                    continue
            yield from filter(None, map(found, parts))


def _scan_sqlite(path: Path, fault: Callable[[str], object]) -> Iterator[Record]:
    # a journal is only there beside a copy; anything else is left as it is
    mode = "mode=rw" if _journal(path).is_file() else "immutable=1"
    held = None
    try:
        address = f"{path.absolute().as_uri()}?{mode}"
        with closing(sqlite3.connect(address, uri=True)) as database:
            database.execute("PRAGMA writable_schema = ON")  # opens a file that is cut off
            for record in _sqlite_rows(database, fault):
                if held is not None:
                    yield held
                held = record
    except sqlite3.DatabaseError as error:
        fault(f"its tables are damaged ({_sentence(error)})")
    with path.open("rb") as file:
        size, pages = struct.unpack(">16xH10xI", file.read(32))
    if pages * (size if size > 1 else 65536) > path.stat().st_size:
        fault("it is cut off")  # SQLite gives zeros for what is missing of the last message
    elif held is not None:
        yield held


def _sqlite_rows(database: sqlite3.Connection, fault: Callable[[str], object]) -> Iterator[Record]:
    topics = {
        number: (topic, kind)
        for number, topic, kind in database.execute("SELECT id, name, type FROM topics")
    }
    query = "SELECT id, topic_id, timestamp, data FROM messages WHERE id >= ? ORDER BY id"
    first, step, damaged = 0, 1, False
    while first < 2**62:
        try:
            for number, topic, time_ns, data in database.execute(query, (first,)):
                if number < first:  # a damaged table may lead in circles
                    raise sqlite3.DatabaseError
                first, step = number + 1, 1
                if topic in topics:
                    yield Record(*topics[topic], int(time_ns), bytes(data), False)
            break
        except (sqlite3.DatabaseError, TypeError, ValueError):  # go on behind the damaged page
            damaged = True
            first, step = first + step, 2 * step
    if damaged:
        fault("pages of its database are missing or damaged")


def _scan_ros1(path: Path, fault: Callable[[str], object]) -> Iterator[Record]:
    topics: dict[int, tuple[str, str]] = {}

    def found(header: Header, data: bytes) -> Record | None:
        operation = header.get_uint8("op")
        if operation == RecordType.CONNECTION:
            kind = Header.read(BytesIO(struct.pack("<I", len(data)) + data)).get_string("type")
            topics[header.get_uint32("conn")] = (
                header.get_string("topic"),
                kind if "/msg/" in kind else kind.replace("/", "/msg/"),
            )
        elif operation == RecordType.MSGDATA and header.get_uint32("conn") in topics:
            where = topics[header.get_uint32("conn")]
            return Record(*where, header.get_time("time"), data, True)
        return None

    with path.open("rb") as file:
        file.readline()
        while start := file.tell():
            head = file.read(4)
            if not head:
                return
            header = None
            try:
                header = Header.read(BytesIO(head + file.read(struct.unpack("<I", head)[0])))
                length = read_uint32(file)
                data = file.read(length)  # shorter where the file is cut off
                if header.get_uint8("op") == RecordType.CHUNK:
                    plain = BytesIO(decompressors[header.get_string("compression")](data))
                    while plain.tell() < len(plain.getbuffer()):
                        part = Header.read(plain)
                        if record := found(part, read_bytes(plain, read_uint32(plain))):
                            yield record
                elif len(data) == length and (record := found(header, data)):
                    yield record
            except Exception as error:  # of the decompressor, and rosbags raises many kinds
                fault(f"it ends or is damaged at byte {start} ({_sentence(error)})")
                if header is None:  # where the next record begins is not known
                    return
