"""Sources of frames: what they give, and what is said of those that are none."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from dataset_trees import video as write_video

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
    with pytest.raises(ValueError, match="cannot open camera /dev/video97"):
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
    with pytest.raises(ValueError, match=r"7\.png has 20 x 20"):
        list(open_frames(str(folder)))
    (folder / "7.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"7\.png"):
        list(open_frames(str(folder)))


def test_grey_images_come_as_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.full((8, 8), 77, np.uint8))
    (frame,) = open_frames(str(tmp_path))
    assert frame.shape == (8, 8, 3)


def with_matrix(path, *matrix):
    """The same file with another display matrix: a, b, 0, c, d in the header of its track."""
    content = bytearray(path.read_bytes())
    at = content.find(b"tkhd") + 44  # 16.16 fixed point
    content[at : at + 20] = struct.pack(">5i", *(number << 16 for number in matrix))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 0, 1), lambda image: image),
        ((0, 1, 0, -1, 0), lambda image: np.rot90(image, -1)),  # held upright: clockwise
        ((0, -1, 0, 1, 0), lambda image: np.rot90(image)),
        ((-1, 0, 0, 0, -1), lambda image: image[::-1, ::-1]),
        ((-1, 0, 0, 0, 1), lambda image: image[:, ::-1]),  # the camera above a screen
        ((1, 0, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 0, 1, 0), lambda image: image.transpose(1, 0, 2)),
        ((0, -1, 0, -1, 0), lambda image: image[::-1, ::-1].transpose(1, 0, 2)),
    ],
)
def test_turned_and_mirrored_videos_are_shown_as_players_do(tmp_path, matrix, shown):
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = (250, 0, 0)
    frame[:24, 32:] = (0, 250, 0)
    with VideoRecorder(tmp_path / "clip.mp4") as recorder:
        recorder.write(frame)
    with_matrix(tmp_path / "clip.mp4", *matrix)
    (got,) = open_frames(tmp_path / "clip.mp4")
    assert got.shape == shown(frame).shape
    assert np.abs(got.astype(int) - shown(frame)).mean() < 8


def damaged(path, size=4096):
    """Zeros in the middle of a video, as a bad sector leaves them."""
    content = bytearray(path.read_bytes())
    at = len(content) // 2
    content[at : at + size] = bytes(size)
    path.write_bytes(content)


def test_damaged_packets_are_skipped_and_counted(tmp_path, caplog, capfd):
    random = np.random.default_rng(0)
    with VideoRecorder(tmp_path / "clip.mp4") as recorder:
        for _ in range(20):
            recorder.write(random.integers(0, 255, (48, 64, 3), np.uint8))
    damaged(tmp_path / "clip.mp4")
    frames = list(open_frames(tmp_path / "clip.mp4"))
    assert 10 <= len(frames) < 20
    (text,) = (record.message for record in caplog.records)
    expected = rf"clip\.mp4: damaged packets skipped: \d; frames decoded: {len(frames)}"
    assert re.search(expected, text)
    assert capfd.readouterr() == ("", "")  # FFmpeg does not print


def test_a_video_that_is_cut_off_gives_its_frames_and_a_word(tmp_path, caplog):
    write_video(tmp_path / "a.avi", 12, "mpeg4")
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: whole.index(b"movi") + 1200])
    frames = list(open_frames(tmp_path / "a.avi"))
    assert 0 < len(frames) < 12
    assert levels(frames) == list(range(len(frames)))
    assert "a.avi is cut off" in caplog.text


def test_a_cover_picture_is_not_the_video(tmp_path):
    for name, count in (("clip.mp4", 3), ("song.m4a", 0)):
        with av.open(str(tmp_path / name), "w", format="mp4") as container:
            cover = container.add_stream("png", rate=25)
            cover.width, cover.height, cover.pix_fmt = 32, 32, "rgb24"
            cover.disposition = av.stream.Disposition.attached_pic
            streams = [(cover, [np.full((32, 32, 3), 200, np.uint8)])]
            if count:
                clip = container.add_stream("libx264", rate=25)
                clip.width, clip.height, clip.pix_fmt = 64, 48, "yuv420p"
                streams.append((clip, numbered(count)))
            for stream, frames in streams:
                for frame in frames:
                    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                    container.mux(stream.encode(picture))
                container.mux(stream.encode())
    assert levels(open_frames(tmp_path / "clip.mp4")) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"song\.m4a has no video stream; it has a cover picture"):
        open_frames(tmp_path / "song.m4a")


TIMES = [0.0, 0.04, 0.08, 0.5, 0.52, 2.0]


def test_varying_times_of_frames_are_kept_in_a_copy(tmp_path):
    with VideoRecorder(tmp_path / "a.mp4", fps=25) as recorder:
        for frame, time in zip(numbered(6), TIMES, strict=True):
            recorder.write(frame, time)
    source = open_frames(tmp_path / "a.mp4")
    with VideoRecorder(tmp_path / "b.mp4", source.fps) as recorder:
        for frame, time in source.timed():
            recorder.write(frame, time)
    for name in ("a.mp4", "b.mp4"):
        times = [time for _, time in open_frames(tmp_path / name).timed()]
        np.testing.assert_allclose(times, TIMES, atol=1e-3)
    first = open_frames(tmp_path / "a.mp4", max_frames=4).timed()
    np.testing.assert_allclose([time for _, time in first], TIMES[:4], atol=1e-3)


def test_images_have_no_times(folder):
    assert [time for _, time in open_frames(folder, max_frames=2).timed()] == [None, None]


@pytest.mark.parametrize(
    "name",
    [
        "2024-05-01T12:30:00.mp4",
        "file:a.mp4",
        "50%d.mp4",
        "a%20b.mp4",
        "-a.mp4",
        "~a.mp4",
        "concat:a|b.mp4",
        "a?b#c.mp4",
        "a b\n.mp4",
        "\udcff.mp4",
    ],
)
def test_any_name_of_a_file_is_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with VideoRecorder(name) as recorder:
        for frame in numbered(3):
            recorder.write(frame)
    assert os.listdir() == [name]
    assert levels(open_frames(name)) == [0, 1, 2]
    assert open_frames(name).name == Path(name).stem


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_image(tmp_path / "clip" / "1.png", numbered(1)[0])
    assert open_frames("~/clip").length == 1
    with pytest.raises(FileNotFoundError, match="~nobody-here/clip"):
        open_frames("~nobody-here/clip")


def test_an_image_alone_is_a_sequence_of_one(folder):
    assert levels(open_frames(folder / "7.png")) == [7]


def test_a_change_of_size_within_a_video_is_shown_as_it_is(tmp_path):
    small, large = np.zeros((48, 64, 3), np.uint8), np.zeros((96, 128, 3), np.uint8)
    with open(tmp_path / "clip.ts", "wb") as whole:
        for frame in (small, large):
            with av.open(str(tmp_path / "part.ts"), "w") as container:
                stream = container.add_stream("libx264", rate=25)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                for _ in range(4):
                    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                    container.mux(stream.encode(picture))
                container.mux(stream.encode())
            whole.write((tmp_path / "part.ts").read_bytes())
    shapes = [frame.shape[:2] for frame in open_frames(tmp_path / "clip.ts")]
    assert shapes == [(48, 64)] * 4 + [(96, 128)] * 4


@pytest.mark.parametrize("device", ["/dev/null", "link to it"])
def test_a_device_that_is_no_camera_is_named(tmp_path, device):
    if device != "/dev/null":
        device = tmp_path / "video9"
        device.symlink_to("/dev/null")
    with pytest.raises(ValueError, match=f"cannot open camera {device}: .*cameras found"):
        open_frames(device)


def test_a_link_that_leads_nowhere_is_told(tmp_path):
    (tmp_path / "a.mp4").symlink_to("gone.mp4")
    with pytest.raises(FileNotFoundError, match=r"a\.mp4; it is a link to gone\.mp4"):
        open_frames(tmp_path / "a.mp4")
