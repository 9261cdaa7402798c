"""Sources of frames: what they give, and what is said of those that are none."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from spmtrack_core.data.recording import VideoRecorder, write_image
from spmtrack_core.data.video import open_frames


def numbered(count, hw=(48, 64)):
    """Frames whose grey level tells their index."""
    return [np.full((*hw, 3), 10 * index + 5, np.uint8) for index in range(count)]


@pytest.fixture
def folder(tmp_path):
    for index, frame in enumerate(numbered(12)):
        write_image(tmp_path / f"{index}.png", frame)
    return tmp_path


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip.mp4"
    with VideoRecorder(path, fps=25) as recorder:
        for frame in numbered(12):
            recorder.write(frame)
    return path


def levels(frames):
    return [round(float(frame.mean()) / 10 - 0.5) for frame in frames]


def test_a_folder_is_read_in_natural_order_and_again(folder):
    sequence = open_frames(str(folder))
    assert sequence.length == 12
    for _ in range(2):
        assert levels(sequence) == list(range(12))  # 2.png before 10.png


def test_a_video_file_is_read_lazily_and_again(video):
    sequence = open_frames(str(video))
    assert (sequence.name, sequence.length, sequence.fps) == ("clip", 12, 25.0)
    frames = list(sequence)
    assert levels(frames) == levels(sequence) == list(range(12))
    assert frames[0].shape == (48, 64, 3)
    assert frames[0].dtype == np.uint8


def test_a_video_held_upright_is_read_upright(tmp_path):
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32, 0] = 250  # red, top left
    with VideoRecorder(tmp_path / "clip.mp4") as recorder:
        recorder.write(frame)
    content = bytearray((tmp_path / "clip.mp4").read_bytes())
    matrix = content.find(b"tkhd") + 44  # of the track header, 16.16 fixed point
    content[matrix : matrix + 20] = struct.pack(">5i", 0, 1 << 16, 0, -1 << 16, 0)
    (tmp_path / "clip.mp4").write_bytes(content)
    (turned,) = open_frames(str(tmp_path / "clip.mp4"))
    assert turned.shape == (64, 48, 3)
    red = np.argwhere(turned[..., 0] > 125).mean(0)  # a quarter turn clockwise: top right
    np.testing.assert_allclose(red, (15.5, 35.5), atol=1)


def test_only_the_first_frames_are_taken(folder, video):
    for source in (folder, video):
        sequence = open_frames(str(source), max_frames=5)
        assert sequence.length == 5
        assert levels(sequence) == list(range(5))
    assert open_frames("synthetic", max_frames=5).boxes_xywh.shape == (5, 4)
    with pytest.raises(ValueError, match="max_frames"):
        open_frames(str(folder), max_frames=0)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4"):
        open_frames(str(tmp_path / "absent.mp4"))
    with pytest.raises(ValueError, match="camera 97 does not answer"):
        open_frames("97")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("empty.mp4", b"", "not a video"),
        ("text.mp4", b"this is no video at all\n" * 50, "not a video|no video stream|no frame"),
    ],
)
def test_a_file_that_is_no_video_is_named(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=match) as error:
        open_frames(str(tmp_path / name))
    assert name in str(error.value)


def test_a_truncated_video_gives_an_error_and_no_crash(tmp_path, video):
    short = tmp_path / "short.mp4"
    short.write_bytes(video.read_bytes()[:-400])  # the index stands at the end
    with pytest.raises(ValueError, match=r"short\.mp4"):
        list(open_frames(str(short)))


def test_names_of_any_kind_are_sorted_and_hidden_files_left_out(tmp_path):
    for index, name in enumerate(["1.png", "1²2.png", "01a.png", "b.png"]):
        write_image(tmp_path / name, np.full((8, 8, 3), 10 * index + 5, np.uint8))
    (tmp_path / "._1.png").write_bytes(b"what macOS leaves")
    assert sorted(levels(open_frames(str(tmp_path)))) == [0, 1, 2, 3]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="holds no images"):
        open_frames(str(tmp_path))


def test_a_broken_or_odd_image_is_named_when_it_is_reached(folder):
    write_image(folder / "7.png", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(ValueError, match=r"7\.png is 20 x 20"):
        list(open_frames(str(folder)))
    (folder / "7.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"7\.png"):
        list(open_frames(str(folder)))


def test_grey_images_come_as_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.full((8, 8), 77, np.uint8))
    (frame,) = open_frames(str(tmp_path))
    assert frame.shape == (8, 8, 3)
