"""Bags that are written: their types are those of the packages, and they appear when complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="rosbags is absent: pip install 'spmtrack_ros[bag]'")

from rosbags.typesys import get_types_from_msg

from spmtrack_core.data.bag_writer import DEFINITIONS, BagWriter, check_bag_path

ROOT = Path(__file__).parents[3]
TOPICS = {"/status": "spmtrack_ros/msg/TrackStateArray"}


@pytest.mark.parametrize("name", [name for name in DEFINITIONS if "foxglove" not in name])
def test_definitions_are_those_of_the_interfaces(name):
    package, _, message = name.split("/")
    folder = ROOT / "msg" if package == "spmtrack_ros" else ROOT / "third_party/vision_msgs/msg"
    text = (folder / f"{message}.msg").read_text()
    text = re.sub(r"^(TrackState)\[\]", r"spmtrack_ros/\1[]", text, flags=re.MULTILINE)
    assert get_types_from_msg(text, name) == get_types_from_msg(DEFINITIONS[name], name)


@pytest.mark.parametrize("name", ["out", "out.v2", "out.mcap"])
def test_a_bag_appears_when_it_is_complete(tmp_path, name):
    path = tmp_path / "below" / name
    with BagWriter(path, TOPICS) as bag:
        bag.write("/status", bag.new(TOPICS["/status"]), 5)
        assert not path.exists()
    assert path.is_file() == (path.suffix == ".mcap")
    assert [each.name for each in path.parent.iterdir()] == [name]
    if path.is_dir():
        assert sorted(each.name for each in path.iterdir()) == ["metadata.yaml", f"{name}.mcap"]


@pytest.mark.parametrize("name", ["out", "out.mcap"])
def test_nothing_is_left_of_a_bag_that_failed(tmp_path, name):
    with pytest.raises(RuntimeError), BagWriter(tmp_path / name, TOPICS):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_killed_does_not_hinder_the_next(tmp_path):
    (tmp_path / ".out.part" / "out").mkdir(parents=True)
    (tmp_path / ".out.part" / "out" / "out.mcap").write_text("half")
    with BagWriter(tmp_path / "out", TOPICS) as bag:
        bag.write("/status", bag.new(TOPICS["/status"]), 5)
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_two_runs_do_not_write_one_bag(tmp_path):
    with BagWriter(tmp_path / "out", TOPICS) as bag:
        with pytest.raises(OSError, match=r"out is being written by another run"):
            BagWriter(tmp_path / "out", TOPICS)
        bag.write("/status", bag.new(TOPICS["/status"]), 5)
    assert sorted(each.name for each in tmp_path.glob("*/*")) == ["metadata.yaml", "out.mcap"]


@pytest.mark.parametrize(
    ("name", "storage", "said"),
    [
        ("there", "mcap", "exists; a bag is a new folder"),
        ("out", "bagfile", "storage must be one of mcap, sqlite3; got 'bagfile'"),
        ("out.mcap", "sqlite3", "single file, which has the storage mcap"),
    ],
)
def test_names_that_cannot_be(tmp_path, name, storage, said):
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match=said):
        check_bag_path(tmp_path / name, storage)
