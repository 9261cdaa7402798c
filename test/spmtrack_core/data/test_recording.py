"""What is written: complete files or none."""

from __future__ import annotations

import fcntl
import os
import resource
import stat

import numpy as np
import pytest

from spmtrack_core.data.images import read_image
from spmtrack_core.data.recording import (
    VideoRecorder,
    contact_sheet,
    write_boxes,
    write_image,
)
from spmtrack_core.data.video import open_frames

FRAME = np.random.default_rng(0).integers(0, 255, (47, 65, 3), np.uint8)


def test_a_video_with_odd_sides_is_written_and_read(tmp_path):
    with VideoRecorder(tmp_path / "sub" / "a.mp4", fps=10) as recorder:
        for _ in range(7):
            recorder.write(FRAME)
        assert not (tmp_path / "sub" / "a.mp4").exists()  # not before it is complete
    frames = list(open_frames(str(tmp_path / "sub" / "a.mp4")))
    assert [frame.shape for frame in frames] == [(46, 64, 3)] * 7
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("frames", [0, 3])
def test_a_failure_leaves_nothing_behind_and_the_old_file_alone(tmp_path, frames):
    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(KeyError), VideoRecorder(tmp_path / "a.mp4") as recorder:
        for _ in range(frames):
            recorder.write(FRAME)
        raise KeyError
    assert (tmp_path / "a.mp4").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "error"),
    [("folder.mp4", IsADirectoryError), ("a.avi", ValueError), ("pipe.mp4", ValueError)],
)
def test_a_name_no_video_can_have_is_refused_before_the_work(tmp_path, name, error):
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")  # it would be replaced by a file
    with pytest.raises(error, match=name):
        VideoRecorder(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["folder.mp4", "pipe.mp4"]


@pytest.mark.parametrize("limit", [100, 4_000, 20_000, 60_000])
def test_a_full_disk_is_told_at_whatever_step_and_leaves_nothing(tmp_path, limit):
    """The container is written in pieces, and what is left of it when it is closed."""
    random = np.random.default_rng(0)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        with (
            pytest.raises(OSError, match=r"a\.mp4 cannot be written: File too large"),
            VideoRecorder(tmp_path / "a.mp4") as recorder,
        ):
            for _ in range(8):
                recorder.write(random.integers(0, 255, (120, 160, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_one_video(tmp_path):
    with VideoRecorder(tmp_path / "a.mp4") as recorder:
        recorder.write(FRAME)
        with pytest.raises(OSError, match=r"a\.mp4 is being written by another run"):
            VideoRecorder(tmp_path / "a.mp4")
        recorder.write(FRAME)
    assert sum(1 for _ in open_frames(tmp_path / "a.mp4")) == 2


def test_a_killed_run_does_not_hinder_the_next_and_no_file_is_locked(tmp_path, monkeypatch):
    """On SMB, what is locked by one descriptor can be written by no other."""
    (tmp_path / ".a.mp4.part").mkdir()
    (tmp_path / ".a.mp4.part" / "a.mp4").write_text("half")
    locked = []
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, _: locked.append(os.fstat(descriptor)))
    with VideoRecorder(tmp_path / "a.mp4") as recorder:
        recorder.write(FRAME)
    assert [stat.S_ISDIR(each.st_mode) for each in locked] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_frames_of_another_size_are_fitted_into_the_first(tmp_path):
    white = np.full((48, 64, 3), 250, np.uint8)
    with VideoRecorder(tmp_path / "a.mp4") as recorder:
        for frame in (white, white[:24, :32], white[:, :32], np.tile(white, (2, 2, 1))):
            recorder.write(frame)
    first, small, narrow, large = open_frames(tmp_path / "a.mp4")
    for frame in (small, large):
        assert np.abs(frame.astype(int) - first).mean() < 6
    assert narrow[:, :12].mean() < 10  # black borders
    assert narrow[:, 20:44].mean() > 240


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.mp4").symlink_to("disk/real.mp4")
    with VideoRecorder(tmp_path / "a.mp4") as recorder:
        recorder.write(FRAME)
    assert (tmp_path / "a.mp4").is_symlink()
    assert sum(1 for _ in open_frames(tmp_path / "disk" / "real.mp4")) == 1


@pytest.mark.parametrize("fps", [0.5, 12.5, 29.97, 30, 60])
def test_the_frame_rate_is_kept(tmp_path, fps):
    with VideoRecorder(tmp_path / "a.mp4", fps) as recorder:
        for _ in range(3):
            recorder.write(FRAME)
    assert open_frames(str(tmp_path / "a.mp4")).fps == pytest.approx(fps, rel=1e-3)


def test_an_image_comes_back_and_an_unknown_format_is_refused(tmp_path):
    write_image(tmp_path / "a.png", FRAME)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), FRAME)
    with pytest.raises(ValueError, match="xyz"):
        write_image(tmp_path / "a.xyz", FRAME)


def test_a_contact_sheet_has_a_place_for_every_frame():
    sheet = contact_sheet([FRAME] * 5, columns=3, width=65)
    assert sheet.shape == (2 * (47 + 6), 3 * (65 + 6), 3)
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_boxes_are_one_line_each(tmp_path):
    write_boxes(tmp_path / "b.txt", [(1, 2.5, 3, 4), (5, 6, 7, 8)])
    text = (tmp_path / "b.txt").read_text()
    assert text == "1.000,2.500,3.000,4.000\n5.000,6.000,7.000,8.000\n"
