"""What users' inputs do to the command line: what is written, what is said, what is returned."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from dataset_trees import video

from spmtrack_core.cli import track as track_module
from spmtrack_core.data.recording import VideoRecorder, write_image
from spmtrack_core.data.sequence import FrameSequence, read_boxes
from spmtrack_core.data.video import open_frames
from spmtrack_core.tracking.loop import TrackedFrame
from spmtrack_core.tracking.result import TrackResult, TrackState

BOX = ("--box", "20", "12", "16", "14")
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


@pytest.fixture
def run(spmtrack, tmp_path, monkeypatch, tiny_checkpoint, caplog):
    """Runs a sub-command in a folder with the inputs; exit code, all that is said."""
    monkeypatch.chdir(tmp_path)

    def run(command, *arguments):
        weights = ("--weights", tiny_checkpoint, "--device", "cpu")
        code, out, err = spmtrack(command, *weights, *arguments)
        assert "Traceback" not in err
        return code, out + err + caplog.text

    return run


def make_folder(folder, frames=4, boxes=None):
    for index in range(frames):
        write_image(Path(folder, f"{index + 1}.png"), np.roll(PICTURE, index, 1))
    if boxes is not None:
        Path(folder, "groundtruth.txt").write_bytes(boxes.encode())


def tree():
    """What lies in the current folder, with its content."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path().rglob("*"))
        if path.is_file()
    }


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_image(path):
    path.write_text("<html>404 Not Found</html>")


def other_size(path):
    write_image(path, PICTURE[:20, :20])


def dangling(path):
    path.unlink()
    path.symlink_to("moved.png")


def folder_of_this_name(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (empty, "seq/4.png is empty: 0 bytes"),
        (cut, "seq/4.png is not an image that OpenCV can read, or it is cut off"),
        (no_image, "seq/4.png is not an image"),
        (other_size, "seq/4.png has 20 x 20 pixels of uint8, the frames before it 64 x 48"),
        (dangling, "seq/4.png is a link to moved.png, which is missing"),
        (folder_of_this_name, "no image at seq/4.png"),
    ],
)
def test_a_broken_last_image_ends_the_run_and_nothing_is_lost(run, damage, said):
    make_folder("seq")
    damage(Path("seq/4.png"))
    code, text = run("track", "seq", *BOX, "--boxes", "b.txt", "--output", "o.mp4")
    assert code == 2
    assert f"spmtrack: error: frame 4: {said}" in text
    assert read_boxes("b.txt").shape == (3, 4)
    assert sum(1 for _ in open_frames("o.mp4")) == 3
    assert sorted(os.listdir()) == ["b.txt", "o.mp4", "seq"]


def soft(path, link):
    Path(link).symlink_to(path)


@pytest.mark.parametrize(
    ("arguments", "link", "said"),
    [
        (["clip.mp4", *BOX, "--output", "clip.mp4"], None, "is an input"),
        (["clip.mp4", *BOX, "--output", "./x/../clip.mp4"], None, "is an input"),
        (["clip.mp4", *BOX, "--output", "l.mp4"], lambda: soft("clip.mp4", "l.mp4"), "is an"),
        (["clip.mp4", *BOX, "--output", "l.mp4"], lambda: os.link("clip.mp4", "l.mp4"), "is an"),
        (["l.mp4", *BOX, "--output", "clip.mp4"], lambda: soft("clip.mp4", "l.mp4"), "is an"),
        (["clip.mp4", *BOX, "--boxes", "clip.txt"], None, "is an input"),  # its annotation
        (["seq", "--boxes", "seq/groundtruth.txt"], None, "is an input"),
        (["seq", "--boxes", "truth"], lambda: soft("seq/groundtruth.txt", "truth"), "is an input"),
        (["l", "--boxes", "seq/groundtruth.txt"], lambda: soft("seq", "l"), "is an input"),
        (["seq", "--boxes", "seq/2.png"], None, "is an input"),
        (["seq", "--boxes", "x"], None, "x is a folder"),
        (["seq", "--boxes", "clip.txt/b.txt"], None, "clip.txt/b.txt cannot be written"),
        (["seq", "--output", "clip.txt/b.mp4"], None, "clip.txt/b.mp4 cannot be written"),
        (["seq", "--output", "o.mp4", "--boxes", "o.mp4"], None, "o.mp4 is another output"),
        (["seq", "--boxes", "b.txt", "--report", "b.txt"], None, "b.txt is another output"),
        (["seq", "--report", "seq/2.png"], None, "is an input"),
        (["seq", "--report", "x"], None, "x is a folder"),
        (["seq", "--output", "o.avi"], None, "written as .mp4"),
        (["seq", "--boxes", "/proc/nowhere/b.txt"], None, "/proc/nowhere/b.txt cannot be written"),
    ],
)
def test_outputs_are_checked_before_the_run_and_never_replace_an_input(run, arguments, link, said):
    make_folder("seq", boxes="20,12,16,14\n" * 4)
    video(Path("clip.mp4"), 3)
    Path("clip.txt").write_text("1,2,3,4\n" * 3)
    Path("x").mkdir()
    if link:
        link()
    before = tree()
    code, text = run("track", *arguments)
    assert (code, said in text) == (2, True), text
    assert "frames, lost in" not in text
    assert tree() == before


def test_an_own_weight_file_is_not_replaced(run, tiny_checkpoint):
    shutil.copy(tiny_checkpoint, "own.safetensors")
    make_folder("seq")
    arguments = ("--weights", "own.safetensors", "--boxes", "own.safetensors")
    code, text = run("track", "seq", *BOX, *arguments)
    assert (code, "own.safetensors is an input" in text) == (2, True)


def test_a_video_brings_its_boxes_along(run):
    video("clip.mp4", 3)
    Path("clip.txt").write_text("20,12,16,14\n")
    code, text = run("track", "clip.mp4", "--boxes", "b.txt", "--max-frames", "2")
    assert code == 0, text
    assert read_boxes("b.txt")[0].tolist() == [20, 12, 16, 14]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_that_the_weights_are_being_loaded_and_a_log_does_not(
    run, monkeypatch, terminal
):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stderr for a terminal
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    make_folder("seq")
    code, text = run("track", "seq", *BOX)
    assert (code, "loading " in text) == (0, terminal), text


@pytest.mark.parametrize(("option", "name"), [("--output", "o.mp4"), ("--report", "r.html")])
def test_boxes_are_written_although_the_disk_is_full_for_the_rest(run, option, name):
    random = np.random.default_rng(0)
    for index in range(6):
        write_image(f"seq/{index}.png", random.integers(0, 255, (240, 320, 3), np.uint8))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        code, text = run("track", "seq", *BOX, "--boxes", "b.txt", option, name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert (code, "cannot be written: File too large" in text) == (2, True), text
    assert read_boxes("b.txt").shape == (6, 4)
    assert sorted(os.listdir()) == ["b.txt", "seq"]


def test_boxes_are_written_although_no_video_can_be_and_memory_runs_out(run, monkeypatch):
    def frames():
        yield from [PICTURE[:1]] * 3  # too low for a video
        raise MemoryError

    monkeypatch.setattr(track_module, "open_frames", lambda *_, **__: FrameSequence("cam", frames))
    outputs = ("--boxes", "b.txt", "--output", "o.mp4")
    code, text = run("track", "cam", "--box", "10", "0", "9", "1", *outputs)
    assert (code, "frame 4: MemoryError" in text) == (2, True), text
    assert "needs frames of 2 x 2 pixels or more; got (1, 64, 3)" in text
    assert read_boxes("b.txt").shape == (3, 4)
    assert os.listdir() == ["b.txt"]


def test_an_annotated_video_goes_on_where_the_times_of_its_source_go_back(run, monkeypatch):
    def timed():
        return iter([(PICTURE, time) for time in (0.0, 0.1, 0.0, 0.1, None)])  # joined files

    make_folder("seq")
    sequence = FrameSequence("joined", lambda: iter(()), fps=10.0, open_timed=timed)
    monkeypatch.setattr(track_module, "open_frames", lambda *_, **__: sequence)
    code, text = run("track", "seq", *BOX, "--output", "o.mp4")
    assert code == 0, text
    times = [time for _, time in open_frames("o.mp4").timed()]
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4], abs=1e-3)


def test_the_outline_of_a_target_tells_its_state(run, monkeypatch):
    black = np.zeros((240, 320, 3), np.uint8)
    found = [
        TrackedFrame(black, TrackResult((x, 60, 100, 100), score, TrackState[state]), 0.01)
        for x, score, state in [
            (40, 0.9, "TRACKING"),
            (60, 0.3, "UNCERTAIN"),
            (120, 0.1, "LOST"),  # where it is searched for
        ]
    ]
    monkeypatch.setattr(track_module, "track_frames", lambda *_: iter(found))
    pictures = []
    draw = track_module._drawn
    monkeypatch.setattr(
        track_module, "_drawn", lambda *given: pictures.append(draw(*given)) or pictures[-1]
    )
    make_folder("seq")
    code, text = run("track", "seq", *BOX, "--report", "r.html")
    assert code == 0, text
    tracking, uncertain, lost = (picture[80:160] for picture in pictures)
    assert tracking[:, 40, 1].min() > 200 > tracking[:, 40, 0].max()  # green, solid
    assert 0.5 < (uncertain[:, 60, 0] > 200).mean() < 0.9  # orange, dashed
    assert 0.1 < (lost[:, 60, 0] > 200).mean() < 0.5  # orange, dotted, where it was seen last
    assert not lost[:, 120].any()


def test_no_password_and_no_broken_name_reaches_a_page(run, monkeypatch):
    def frames():
        return iter([PICTURE] * 3)

    make_folder("seq")
    address = "rtsp://ann:s3c@ret@cam.lan/1?x=1"
    monkeypatch.setattr(
        track_module, "open_frames", lambda *_, **__: FrameSequence("rtsp://cam.lan/1", frames)
    )
    with open("r.html", "wb") as file:  # as /dev/stdout, or >(gzip > r.html.gz)
        code, text = run("track", address, *BOX, "--report", f"/dev/fd/{file.fileno()}")
    assert code == 0
    page = Path("r.html").read_text()
    assert "rtsp://cam.lan/1?x=1; weights" in page
    assert "s3c" not in page + text and "ret@" not in page + text


def test_a_source_whose_name_is_no_text_is_tracked_to_the_end(run):
    name = os.fsdecode(b"caf\xe9")
    make_folder(name)
    outputs = ("--boxes", f"{name}.txt", "--output", f"{name}.mp4", "--report", f"{name}.html")
    code, text = run("track", name, *BOX, *outputs)
    assert (code, "4 frames, lost in" in text) == (0, True), text
    assert "<title>caf? tracked</title>" in Path(f"{name}.html").read_text()
    assert read_boxes(f"{name}.txt").shape == (4, 4)


@pytest.mark.parametrize(
    ("at", "names", "end"),
    [
        (1, "SIGTERM", None),  # after the first frame
        (5, "SIGHUP", os.openpty),  # a closed terminal
        (1, "SIGINT", os.pipe),  # ``| tee`` ends of a Ctrl-C, too
        (5, "SIGHUP,SIGHUP,SIGHUP,SIGHUP,SIGHUP", os.openpty),  # of the kernel, of bash, of sudo
        (5, "SIGINT,SIGINT", None),  # of somebody who cannot wait
        (1, "SIGHUP,SIGTERM,SIGTERM", None),  # of systemd at the end of a session
    ],
)
def test_signals_and_closed_terminals_end_it_with_all_that_was_tracked(impatient, at, names, end):
    make_folder("seq", 8)
    outputs = ("--boxes", "b.txt", "--output", "o.mp4", "--report", "r.html")
    code, text = impatient(at, names, "track", "seq", *BOX, *outputs, end=end)
    assert code == 0, text
    assert end or "stopped; what was tracked so far is written" in text
    assert read_boxes("b.txt").shape == (at, 4)
    assert sum(1 for _ in open_frames("o.mp4")) == at
    assert f"<b>{at}</b><span>frames</span>" in Path("r.html").read_text()
    assert sorted(os.listdir()) == ["b.txt", "o.mp4", "r.html", "seq"]


def test_a_signal_after_the_last_frame_changes_nothing(impatient):
    make_folder("seq", 5)
    code, text = impatient(9, "SIGINT,SIGINT", "track", "seq", *BOX, "--boxes", "b.txt")
    assert (code, "stopped" in text) == (0, False), text
    assert read_boxes("b.txt").shape == (5, 4)


def test_the_third_ctrl_c_ends_it_at_once_and_leaves_nothing_incomplete(impatient):
    make_folder("seq")
    names = "SIGINT,SIGINT,SIGINT,SIGINT"
    arguments = ("track", "seq", *BOX, "--boxes", "b.txt", "--report", "r.html")
    code, text = impatient(9, names, *arguments)
    assert code == 130, text
    assert sorted(os.listdir()) == ["seq"]


def noisy_video(path, frames=20):
    random = np.random.default_rng(0)
    with VideoRecorder(path) as recorder:
        for _ in range(frames):
            recorder.write(random.integers(0, 255, (48, 64, 3), np.uint8))


def damaged(path):
    """Zeros in the middle, as a bad sector leaves them."""
    noisy_video(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    path.write_bytes(content)


def cut_off(path):
    """The first half of a video whose index stands in front, as a broken download leaves it."""
    noisy_video(path)
    with (
        av.open(str(path)) as source,
        av.open("front.mp4", "w", options={"movflags": "faststart"}) as copy,
    ):
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    content = Path("front.mp4").read_bytes()
    Path("front.mp4").unlink()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (damaged, 0, "clip.mp4: damaged packets skipped: "),
        (cut_off, 0, "clip.mp4 is cut off"),
    ],
)
def test_a_damaged_video_is_tracked_as_far_as_it_can_be_read(run, make, code, said):
    make(Path("clip.mp4"))
    got, text = run("track", "clip.mp4", *BOX, "--boxes", "b.txt", "--output", "o.mp4")
    assert (got, said in text) == (code, True), text
    boxes = read_boxes("b.txt")
    assert 5 <= len(boxes) < 20
    assert sum(1 for _ in open_frames("o.mp4")) == len(boxes)


@pytest.mark.parametrize(
    ("boxes", "arguments", "why"),
    [
        ("20,12,16,14\n" * 4, (), "boxes of all frames"),
        ("20,12,16,14", (), "the first frame's alone: GOT-10k test, TrackingNet test"),
        ("\ufeff20,12,16,14\r\n" * 1, (), "saved by Notepad"),
        ("20,12,36,12,36,26,20,26\n" * 4, (), "polygons: VOT"),
        ("no boxes at all", BOX, "--box is given: the file is not needed"),
    ],
)
def test_boxes_of_any_kind_start_the_target(run, boxes, arguments, why):
    make_folder("seq", boxes=boxes)
    code, text = run("track", "seq", *arguments, "--boxes", "b.txt")
    assert code == 0, text
    assert read_boxes("b.txt")[0].tolist() == [20, 12, 16, 14], why


@pytest.mark.parametrize("name", ["2024-05-01T12:30:00.mp4", "50%d.mp4", "-a.mp4", "~a.mp4"])
def test_any_name_is_a_path(run, name):
    video(Path("plain.mp4"), 3)
    os.rename("plain.mp4", name)
    code, text = run("track", name, *BOX, "--output", f"{name[:-4]}_out.mp4", "--boxes", "b")
    assert code == 0, text
    assert sum(1 for _ in open_frames(f"{name[:-4]}_out.mp4")) == 3


def test_the_home_folder_may_be_a_tilde(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_folder("seq")
    assert run("track", "~/seq", *BOX, "--boxes=~/b.txt", "--output=~/o.mp4")[0] == 0
    assert sorted(os.listdir()) == ["b.txt", "o.mp4", "seq"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/dev/null", "cannot open camera /dev/null: "),
        ("97", "cannot open camera /dev/video97: No such file or directory; cameras found: "),
        ("rtsp://me:secret@127.0.0.1:1/cam", "cannot open rtsp://127.0.0.1:1/cam: Connection"),
        ("gopher://host/cam", "gopher:// is not one of http, https"),
        ("absent.mp4", "no video, folder of images or camera at absent.mp4"),
        ("data", "data holds no images (.jpg, "),
        ("data", "this looks like LaSOT: expected the folder of one sequence"),
    ],
)
def test_a_source_that_cannot_be_opened_is_named_as_it_was_given(run, source, said):
    Path("data/cat/cat-1/img").mkdir(parents=True)
    Path("data/cat/cat-1/full_occlusion.txt").touch()
    code, text = run("track", source, *BOX)
    assert (code, said in text) == (2, True), text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("size", "said", "lost"),
    [
        ((96, 128), "to 128 x 96 pixels: the target's box is scaled along", "lost in 0"),
        ((96, 96), "to 96 x 96 pixels, which is another aspect", "lost in 3"),
    ],
)
def test_a_change_of_size_is_told(run, monkeypatch, size, said, lost):
    pictures = [PICTURE] * 3 + [np.zeros((*size, 3), np.uint8)] * 3
    sequence = FrameSequence("camera", lambda: iter(pictures), 6)
    monkeypatch.setattr(track_module, "open_frames", lambda *_, **__: sequence)
    code, text = run("track", "seq", *BOX, "--boxes", "b.txt", "--output", "o.mp4")
    assert (code, said in text, lost in text) == (0, True, True), text
    assert text.count(said) == 1
    assert {frame.shape for frame in open_frames("o.mp4")} == {PICTURE.shape}


@pytest.mark.parametrize(
    ("command", "damage", "reason"),
    [
        ("eval", lambda: empty(Path("data/b/3.png")), "b: frame 3: "),
        ("eval", lambda: empty(Path("data/b/1.png")), "b: "),
        ("eval", lambda: Path("data/b/groundtruth.txt").write_text("1,2,3\n"), "b: "),
        ("eval", lambda: Path("data/b/groundtruth.txt").unlink(), "b: no boxes at"),
        ("compare", lambda: empty(Path("data/b/3.png")), "b: frame 3: "),
    ],
)
def test_an_evaluation_goes_on_after_a_broken_sequence(run, command, damage, reason):
    for name in "abc":
        make_folder(f"data/{name}", boxes="20,12,16,14\n" * 4)
    damage()
    code, text = run(command, "folder", "--root", "data", "--output", "out")
    assert code == 3, text
    assert "spmtrack: 2 of 3 sequences evaluated; left out:" in text
    assert f"\n  {reason}" in text
    file = "out/results.json" if command == "eval" else "out/tiny/results.json"
    report = json.loads(Path(file).read_text())
    assert [row["sequence"] for row in report["sequences"]] == ["a", "c"]
    assert report["left_out"][0].startswith(reason)


@pytest.mark.parametrize(
    ("output", "said"),
    [("data", "data is the folder of the dataset"), ("file", "file/results.json cannot be")],
)
def test_results_do_not_go_where_the_data_are(run, output, said):
    make_folder("data/a", boxes="20,12,16,14\n" * 4)
    Path("file").touch()
    before = tree()
    for command in ("eval", "compare"):
        code, text = run(command, "folder", "--root", "data", "--output", output)
        assert (code, said in text) == (2, True), text
    assert tree() == before
