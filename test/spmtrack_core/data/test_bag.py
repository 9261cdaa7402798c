"""Bags of every kind give the same images, and damaged ones what can be read."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import sqlite3
import tempfile
import tracemalloc

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rosbags", reason="rosbags is absent: pip install 'spmtrack_ros[bag]'")

import zstandard
from mcap.writer import CompressionType, Writer
from recorded_bags import (
    MODES,
    PERIOD_NS,
    ROS2,
    START_NS,
    image_message,
    picture,
    stamp_ns,
    write_ros1,
    write_ros2,
    write_split,
)

from spmtrack_core.data import bag_files
from spmtrack_core.data.bag import Bag

TOPIC = "/camera/image_raw"
IMAGE = "sensor_msgs/msg/Image"


def read(path, spoiled=0):
    """Numbers of the pictures that can be read, and what is said of the others.

    ``spoiled`` pictures may have other pixels: not every kind of bag has checksums.
    """
    with Bag(path) as bag:
        images = list(bag.images(TOPIC))
        right = [np.array_equal(image.decode(), picture(number(image))) for image in images]
        assert right.count(False) <= spoiled
        assert {image.frame_id for image in images} <= {"camera"}
        assert [image.number for image in images] == list(range(len(images)))
        return [number(image) for image in images], bag.faults


def number(image):
    return (image.stamp_ns - START_NS) // PERIOD_NS


@pytest.mark.parametrize(
    ("storage", "compression"),
    [("mcap", mode) for mode in MODES]
    + [("sqlite3", mode) for mode in MODES if mode != "storage"],
)
def test_every_storage_and_compression(tmp_path, storage, compression):
    path = write_ros2(tmp_path / "bag", storage=storage, compression=compression)
    assert read(path) == (list(range(8)), [])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_the_parts_of_a_split_bag_in_the_order_of_their_numbers(tmp_path, storage):
    assert read(write_split(tmp_path / "bag", storage=storage)) == (list(range(12)), [])


@pytest.mark.parametrize("name", ["bag.mcap", "bag.db3"])
def test_a_single_file_whatever_its_name(tmp_path, name):
    folder = write_ros2(tmp_path / "bag", storage="mcap" if "mcap" in name else "sqlite3")
    file = shutil.move(folder / name, tmp_path / "recording")
    assert read(file) == (list(range(8)), [])


@pytest.mark.parametrize("compression", [None, "bz2", "lz4"])
@pytest.mark.parametrize("kind", [IMAGE, "sensor_msgs/msg/CompressedImage"])
def test_ros_1(tmp_path, compression, kind):
    path = write_ros1(tmp_path / "old.bag", compression=compression, kind=kind)
    assert read(path) == (list(range(8)), [])


def test_images_of_another_kind_and_encoding(tmp_path):
    kinds = {"kind": "sensor_msgs/msg/CompressedImage"}, {"encoding": "bgr8"}
    for index, fields in enumerate(kinds):
        assert read(write_ros2(tmp_path / str(index), **fields)) == (list(range(8)), [])
    grey = write_ros2(tmp_path / "grey", encoding="mono8")
    with Bag(grey) as bag:
        assert all(len(np.unique(image.decode()[0, 0])) == 1 for image in bag.images(TOPIC))


def test_the_time_of_the_recording_is_kept(tmp_path):
    with Bag(write_ros2(tmp_path / "bag")) as bag:
        times = [image.time_ns for image in bag.images(TOPIC)]
    assert times == [stamp_ns(index) + 5_000_000 for index in range(8)]


@pytest.mark.parametrize(
    ("topics", "asked", "said"),
    [
        (("/a", "/b"), None, r"has 2 topics with images; choose one with --topic: /a \(8\), /b"),
        (("/a",), "/c", r"has no topic /c; topics with images: /a \(8\)"),
        (("/a",), "/chatter", "topic /chatter of .* holds no images"),
        ((), None, "holds no sensor_msgs/Image or CompressedImage; topics: /chatter"),
    ],
)
def test_a_topic_that_cannot_be_chosen(tmp_path, topics, asked, said):
    with Bag(write_ros2(tmp_path / "bag", topics=topics)) as bag:
        with pytest.raises(ValueError, match=said):
            bag.choose_topic(asked)


def test_the_only_topic_with_images_is_taken(tmp_path):
    with Bag(write_ros2(tmp_path / "bag")) as bag:
        assert bag.choose_topic() == bag.choose_topic(TOPIC) == TOPIC
        assert bag.image_topics() == {TOPIC: 8}


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda path: None, FileNotFoundError, "no bag at"),
        (lambda path: path.write_bytes(b""), ValueError, "is no bag: expected a rosbag2 folder"),
        (lambda path: path.write_text("<html>"), ValueError, "is no bag"),
        (lambda path: path.mkdir(), ValueError, "holds no bag: expected .mcap"),
    ],
)
def test_what_is_no_bag(tmp_path, make, error, said):
    make(tmp_path / "bag")
    with pytest.raises(error, match=said):
        Bag(tmp_path / "bag")


def chunked_mcap(path, images=12, profile="ros2", **options):
    """Three images a chunk, as large messages give with the defaults of ``ros2 bag record``."""
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=20_000, **options)
        writer.start(profile=profile)
        text = ROS2.generate_msgdef(IMAGE, ros_version=2)[0]
        schema = writer.register_schema(IMAGE, "ros2msg", text.encode())
        channel = writer.register_channel(TOPIC, "cdr", schema)
        for index in range(images):
            data = bytes(ROS2.serialize_cdr(image_message(ROS2.types, index), IMAGE))
            writer.add_message(channel, stamp_ns(index), data, stamp_ns(index))
        writer.finish()
    return path


def cut(path, part=0.6):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


def overwrite(path, part=0.5, count=300):
    content = bytearray(path.read_bytes())
    start = int(len(content) * part)
    content[start : start + count] = bytes(count)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "kept", "said"),
    [
        (cut, [0, 1, 2, 3, 4, 5], "ends or is damaged at byte"),
        (overwrite, [0, 1, 2, 3, 4, 5, 9, 10, 11], "a chunk of .* bytes is damaged"),
        (lambda path: overwrite(path, count=9_000), [0, 1, 2, 3, 4, 5], "ends or is damaged"),
    ],
)
def test_a_damaged_mcap_gives_what_is_whole(tmp_path, damage, kept, said):
    path = chunked_mcap(tmp_path / "a.mcap")
    damage(path)
    numbers, (first, *rest) = read(path)
    assert numbers == kept
    assert "is read without its index" in first
    assert any(re.search(said, fault) for fault in rest)


@pytest.mark.parametrize(
    "options",
    [
        {"repeat_channels": False, "repeat_schemas": False, "use_statistics": False},
        {"use_chunking": False, "repeat_channels": False},
        {"profile": ""},
        {"compression": CompressionType.LZ4},
        {"compression": CompressionType.NONE},
    ],
)
def test_an_mcap_that_other_programs_wrote(tmp_path, options):
    assert read(chunked_mcap(tmp_path / "a.mcap", **options))[0] == list(range(12))


@pytest.mark.parametrize(
    ("damage", "least"),
    [
        (cut, 20),
        (lambda path: overwrite(path, count=9_000), 30),
        (lambda path: path.with_name("metadata.yaml").unlink(), 40),
        (lambda path: path.with_name("metadata.yaml").write_text("a: [" * 9), 40),
    ],
)
def test_a_damaged_sqlite_bag_gives_what_is_whole(tmp_path, damage, least):
    folder = write_ros2(tmp_path / "bag", range(40), storage="sqlite3")
    damage(folder / "bag.db3")
    numbers, faults = read(folder)
    assert len(numbers) >= least and numbers == sorted(set(numbers))
    assert faults


def test_behind_many_damaged_rows_every_image_is_read(tmp_path):
    file = write_ros2(tmp_path / "bag", range(200), storage="sqlite3") / "bag.db3"
    overwrite(file, 0.1, int(0.7 * file.stat().st_size))
    numbers, _ = read(file, spoiled=1)
    last = [each for each in numbers if each > 100]
    assert last == list(range(last[0], 200)) and last[0] <= 161


def test_messages_that_a_crashed_recorder_left_in_the_journal(tmp_path):
    folder = write_ros2(tmp_path / "bag", range(4), storage="sqlite3")
    database = sqlite3.connect(folder / "bag.db3")
    database.execute("PRAGMA journal_mode = WAL")
    message = image_message(ROS2.types, 4)
    data = bytes(ROS2.serialize_cdr(message, IMAGE))
    row = (2, stamp_ns(4), data)
    database.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    database.commit()
    crashed = shutil.copytree(folder, tmp_path / "crashed")
    database.close()
    before = {path.name: path.read_bytes() for path in crashed.iterdir()}
    numbers, (fault,) = read(crashed)
    assert numbers == [0, 1, 2, 3, 4]
    assert "its recorder did not end well" in fault
    assert {path.name: path.read_bytes() for path in crashed.iterdir()} == before


@pytest.mark.parametrize(
    ("damage", "least", "spoiled"),
    [
        (cut, 20, 0),
        (lambda path: cut(path, 0.99), 38, 0),  # the index is gone
        (lambda path: overwrite(path, 0.5, 5_000), 15, 1),
    ],
)
def test_a_damaged_ros_1_bag_gives_what_is_whole(tmp_path, damage, least, spoiled):
    path = write_ros1(tmp_path / "old.bag", range(40))
    damage(path)
    numbers, faults = read(path, spoiled)
    assert len(numbers) >= least and numbers == sorted(set(numbers))
    assert any("ends or is damaged at byte" in fault for fault in faults)


def test_a_part_that_is_missing_or_damaged_costs_its_own_images(tmp_path):
    folder = write_split(tmp_path / "bag")
    cut(folder / "part_10.mcap", 0.1)
    numbers, faults = read(folder)
    assert numbers == [0, 1, 2, 11] and "part_10.mcap" in faults[0]
    (folder / "part_10.mcap").unlink()
    numbers, faults = read(folder)
    assert numbers == [0, 1, 2, 11]
    assert faults == [f"{folder}/part_10.mcap, a part of the bag, is missing"]


@pytest.mark.parametrize(
    ("listed", "numbers", "said"),
    [
        (["part_9.mcap", "part_11.mcap"], [0, 1, 2, 11], ["part_10.mcap is not read"]),
        ([], list(range(12)), [f"part_{part}.mcap is read" for part in (9, 10, 11)]),
        (["old.mcap"], list(range(12)), ["old.mcap, a part of the bag, is missing"]),
        (["part_9.mcap", "part_9.mcap"], [0, 1, 2], ["part_10.mcap is not", "part_11.mcap is"]),
    ],
)
def test_files_that_metadata_does_not_list(tmp_path, listed, numbers, said):
    folder = write_split(tmp_path / "bag")
    metadata = folder / "metadata.yaml"
    content = yaml.safe_load(metadata.read_text())
    content["rosbag2_bagfile_information"]["relative_file_paths"] = listed
    metadata.write_text(yaml.dump(content))
    found, faults = read(folder)
    assert found == numbers
    assert all(any(f"{folder}/{text}" in fault for fault in faults) for text in said)


def test_everything_that_belongs_to_a_bag_counts_as_its_files(tmp_path):
    folder = write_split(tmp_path / "bag", storage="sqlite3")
    (folder / "part_9.db3-wal").touch()
    shutil.copy(folder / "part_9.db3", folder / "copy.db3")
    (folder / "notes.txt").touch()
    with Bag(folder) as bag:
        present = {path.name for path in folder.iterdir() if path in bag.files}
    assert present == {path.name for path in folder.iterdir()} - {"notes.txt"}
    with Bag(folder / "part_9.db3") as bag:
        assert {folder / "part_9.db3", folder / "part_9.db3-wal"} == set(bag.files)


@pytest.mark.parametrize("length", [15, 20, 31, 99])
def test_a_part_of_which_only_the_header_was_written(tmp_path, length):
    folder = write_split(tmp_path / "bag", storage="sqlite3")
    cut(folder / "part_10.db3", length / (folder / "part_10.db3").stat().st_size + 1e-9)
    assert (folder / "part_10.db3").stat().st_size == length
    numbers, faults = read(folder)
    assert numbers == [0, 1, 2, 11] and "part_10.db3" in faults[0]


def test_compressed_data_that_are_cut_off(tmp_path):
    folder = write_ros2(tmp_path / "bag", compression="file")
    cut(folder / "bag.mcap.zstd", 0.5)
    numbers, faults = read(folder)
    assert numbers == [] and "is read without its index" in faults[0]
    (folder / "metadata.yaml").unlink()
    with Bag(folder) as bag, pytest.raises(ValueError, match="holds no message"):
        bag.choose_topic()


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder for temporary files, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("compression", ["none", "file"])
def test_one_part_at_a_time_is_open_and_unpacked(tmp_path, scratch, metadata, compression):
    parts = [range(index, index + 1) for index in range(12)]
    folder = write_split(tmp_path / "bag", parts, compression=compression)
    if not metadata:
        (folder / "metadata.yaml").unlink()
    opened = len(os.listdir("/proc/self/fd"))
    with Bag(folder) as bag:
        assert bag.choose_topic() == TOPIC
        assert list(scratch.iterdir()) == []
        numbers = []
        for image in bag.images(TOPIC):
            numbers.append(image.number)
            assert len(list(scratch.rglob("*.mcap"))) == (compression == "file")
            assert len(os.listdir("/proc/self/fd")) <= opened + 2
        assert numbers == list(range(12))
    assert list(scratch.iterdir()) == []


def test_a_disk_without_space_for_what_is_unpacked(tmp_path, scratch):
    folder = write_ros2(tmp_path / "bag", compression="file")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Bag(folder) as bag:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            with pytest.raises(OSError, match=r"cannot be unpacked into .*scratch .* set TMPDIR"):
                list(bag.images(TOPIC))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(scratch.iterdir()) == []
    assert read(folder) == (list(range(8)), [])


def test_a_message_that_would_fill_the_memory_counts_as_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_files, "_LONGEST_MESSAGE", 2**20)
    folder = write_ros2(tmp_path / "bag", storage="sqlite3", compression="message")
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(2**25))
    with sqlite3.connect(folder / "bag.db3") as database:
        database.execute("UPDATE messages SET data = ? WHERE id = 4", (bomb,))
    tracemalloc.start()
    try:
        numbers, (fault,) = read(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert numbers == [0, 2, 3, 4, 5, 6, 7] and "1 messages" in fault
    assert peak < 2**24


@pytest.mark.parametrize(
    ("column", "value", "counted"),
    [
        ("data", b"\0\1\0\0\7", True),
        ("timestamp", -1, True),
        # values of another type end the reading by the index
        ("data", 10**12, False),
        ("timestamp", None, False),
    ],
)
def test_damaged_messages_are_left_out_and_told(tmp_path, column, value, counted):
    folder = write_ros2(tmp_path / "bag", storage="sqlite3")
    with sqlite3.connect(folder / "bag.db3") as database:
        database.execute("CREATE TABLE copy AS SELECT * FROM messages")  # with nothing NOT NULL
        database.execute(f"UPDATE copy SET {column} = ? WHERE id = 4", (value,))
        database.execute("DROP TABLE messages")
        database.execute("ALTER TABLE copy RENAME TO messages")
    numbers, faults = read(folder)
    assert numbers == [0, 2, 3, 4, 5, 6, 7]
    file = re.escape(str(folder / "bag.db3"))
    left_out = [f"1 messages of {TOPIC} are damaged and were left out"]
    scanned = [rf"{file} is read without its index \(.+\)", f"{file}: pages of its database .+"]
    expected = left_out if counted else scanned
    assert len(faults) == len(expected), faults
    for fault, pattern in zip(faults, expected, strict=True):
        assert re.fullmatch(pattern, fault), fault


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A file of each kind."""
    root = tmp_path_factory.mktemp("pristine")
    folders = [
        write_ros2(root / "plain", range(6)),
        write_ros2(root / "chunks", range(6), compression="storage"),
        write_ros2(root / "sqlite", range(6), storage="sqlite3"),
        write_ros2(root / "packed", range(6), storage="sqlite3", compression="file"),
    ]
    files = [next(path for path in each.iterdir() if path.suffix != ".yaml") for each in folders]
    return [*files, write_ros1(root / "old.bag", range(6), compression="lz4")]


@settings(max_examples=60)
@given(data=st.data())
def test_any_damage_costs_images_and_raises_nothing_else(pristine, data, tmp_path_factory):
    file = data.draw(st.sampled_from(pristine))
    content = bytearray(file.read_bytes())
    places = st.integers(0, len(content) - 1)
    if data.draw(st.booleans(), label="cut off"):
        content = content[: data.draw(places)]
    else:
        for place in data.draw(st.lists(places, min_size=1, max_size=8)):
            spoiled = data.draw(st.binary(min_size=1, max_size=64))
            content[place : place + len(spoiled)] = spoiled
    damaged = tmp_path_factory.mktemp("damaged") / file.name
    damaged.write_bytes(content)
    try:
        with Bag(damaged) as bag:
            for image in bag.images(bag.choose_topic()):
                with contextlib.suppress(ValueError):
                    assert image.decode().dtype == np.uint8
    except ValueError as error:
        assert str(error)
