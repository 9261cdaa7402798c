"""``spmtrack bag`` as a user runs it: what is written, read back by two libraries, and errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import random
import shutil
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is absent: pip install 'spmtrack_ros[bag]'")

from mcap.reader import make_reader
from recorded_bags import BOX, stamp_ns, write_ros1, write_ros2, write_split
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spmtrack_core.cli import bag as bag_module
from spmtrack_core.data.messages import bbox_to_xywh, stamp_to_ns
from spmtrack_core.geometry.boxes import check_box_xywh
from spmtrack_core.tracking.bag_results import TOPICS
from spmtrack_core.tracking.replay import replay
from spmtrack_core.tracking.result import TrackResult, TrackState

ARGUMENTS = ("--box", *map(str, BOX))


@pytest.fixture
def run(spmtrack, tmp_path, monkeypatch, tiny_checkpoint):
    """Runs ``spmtrack bag`` in an empty folder; exit code, all that is said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        # measuring their number depends on the load, and busy cores make two of them slow
        weights = ("--weights", tiny_checkpoint, "--device", "cpu", "--threads", "1")
        code, out, err = spmtrack("bag", *weights, *arguments)
        assert "Traceback" not in err
        return code, out + err

    return run


def by_rosbags(path):
    """Messages by topic, each with its time."""
    with AnyReader([Path(path)]) as reader:
        found = {topic: [] for topic in reader.topics}
        for connection, time_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found[connection.topic].append((time_ns, message))
    return found


def by_mcap(path):
    """The same, by the definitions in the file alone."""
    found = {}
    with open(path, "rb") as file:
        for schema, channel, message in make_reader(file).iter_messages():
            store = get_typestore(Stores.EMPTY)
            store.register(get_types_from_msg(schema.data.decode(), schema.name))
            decoded = store.deserialize_cdr(message.data, schema.name)
            found.setdefault(channel.topic, []).append((message.log_time, decoded))
    return found


@pytest.mark.parametrize("read", [by_rosbags, by_mcap])
def test_what_is_written_is_what_the_node_would_publish(run, read):
    write_ros2("in", range(6))
    code, text = run("in", *ARGUMENTS, "--at", "2", "-o", "out.mcap", "--label", "square")
    assert code == 0, text
    assert "6 of 6 images processed, target-1 lost in 0" in text
    found = read("out.mcap")
    assert set(found) == set(TOPICS)
    times = [stamp_ns(index) + 5_000_000 for index in range(6)]
    detections = found["/spmtrack/detections"]
    assert [time for time, _ in detections] == times
    assert [stamp_to_ns(each.header.stamp) for _, each in detections] == [
        stamp_ns(index) for index in range(6)
    ]
    assert [len(each.detections) for _, each in detections] == [0, 0, 1, 1, 1, 1]
    first = detections[2][1].detections[0]
    assert bbox_to_xywh(first.bbox) == BOX and first.id == "target-1"
    assert first.header.frame_id == "camera"
    assert first.results[0].hypothesis.class_id == "square"
    assert first.results[0].hypothesis.score == 1.0
    single = [bbox_to_xywh(each.bbox) for _, each in found["/spmtrack/detection"]]
    assert single == [bbox_to_xywh(each.detections[0].bbox) for _, each in detections[2:]]
    states = [each.targets for _, each in found["/spmtrack/status"]]
    assert [len(each) for each in states] == [0, 0, 1, 1, 1, 1]
    (last,) = states[-1]
    assert last.primary and last.state == last.TRACKING and last.reason == last.REASON_NONE
    assert stamp_to_ns(last.last_seen) == stamp_ns(5)
    assert last.age == pytest.approx(3 * 0.04, abs=1e-6)
    shown = [each for _, each in found["/spmtrack/annotations"]]
    assert [len(each.points) for each in shown] == [0, 0, 1, 1, 1, 1]
    assert [point.x for point in shown[2].points[0].points] == [20, 36, 36, 20]
    assert shown[2].texts[0].text == "target-1 square 1.00"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("source", ["in", "in.bag"])
def test_ros_1_and_2_give_the_same_and_twice_the_same_bytes(run, source, storage):
    write_ros2("in", range(5))
    write_ros1("in.bag", range(5))
    for folder in ("one", "two"):
        code, text = run(source, *ARGUMENTS, "-o", f"{folder}/out", "--storage", storage)
        assert code == 0, text
    files = [sorted(Path(folder, "out").iterdir()) for folder in ("one", "two")]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    boxes = [
        bbox_to_xywh(each.detections[0].bbox)
        for _, each in by_rosbags("one/out")["/spmtrack/detections"]
    ]
    assert len(boxes) == 5 and boxes[0] == BOX


def test_the_newest_images_alone(run):
    write_ros2("in", range(12))
    for name in ("one", "two"):
        options = ("--frames", "latest", "--seconds", "0.05", "--speed", "2")
        code, text = run("in", *ARGUMENTS, "--at", "1", *options, "-o", f"{name}.mcap")
        assert code == 0, text
    # 100 ms of the recording an image, and an image every 40 ms; the second is that of the box
    stamps = [
        stamp_to_ns(each.header.stamp)
        for _, each in by_rosbags("one.mcap")["/spmtrack/detections"]
    ]
    assert stamps == [stamp_ns(index) for index in (0, 1, 5, 7, 10, 11)]
    assert Path("one.mcap").read_bytes() == Path("two.mcap").read_bytes()


@pytest.mark.parametrize("at", ["3", f"{stamp_ns(5) / 1e9:.3f}"])
def test_the_newest_images_by_the_time_that_was_measured(run, at):
    write_ros2("in", range(8))
    code, text = run("in", *ARGUMENTS, "--at", at, "--frames", "latest", "-o", "out.mcap")
    assert code == 0, text
    found = [each.detections for _, each in by_rosbags("out.mcap")["/spmtrack/detections"]]
    boxes = [bbox_to_xywh(each[0].bbox) for each in found if each]
    assert boxes[0] == BOX and len(boxes) >= 2  # which are skipped depends on the time


def test_several_targets_sheet_and_summary(run):
    write_ros2("in", range(5))
    targets = ("--target", "a=20,12,16,14", "--target", f"b=5,5,9.5,9@{stamp_ns(2) / 1e9:.3f}")
    code, text = run("in", *targets, "-o", "out", "--sheet", "s.jpg", "--summary", "s.json")
    assert code == 0, text
    ids = [
        [each.id for each in array.detections]
        for _, array in by_rosbags("out")["/spmtrack/detections"]
    ]
    assert ids == [["a"], ["a"], ["a", "b"], ["a", "b"], ["a", "b"]]
    report = json.loads(Path("s.json").read_text())
    assert report["images_processed"] == 5 and report["faults"] == []
    assert report["targets"]["b"]["first_stamp_ns"] == stamp_ns(2)
    assert report["targets"]["b"]["first_box_xywh"] == [5, 5, 9.5, 9]
    assert report["targets"]["a"]["images"] == 5
    assert cv2.imread("s.jpg").shape[2] == 3


def test_a_point_on_the_target_will_do(run):
    write_ros2("in", range(4))
    code, text = run("in", "--point", "28", "19", "--at", "1", "-o", "out")
    assert code == 0, text
    detections = [each.detections for _, each in by_rosbags("out")["/spmtrack/detections"]]
    assert [len(each) for each in detections] == [0, 1, 1, 1]
    x, y, w, h = bbox_to_xywh(detections[1][0].bbox)
    edge = 1e-6  # px, of a box that was written by its center
    assert -edge <= x < x + w <= 64 + edge and -edge <= y < y + h <= 48 + edge


def test_a_damaged_bag_is_tracked_as_far_as_it_can_be_read(run):
    write_ros2("in", range(30), storage="sqlite3")
    file = Path("in/in.db3")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    code, text = run("in", *ARGUMENTS, "-o", "out", "--summary", "s.json")
    assert code == 0, text
    assert "spmtrack: warning: in/in.db3: it is cut off" in text
    report = json.loads(Path("s.json").read_text())
    assert 10 <= report["images_processed"] < 20
    assert len(by_rosbags("out")["/spmtrack/detections"]) == report["images_processed"]
    assert any("cut off" in fault for fault in report["faults"])


@pytest.mark.parametrize("names", ["SIGINT", "SIGHUP,SIGHUP"])
def test_signals_keep_what_was_tracked(impatient, names):
    write_ros2("in", range(8))
    outputs = ("-o", "out", "--sheet", "s.png", "--summary", "s.json")
    code, text = impatient(3, names, "bag", "in", *ARGUMENTS, *outputs)
    assert (code, "stopped; what was tracked so far is written" in text) == (0, True), text
    assert len(by_rosbags("out")["/spmtrack/detections"]) == 3
    assert cv2.imread("s.png").shape[2] == 3
    assert json.loads(Path("s.json").read_text())["images_processed"] == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-frames", "3"], "target b: not reached: image 9"),
        (["--max-frames", "3", "--frames", "latest"], "target b: not reached: image 9"),
        ([], "target b: no image 9"),  # 7 can be read
        (["--target", "c=20,12,16,14@12.5"], "target b: no image 9"),
    ],
)
def test_what_is_damaged_is_told_however_the_run_ends(run, options, said):
    write_ros2("in", range(8), storage="sqlite3")
    with contextlib.closing(sqlite3.connect("in/in.db3")) as bag:
        bag.execute("UPDATE messages SET data = x'00' WHERE id = 2")
        bag.commit()
    targets = ("--target", "a=20,12,16,14", "--target", "b=20,12,16,14@9")
    code, text = run("in", *targets, "-o", "out", "--summary", "s.json", *options)
    assert code == 0, text
    faults = ["1 messages of /camera/image_raw are damaged and were left out", said]
    if options[:1] == ["--target"]:  # seconds from the start of the bag are no stamp
        faults.append("target c was started in the first image, which is later than its stamp")
    assert json.loads(Path("s.json").read_text())["faults"] == faults


def test_images_that_cannot_be_read_are_told(run):
    write_ros2("in", range(6), storage="sqlite3")
    with contextlib.closing(sqlite3.connect("in/in.db3")) as bag:
        for number in (8, 10):  # images 3 and 4
            (data,) = bag.execute("SELECT data FROM messages WHERE id = ?", [number]).fetchone()
            assert b"rgb8" in data
            data = data.replace(b"rgb8", b"foo8")
            bag.execute("UPDATE messages SET data = ? WHERE id = ?", [data, number])
        bag.commit()
    code, text = run("in", *ARGUMENTS, "-o", "out", "--summary", "s.json")
    assert code == 0, text
    (fault,) = json.loads(Path("s.json").read_text())["faults"]
    assert fault.startswith("2 images cannot be read, first image 3: ") and "foo8" in fault
    assert f"spmtrack: warning: {fault}\n" in text


def test_a_sheet_that_its_format_cannot_hold_leaves_the_summary(run, monkeypatch):
    write_ros2("in", range(3))
    sheet = np.zeros((66_000, 6, 3), np.uint8)  # of images that are that narrow
    monkeypatch.setattr(bag_module, "contact_sheet", lambda _: sheet)
    outputs = ("-o", "out", "--sheet", "s.jpg", "--summary", "s.json")
    code, text = run("in", *ARGUMENTS, *outputs)
    assert (code, "a .jpg file cannot hold an image" in text.splitlines()[-1]) == (2, True), text
    assert sorted(path.name for path in Path().iterdir()) == ["in", "out", "s.json"]


@pytest.mark.parametrize("box", ["99,2,5,4", "1,2,0,4"])
def test_a_later_target_that_cannot_be_started_leaves_the_others_alone(run, box):
    write_ros2("in", range(6))
    targets = ("--target", "a=20,12,16,14", "--target", f"b={box}@3")
    code, text = run("in", *targets, "-o", "out", "--summary", "s.json")
    assert code == 0, text
    assert "spmtrack: warning: target b was not started in image 3: " in text
    ids = [
        [each.id for each in array.detections]
        for _, array in by_rosbags("out")["/spmtrack/detections"]
    ]
    assert ids == [["a"]] * 6
    report = json.loads(Path("s.json").read_text())
    assert list(report["targets"]) == ["a"] and "target b was not" in report["faults"][0]


@pytest.mark.parametrize(
    ("name", "storage", "error"),
    [
        ("out", "mcap", RuntimeError("out of memory")),
        ("out", "sqlite3", OSError("unplugged")),
        ("out.mcap", "mcap", ValueError("strange")),
    ],
)
def test_an_error_keeps_what_was_tracked(run, monkeypatch, name, storage, error):
    def failing(*arguments):
        yield from itertools.islice(replay(*arguments), 3)
        raise error

    monkeypatch.setattr(bag_module, "replay", failing)
    write_ros2("in", range(8))
    outputs = ("-o", name, "--storage", storage, "--sheet", "s.jpg", "--summary", "s.json")
    code, text = run("in", *ARGUMENTS, *outputs)
    assert (code, text.splitlines()[-1]) == (2, f"spmtrack: error: {error}")
    assert len(by_rosbags(name)["/spmtrack/detections"]) == 3
    assert cv2.imread("s.jpg").shape[2] == 3
    report = json.loads(Path("s.json").read_text())
    assert (report["images_processed"], report["faults"]) == (3, [str(error)])


@pytest.mark.parametrize(
    ("storage", "error", "said"),
    [
        ("mcap", OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        ("sqlite3", sqlite3.OperationalError("database or disk is full"), "disk is full"),
    ],
)
@pytest.mark.parametrize("method", ["write", "close"])
def test_a_bag_that_cannot_be_written_leaves_the_summary(
    run, monkeypatch, storage, error, said, method
):
    def full(writer, *arguments):
        if method == "close" or sum(writer.counts.values()) > 9:
            raise error
        original(writer, *arguments)

    write_ros2("in", range(8))
    original = getattr(Writer, method)
    monkeypatch.setattr(Writer, method, full)
    outputs = ("-o", "out", "--storage", storage, "--sheet", "s.jpg", "--summary", "s.json")
    code, text = run("in", *ARGUMENTS, *outputs)
    assert code == 2, text
    last = text.splitlines()[-1]
    assert last.startswith("spmtrack: error: out cannot be written: ") and said in last
    assert sorted(path.name for path in Path().iterdir()) == ["in", "s.jpg", "s.json"]
    assert "wrote out" not in text and "wrote s.json" in text
    report = json.loads(Path("s.json").read_text())
    assert report["faults"] == [last.removeprefix("spmtrack: error: ")]


@pytest.mark.parametrize(("options", "total"), [((), "6/6"), (("--max-frames", "4"), "4/4")])
def test_the_progress_has_the_images_that_are_asked_for(run, options, total):
    write_ros2("in", range(6))
    code, text = run("in", *ARGUMENTS, "-o", "out", *options)
    assert code == 0 and total in text


def tree():
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path().rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent", *ARGUMENTS, "-o", "out"], "no bag at absent"),
        (["in", *ARGUMENTS, "-o", "in"], "in exists; a bag is a new folder"),
        (["in/in.mcap", *ARGUMENTS, "-o", "in/in.mcap"], "is an input"),
        (["in", *ARGUMENTS, "-o", "out", "--summary", "in/in.mcap"], "is an input"),
        (["in", *ARGUMENTS, "-o", "out", "--summary", "in/metadata.yaml"], "is an input"),
        (["in", *ARGUMENTS, "-o", "out", "--sheet", "in/in.mcap-wal"], "is an input"),
        (
            ["in", *ARGUMENTS, "-o", "out", "--sheet", "s.txt"],
            "s.txt has no suffix of a color image",
        ),
        (
            ["in", *ARGUMENTS, "-o", "out", "--sheet", "s.pgm"],
            "s.pgm has no suffix of a color image",
        ),
        (
            ["in", *ARGUMENTS, "-o", "out", "--topic", "/no"],
            "has no topic /no; topics with images",
        ),
        (["in", "-o", "out"], "give one target with --box X Y W H or --point X Y, or some"),
        (["in", *ARGUMENTS, "--target", "a=1,2,3,4", "-o", "out"], "give one target with --box"),
        (["in", "--target", "a=1,2,3", "-o", "out"], "must be ID=X,Y,W,H or"),
        (["in", *["--target", "a=1,2,3,4"] * 2, "-o", "out"], "--target a is given 2 times"),
        (["in", "--box", "1", "2", "0", "4", "-o", "out"], "has no area"),
        (["in", "--box", "99", "2", "5", "4", "-o", "out"], "lies outside the image of 64 x 48"),
        (["in", *ARGUMENTS, "--at", "9", "-o", "out"], "no target was started: /camera/image_raw"),
        (["in", *ARGUMENTS, "--at", "now", "-o", "out"], "--at must be the number of an image"),
        (["in", *ARGUMENTS, "--frames", "some", "-o", "out"], "must be all or latest; got 'some'"),
        (["in", *ARGUMENTS, "--speed", "0", "-o", "out"], "--speed must be a positive number"),
        (["in", *ARGUMENTS, "--seconds", "nan", "-o", "out"], "--seconds must be a positive"),
        (["in", *ARGUMENTS, "--seconds", "1e99", "-o", "out"], "number below 1e9; got 1e+99"),
        (["in", *ARGUMENTS, "--max-frames", "0", "-o", "out"], "--max-frames must be at least 1"),
        (["in", *ARGUMENTS, "--storage", "x", "-o", "out"], "one of mcap, sqlite3; got 'x'"),
    ],
)
def test_errors_take_one_line_and_leave_everything_as_it_was(run, arguments, said):
    write_ros2("in", range(4))
    before = tree()
    code, text = run(*arguments)
    errors = [line for line in text.splitlines() if line.startswith("spmtrack: error: ")]
    assert (code, len(errors)) == (2, 1), text
    assert said in errors[0]
    assert tree() == before


def test_a_stamp_keeps_all_its_digits():
    assert bag_module._image("1700000000.123456789") == (0, 1_700_000_000_123_456_789)
    assert bag_module._image("12") == (12, 0)
    assert np.isclose(bag_module._image("5.25")[1], 5.25e9)


class Still:
    """A tracker without a network: targets stay where they are."""

    device = "cpu"

    def start(self, image, box_xywh):
        check_box_xywh(box_xywh, image.shape[:2])
        return tuple(box_xywh)

    def follow(self, image, targets):
        return [TrackResult(target, 0.5, TrackState.TRACKING) for target in targets]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A bag of each kind."""
    root = tmp_path_factory.mktemp("pristine")
    return [
        write_ros2(root / "plain", range(6)),
        write_ros2(root / "chunks", range(6), compression="storage"),
        write_ros2(root / "tables", range(6), storage="sqlite3"),
        write_ros2(root / "packed", range(6), storage="sqlite3", compression="file"),
        write_ros2(root / "messages", range(6), compression="message"),
        write_split(root / "split"),
        write_ros1(root / "old.bag", range(6)),
        write_ros1(root / "lz4.bag", range(6), compression="lz4"),
    ]


@pytest.mark.parametrize("seed", [*range(32), 106])  # 106: a database of a few bytes
def test_a_damaged_bag_ends_with_an_answer(run, pristine, monkeypatch, seed):
    draw = random.Random(seed)
    source = pristine[seed % len(pristine)]
    copy = shutil.copytree if source.is_dir() else shutil.copy
    damaged = Path(copy(source, source.name))
    file = draw.choice(sorted(damaged.iterdir())) if damaged.is_dir() else damaged
    content = bytearray(file.read_bytes())
    match draw.choice(["begun", "cut", "bytes", "zeros", "both"]):
        case "begun":
            del content[draw.randrange(15, 32) :]
        case "cut":
            del content[draw.randrange(len(content)) :]
        case "zeros":
            start, length = draw.randrange(len(content)), draw.randrange(1, 20_000)
            content[start : start + length] = bytes(len(content[start : start + length]))
        case kind:
            for _ in range(draw.randint(1, 40)):
                # the beginning of a file has most of what leads through it
                place = draw.randrange(draw.choice([len(content), min(len(content), 3_000)]))
                content[place] = draw.randrange(256)
            if kind == "both":
                del content[draw.randrange(len(content)) :]
    file.write_bytes(content)
    monkeypatch.setattr(bag_module, "ready_tracker", lambda *options: Still())
    more = draw.choice([(), ("--frames", "latest"), ("--storage", "sqlite3"), ("--at", "2")])
    code, text = run(damaged, *ARGUMENTS, *more, "-o", "out", "--summary", "s.json")
    assert code in (0, 2), text
    assert Path("out").is_dir() == Path("s.json").is_file()
    if code == 0:
        images = json.loads(Path("s.json").read_text())["images_processed"]
        assert len(by_rosbags("out")["/spmtrack/detections"]) == images
    else:
        assert text.splitlines()[-1].startswith("spmtrack: error: ")
