"""The messages in one file of a bag that is damaged, cut off or was never closed.

It is read from its start to its end, without its index. Each function tells ``fault`` in a
sentence what cannot be read.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.rosbag1.reader import Header, RecordType, decompressors, read_bytes, read_uint32

from spmtrack_core.files import one_line

_LONGEST_RECORD = 2**32  # bytes; a damaged length is longer
_BEHIND_ROWS = 2**62  # no recording has so many


class Record(NamedTuple):
    """A message as it was recorded."""

    topic: str
    kind: str
    """Type of the message, as ROS 2 names it."""
    time_ns: int
    data: bytes
    ros1: bool
    """Serialized as in ROS 1, else as CDR."""


def journal_of(path: Path) -> Path:
    """What SQLite has not yet brought into the file."""
    return path.with_name(path.name + "-wal")


def sentence(error: Exception) -> str:
    """What an error says, to be put into a sentence."""
    return one_line(error).rstrip(".")


def scan_mcap(path: Path, fault: Callable[[str], object]) -> Iterator[Record]:
    """The messages of an MCAP file whose records and chunks are whole."""
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
                fault(f"it ends or is damaged at byte {file.tell()} ({sentence(error)})")
                return
            if record is None:
                return
            parts = [record]
            if isinstance(record, Chunk):
                try:
                    parts = breakup_chunk(record, validate_crc=True)
                except Exception as error:  # of the decompressor, struct.error, ...
                    fault(f"a chunk of {len(record.data)} bytes is damaged ({sentence(error)})")
                    continue
            yield from filter(None, map(found, parts))


def scan_sqlite(path: Path, fault: Callable[[str], object]) -> Iterator[Record]:
    """The messages of an SQLite database whose pages are whole."""
    with path.open("rb") as file:
        size, pages = struct.unpack(">16xH10xI", file.read(32).ljust(32, b"\0"))
    size = size if size > 1 else 65536
    cut_off = pages * size > path.stat().st_size
    held: Record | None = None  # the last one with pages of its own, where pages are missing
    # a journal is only there beside a copy; anything else is left as it is
    mode = "mode=rw" if journal_of(path).is_file() else "immutable=1"
    try:
        address = f"{path.absolute().as_uri()}?{mode}"
        with closing(sqlite3.connect(address, uri=True)) as database:
            database.execute("PRAGMA writable_schema = ON")  # opens a file that is cut off
            for record in _sqlite_rows(database, fault):
                long = cut_off and len(record.data) > size - 100
                if held and (long or record.topic == held.topic):
                    yield held
                    held = None
                if long:
                    held = record
                else:
                    yield record
    except sqlite3.DatabaseError as error:
        fault(f"its tables are damaged ({sentence(error)})")
    if cut_off:
        fault("it is cut off")  # SQLite gives zeros for what is missing of the one that is held


def _sqlite_rows(database: sqlite3.Connection, fault: Callable[[str], object]) -> Iterator[Record]:
    topics = {
        number: (str(topic), str(kind))
        for number, topic, kind in database.execute("SELECT id, name, type FROM topics")
    }
    first, damaged = 0, False
    while first < _BEHIND_ROWS:
        try:
            row = _sqlite_row(database, first)
        except sqlite3.DatabaseError:
            damaged = True
            first = _behind_damage(database, first)
            continue
        if row is None:
            break
        number, topic, time_ns, data = row
        first = number + 1
        if topic in topics and isinstance(time_ns, int) and isinstance(data, bytes):
            yield Record(*topics[topic], time_ns, data, False)
        else:
            damaged = True
    if damaged:
        fault("pages of its database are missing or damaged")


def _sqlite_row(database: sqlite3.Connection, first: int) -> Any:
    """The first row from an id on; None behind the last. Raises ``DatabaseError``."""
    query = "SELECT id, topic_id, timestamp, data FROM messages WHERE id >= ? ORDER BY id LIMIT 1"
    try:
        row = database.execute(query, (first,)).fetchone()
    except MemoryError:  # a damaged length
        raise sqlite3.DatabaseError from None
    if row and not (isinstance(row[0], int) and row[0] >= first):  # a table may lead in circles
        raise sqlite3.DatabaseError
    return row


def _behind_damage(database: sqlite3.Connection, first: int) -> int:
    """The next id that can be read, by bisection: a page has many, which all cannot be read."""

    def readable(number: int) -> bool:
        try:
            _sqlite_row(database, number)
            return True
        except sqlite3.DatabaseError:
            return False

    step = 1
    while first + step < _BEHIND_ROWS and not readable(first + step):
        step *= 2
    low, high = first + step // 2, first + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if readable(middle) else (middle, high)
    return high


def scan_ros1(path: Path, fault: Callable[[str], object]) -> Iterator[Record]:
    """The messages of a ROS 1 bag whose records and chunks are whole."""
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
                fault(f"it ends or is damaged at byte {start} ({sentence(error)})")
                if header is None:  # where the next record begins is not known
                    return
