"""The index of a dataset: made once, and again after a change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_trees import MAKE, images, make_folder, text, video

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data import catalog
from spmtrack_core.data.catalog import open_tracks
from test.spmtrack_core.data.damage import moved, write


@pytest.mark.parametrize("name", MAKE)
def test_the_index_is_made_once(tmp_path, opened, name, monkeypatch):
    MAKE[name](tmp_path / "data")
    only_test = name in ("lasot_ext", "tnl2k", "nfs", "uav123", "uav20l", "otb2015")
    split = "test" if only_test else "train"
    first = opened(name, split=split)
    monkeypatch.setattr(catalog, "_read_clips", lambda *_: pytest.fail("read again"))
    again = opened(name, split=split)
    assert again.skipped == first.skipped
    np.testing.assert_array_equal(again.boxes, first.boxes)
    np.testing.assert_array_equal(again.read(0, 0), first.read(0, 0))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half an archive"])
def test_a_broken_index_is_made_again(tmp_path, opened, content):
    make_folder(tmp_path / "data")
    opened("folder")
    (index,) = (tmp_path / "cache").glob("*.npz")
    index.write_bytes(content)
    assert len(opened("folder")) == 3
    assert len(opened("folder")) == 3


def test_a_change_of_boxes_is_seen(tmp_path, opened):
    make_folder(tmp_path / "data")
    opened("folder")
    text(tmp_path / "data" / "a" / "groundtruth.txt", "9,9,9,9", "1,2,3,4")
    assert opened("folder").boxes_xywh(0)[0, 0] == 9
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1


def image(path):
    return lambda root: images((root / path).parent, [Path(path).name])


def rewritten(path):
    def rewritten(root):
        video(root / "other.mp4", 3)
        (root / path).write_bytes((root / "other.mp4").read_bytes())
        (root / "other.mp4").unlink()

    return rewritten


@pytest.mark.parametrize(
    ("name", "before", "change"),
    [
        ("uav123", None, image("data_seq/UAV123/car1/000006.jpg")),
        ("uav123", None, image("data_seq/UAV123/car1_s/000003.jpg")),
        # its second cut begins elsewhere
        ("uav123", None, write("anno/UAV123/car1_1.txt", "2,3,5,6", "2,3,5,6")),
        ("nfs", None, image("bee/30/bee/00003.jpg")),
        ("nfs", None, image("pingpong_2/30/pingpong_2/00036.jpg")),
        ("tnl2k", None, write("absent/monitor.txt", 1, 0)),
        ("tnl2k", moved("monitor/imgs", "monitor/img"), image("monitor/img/3.png")),
        ("vasttrack", None, write("T-Shirt/T-Shirt-22/groundtruth.txt", "2,3,5,6")),
        (
            "vasttrack",
            moved("T-Shirt/T-Shirt-22/imgs", "T-Shirt/T-Shirt-22/img"),
            image("T-Shirt/T-Shirt-22/img/00003.jpg"),
        ),
        ("folder", None, rewritten("c/any.mp4")),
    ],
)
def test_a_change_of_what_is_read_makes_the_index_again(
    tmp_path, opened, monkeypatch, name, before, change
):
    MAKE[name](tmp_path / "data")
    if before:
        before(tmp_path / "data")
    split = "train" if name in ("folder", "vasttrack") else "test"
    opened(name, split=split)
    change(tmp_path / "data")
    read, times = catalog._read_clips, []
    monkeypatch.setattr(catalog, "_read_clips", lambda *args: times.append(1) or read(*args))
    opened(name, split=split)
    assert times == [1]


def test_the_index_lies_where_caches_do(tmp_path, monkeypatch):
    make_folder(tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    open_tracks(DatasetConfig("folder", str(tmp_path / "data")))
    assert len(list((tmp_path / "xdg" / "spmtrack").glob("folder-*.npz"))) == 1
    text(tmp_path / "file", "")
    with pytest.raises(ValueError, match="XDG_CACHE_HOME"):
        open_tracks(DatasetConfig("folder", str(tmp_path / "data")), tmp_path / "file" / "cache")
