"""Tracks: packed, kept, sent to other processes, and read at random."""

from __future__ import annotations

import pickle

import av
import cv2
import numpy as np
import pytest

from spmtrack_core.data.clips import Clip, Track, video_times
from spmtrack_core.data.recording import write_image
from spmtrack_core.data.tracks import (
    StringArray,
    Tracks,
    load_tracks,
    read_video_frame,
    save_tracks,
)
from spmtrack_core.data.video import open_frames

BOX = [1.0, 2.0, 3.0, 4.0]


def images(folder, names, level=0):
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        write_image(folder / name, np.full((16, 24, 3), level + 10 * index, np.uint8))


def video(path, count, codec="libx264", gop=6, b_frames=2, rate=25, options=None):
    """Frames whose grey level tells their index; key frames and frames predicted both ways."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        for index in range(count):
            image = np.full((48, 64, 3), 10 * index + 5, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def level(frame):
    return round(float(frame.mean()) / 10 - 0.5)


@pytest.fixture
def tracks(tmp_path):
    images(tmp_path / "50%d", [f"{n:03d}.png" for n in range(7, 12)])
    images(tmp_path / "odd", ["1.png", "x.png"], level=100)
    video(tmp_path / "v.mp4", 9)
    boxes = np.array([BOX, [np.nan] * 4, [5, 5, 0, 4], [1, 2, 3, np.inf], BOX])
    clips = [
        Clip("a", "50%%d/%03d.png", 5, [Track("a", boxes), Track("a/2", boxes[3:], 3)], first=7),
        Clip("odd", "odd", 2, [Track("odd é", boxes[:2])], files=("1.png", "x.png")),
        Clip(
            "v",
            "v.mp4",
            9,
            [Track("v", np.tile(BOX, (9, 1)))],
            times=video_times(tmp_path / "v.mp4", 9),
        ),
    ]
    return Tracks.pack("folder", tmp_path, clips, ["b: no boxes", "ü: broken"])


def test_every_track_has_its_name_boxes_and_frames(tracks):
    assert len(tracks) == 4
    assert [tracks.track_name(i) for i in range(4)] == ["a", "a/2", "odd é", "v"]
    boxes = tracks.boxes_xywh(0)
    assert boxes.dtype == np.float64
    np.testing.assert_array_equal(boxes[[0, 4]], [BOX, BOX])
    assert np.isnan(boxes[1:4]).all()  # not given, without area, not finite
    assert [len(tracks.boxes_xywh(i)) for i in range(4)] == [5, 2, 2, 9]
    assert [tracks.read(0, f)[0, 0, 0] for f in range(5)] == [0, 10, 20, 30, 40]
    assert [tracks.read(1, f)[0, 0, 0] for f in range(2)] == [30, 40]  # starts at the 4th frame
    assert [tracks.read(2, f)[0, 0, 0] for f in (1, 0)] == [110, 100]
    assert tracks.read(0, 0).shape == (16, 24, 3)


def test_a_sequence_gives_all_frames_of_a_track_in_order(tracks):
    for i in range(len(tracks)):
        sequence = tracks.sequence(i)
        assert (sequence.name, sequence.length) == (tracks.track_name(i), len(sequence.boxes_xywh))
        for _ in range(2):
            frames = list(sequence)
            assert len(frames) == sequence.length
            for frame, image in enumerate(frames):
                np.testing.assert_array_equal(image, tracks.read(i, frame))


def test_a_sequence_has_the_files_of_its_frames(tracks, tmp_path):
    expected = (
        ["50%d/007.png", "50%d/008.png", "50%d/009.png", "50%d/010.png", "50%d/011.png"],
        ["50%d/010.png", "50%d/011.png"],
        ["odd/1.png", "odd/x.png"],
        ["v.mp4"],
    )
    for i, names in enumerate(expected):
        for _ in range(2):
            assert list(tracks.sequence(i).files()) == [tmp_path / name for name in names]
    for source, names in (
        ("odd", expected[2]),
        ("v.mp4", expected[3]),
        ("odd/x.png", ["odd/x.png"]),
    ):
        found = open_frames(tmp_path / source).files()
        assert list(found) == [tmp_path / name for name in names]
    assert open_frames("synthetic").files is None


def test_an_image_of_another_type_than_the_first_is_named(tracks, tmp_path):
    cv2.imwrite(str(tmp_path / "50%d" / "009.png"), np.full((16, 24, 3), 30000, np.uint16))
    reason = "has pixels of uint16, the frames before it pixels of uint8"
    with pytest.raises(ValueError, match=rf"009\.png {reason}"):
        list(tracks.sequence(0))


def test_images_of_a_benchmark_may_change_their_size(tracks, tmp_path):
    cv2.imwrite(str(tmp_path / "50%d" / "009.png"), np.zeros((8, 24, 3), np.uint8))
    assert {image.shape[:2] for image in tracks.sequence(0)} == {(16, 24), (8, 24)}


def test_kept_and_pickled_tracks_are_the_same(tracks, tmp_path):
    save_tracks(tmp_path / "index", tracks, "key")
    assert load_tracks(tmp_path / "index", "another key") is None
    for copy in (load_tracks(tmp_path / "index", "key"), pickle.loads(pickle.dumps(tracks))):
        assert (copy.name, copy.root, copy.skipped) == (tracks.name, tracks.root, tracks.skipped)
        for i in range(len(tracks)):
            assert copy.track_name(i) == tracks.track_name(i)
            np.testing.assert_array_equal(copy.boxes_xywh(i), tracks.boxes_xywh(i))
            np.testing.assert_array_equal(copy.read(i, 1), tracks.read(i, 1))


@pytest.mark.parametrize("texts", [[], [""], ["a", "", "é", "\udcff", "b/c.jpg"]])
def test_packed_texts_are_the_texts(texts):
    packed = StringArray.pack(texts)
    assert [packed[i] for i in range(len(packed))] == texts


def test_what_is_not_there_is_named(tracks, tmp_path):
    for frame in (-1, 5):
        with pytest.raises(ValueError, match=f"track a has 5 frames; got frame {frame}"):
            tracks.read(0, frame)
    with pytest.raises(ValueError, match="4 tracks; got track 4"):
        tracks.boxes_xywh(4)
    (tmp_path / "50%d" / "008.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"008\.png"):
        tracks.read(0, 1)
    (tmp_path / "odd" / "x.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"x\.png"):
        tracks.read(2, 1)
    (tmp_path / "v.mp4").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"v\.mp4 cannot be decoded"):
        tracks.read(3, 1)
    (tmp_path / "v.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"v\.mp4"):
        tracks.read(3, 1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("b_frames.mp4", {}),  # shown in another order than stored
        ("one_key.mp4", {"gop": 100}),  # from the first frame on, always
        ("all_key.mp4", {"gop": 1, "b_frames": 0}),
        ("matroska.mkv", {}),  # times in milliseconds, so not evenly spaced
        ("old.avi", {"codec": "mpeg4", "b_frames": 0}),
        ("two.avi", {"codec": "mpeg4", "b_frames": 2}),
        ("web.webm", {"codec": "libvpx-vp9", "b_frames": 0}),
        ("cast.ts", {}),  # does not begin at time 0
        ("disc.mpg", {"codec": "mpeg2video"}),
        # frames that need those before the key frame they come after in the file
        ("open.ts", {"options": {"x264-params": "open-gop=1:keyint=8:bframes=3:b-adapt=0"}}),
        ("open.mp4", {"options": {"x264-params": "open-gop=1:keyint=8:bframes=3:b-adapt=0"}}),
        ("slow.mp4", {"rate": 3}),
    ],
)
def test_any_frame_of_a_video_is_found(tmp_path, name, settings):
    path = video(tmp_path / name, 24, **settings)
    shown = list(open_frames(str(path)))
    times = video_times(path, 24)
    assert len(set(times)) == len(shown) == 24
    for frame in (23, 0, *range(5, 20), 22):
        np.testing.assert_array_equal(read_video_frame(path, times[frame]), shown[frame])
    with pytest.raises(ValueError, match="no frame at time"):
        read_video_frame(path, times[-1] + 10_000)


def test_packets_that_give_no_frame_are_not_counted(tmp_path):
    whole = video(tmp_path / "whole.mp4", 24, b_frames=0)
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[1:]:  # the first key frame is gone
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(tmp_path / "cut.ts")) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 23
    times = video_times(tmp_path / "cut.ts", 18)
    assert [level(read_video_frame(tmp_path / "cut.ts", times[f])) for f in (0, 13)] == [6, 19]


def test_videos_without_frames_are_named(tmp_path):
    path = video(tmp_path / "v.mp4", 4)
    with pytest.raises(ValueError, match=r"v\.mp4 has 4 frames for 5 boxes"):
        video_times(path, 5)
    raw = video(tmp_path / "v.h264", 4)
    with pytest.raises(ValueError, match=r"v\.h264 has frames without times"):
        video_times(raw, 4)
    path.write_bytes(b"no video at all" * 40)
    with pytest.raises(ValueError, match=r"v\.mp4"):
        video_times(path, 4)
