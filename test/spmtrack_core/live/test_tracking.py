"""A source, a tracker and the page's requests, without a browser."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import av
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")

from spmtrack_core.data.sequence import read_boxes
from spmtrack_core.live.messages import (
    MakePrimary,
    Play,
    RemoveTarget,
    Seek,
    StartTarget,
    Step,
)
from spmtrack_core.live.recording import LiveRecorder
from spmtrack_core.live.tracking import LiveTracking
from spmtrack_core.session.init_request import Code, Limits
from test.spmtrack_core.live.squares import (
    HIDDEN,
    LENGTH,
    ColorTracker,
    blue,
    frame,
    red,
    squares,
)

SECOND = 1_000_000_000


class Bench:
    """Everything but the browser."""

    def __init__(self, sequence, **options):
        self.tracker = ColorTracker()
        self.live = LiveTracking(sequence, self.tracker, **options)
        self.live.start()
        self.until(lambda view: view.image is not None)

    @property
    def view(self):
        return self.live.server._view

    def until(self, condition):
        deadline = time.monotonic() + 20
        while not condition(self.view):
            assert time.monotonic() < deadline, self.view
            time.sleep(0.002)

    def ask(self, request):
        return self.live.handle(request).result(20)

    def start(self, box, stamp=None):
        return self.ask(StartTarget(self.view.stamp_ns if stamp is None else stamp, box))

    def step(self):
        before = self.view.number
        assert self.ask(Step()).code is Code.OK
        self.until(lambda view: view.number == before + 1)

    @property
    def index(self):
        return round((self.view.stamp_ns - SECOND) * 30 / SECOND)

    def box(self, name):
        (found,) = [each for each in self.view.targets if each.id == name]
        return found.box_xywh


@pytest.fixture
def bench():
    benches = []

    def start(sequence=None, **options):
        benches.append(Bench(sequence or squares(fps=300.0), **options))
        return benches[-1]

    yield start
    for each in benches:
        each.live.close()


def test_a_target_in_the_paused_image_starts_in_exactly_that_one(bench):
    b = bench(squares())
    assert (b.index, b.view.playback.playing) == (0, False)
    reply = b.start(red(0))
    assert (reply.code, reply.id, reply.frames_caught_up) == (Code.OK, "target-1", 0)
    b.until(lambda view: view.targets)
    assert b.box("target-1") == red(0)  # as given, in the image that is shown
    for index in (1, 2, 3):
        b.step()
        assert (b.index, b.box("target-1")) == (index, red(index))


def test_a_target_in_an_earlier_image_catches_up(bench):
    b = bench(squares())
    first = b.view.stamp_ns
    for _ in range(9):
        b.step()
    reply = b.start(blue(0), first)
    assert reply.code is Code.OK and reply.frames_caught_up > 0
    b.until(lambda view: view.targets)
    assert (b.index, b.box("target-1")) == (9, blue(9))
    assert b.start(red(9), 12345).code is Code.STAMP_NOT_BUFFERED


def test_targets_are_added_removed_and_made_primary(bench):
    b = bench(squares())
    assert b.start(red(0)).id == "target-1"
    assert b.start(blue(0)).id == "target-2"
    b.step()
    assert [each.primary for each in b.view.targets] == [True, False]
    assert b.ask(MakePrimary("target-2")).code is Code.OK
    b.until(lambda view: [each.primary for each in view.targets] == [False, True])
    assert b.ask(RemoveTarget("target-1")).code is Code.OK
    b.until(lambda view: [each.id for each in view.targets] == ["target-2"])
    assert b.ask(RemoveTarget("target-1")).code is Code.UNKNOWN_ID
    assert b.start(red(1)).id == "target-3"  # no name is used twice
    assert b.start((0, 0, 2, 2)).code is Code.BOX_TOO_SMALL
    for _ in range(6):
        b.start(blue(1))
    reply = b.start(blue(1))
    assert reply.code is Code.TOO_MANY_TARGETS and "remove one first" in reply.message


def test_lost_and_found_again_and_every_image_of_a_video_is_tracked(bench):
    b = bench()
    b.start(red(0))
    b.until(lambda view: view.targets)
    b.ask(Play(True))
    b.until(lambda view: view.targets[0].state == "lost")
    assert b.view.targets[0].reason == "low confidence"
    b.until(lambda view: view.targets[0].state == "tracking")
    b.until(lambda view: view.playback.ended)
    seen = [red(index)[0] for index in range(1, LENGTH) if index not in HIDDEN]
    assert [x for x in b.tracker.followed if x] == seen


def test_seeking_keeps_the_targets(bench):
    b = bench()
    b.start(red(0))
    assert b.ask(Seek(20 / 300)).code is Code.OK
    b.until(lambda view: view.targets and view.targets[0].box_xywh == red(20))
    assert b.ask(Seek(0.0)).code is Code.OK
    b.until(lambda view: view.targets[0].box_xywh == red(0))
    assert b.start(blue(0)).code is Code.OK  # the buffer has the images since then


def test_a_time_that_goes_back_does_not_stop_a_video(bench):
    def timed():
        for index, seconds in enumerate((0.0, 0.01, 0.005, None, 0.02)):  # as of joined files
            yield frame(index), seconds

    b = bench(replace(squares(5, 100.0), open_timed=timed))
    b.start(red(0))
    b.ask(Play(True))
    b.until(lambda view: view.playback.ended)
    assert b.box("target-1") == red(4)


def test_an_image_that_the_session_drops_or_that_cannot_be_shown_is_not_awaited(
    bench, monkeypatch
):
    b = bench(squares())
    b.step()
    late = threading.Thread(target=b.live._push, args=(frame(0), 0.0, False), daemon=True)
    late.start()
    late.join(5)
    assert not late.is_alive()
    monkeypatch.setattr(b.live, "_record", lambda targets: 1 / 0)
    broken = threading.Thread(target=b.live._push, args=(frame(2), 0.1, False), daemon=True)
    broken.start()
    broken.join(5)
    assert not broken.is_alive()


def test_a_camera_plays_at_once_and_cannot_be_wound(bench):
    b = bench(squares(live=True, fps=1000.0))
    assert b.ask(Seek(0.0)).code is Code.INTERNAL_ERROR
    assert b.ask(Play(False)).code is Code.OK
    b.until(lambda view: not view.playback.playing)


def test_a_paused_camera_does_not_lose_its_targets(bench):
    b = bench(squares(live=True, length=10**6))
    b.live._limits = Limits(image_timeout=0.05)
    b.ask(Play(True))
    b.ask(Play(False))
    b.until(lambda view: not view.playback.playing)
    assert b.start((1.0, 1.0, 30.0, 30.0)).code is Code.OK
    time.sleep(0.3)
    assert b.view.targets[0].state == "tracking"
    b.live._player.play(False)  # a source that has stopped, although nobody has paused it
    b.live._session.limits = b.live._limits
    b.until(lambda view: view.targets[0].reason == "no image")


def test_a_camera_that_stalls_keeps_the_last_box_in_its_recording(bench, tmp_path):
    b = bench(squares(live=True, length=10**6), record=tmp_path / "walk.mp4")
    b.ask(Play(False))
    b.until(lambda view: not view.playback.playing)
    assert b.start((1.0, 1.0, 30.0, 30.0)).code is Code.OK
    b.live._session.limits = Limits(image_timeout=0.01)
    b.until(lambda view: view.targets and view.targets[0].reason == "no image")
    box = list(b.box("target-1"))
    b.ask(MakePrimary("target-1"))  # whatever else changes
    b.live.close()
    assert read_boxes(tmp_path / "walk.target-1.txt")[-1].tolist() == box


def test_what_is_shown_is_recorded_with_its_boxes(bench, tmp_path):
    path = tmp_path / "walk.mp4"
    b = bench(squares(30, 30.0), record=path)
    assert b.view.recording == "walk.mp4"
    b.start(red(0))
    for _ in range(3):
        b.step()
    b.start(blue(3))
    b.step()
    b.ask(RemoveTarget("target-1"))
    b.step()
    assert not path.exists()  # until it is complete
    written = b.live.close()
    assert written == [path, tmp_path / "walk.target-1.txt", tmp_path / "walk.target-2.txt"]
    with av.open(str(path)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 6
    nan = [np.nan] * 4
    first, second = (read_boxes(each) for each in written[1:])
    # removed in the image with the number 4, which is recorded as it was left
    np.testing.assert_array_equal(first, [*map(red, range(4)), nan, nan])
    np.testing.assert_array_equal(second, [nan, nan, nan, *map(blue, range(3, 6))])


def test_a_recording_goes_on_in_time_over_pauses_and_cuts(tmp_path):
    recorder = LiveRecorder(tmp_path / "a.mp4", 10.0)
    image = np.zeros((32, 48, 3), np.uint8)
    for number, seconds in enumerate([0.0, 0.1, 0.3, 500.0, 2.0, 2.1]):
        recorder.show(number, image, seconds, [])
    recorder.close()
    with av.open(str(tmp_path / "a.mp4")) as video:
        times = [frame.time for frame in video.decode(video=0)]
    assert times == pytest.approx([0.0, 0.1, 0.3, 0.4, 0.5, 0.6], abs=1e-3)


def test_a_recording_that_cannot_go_on_is_told_and_tracking_goes_on(bench, tmp_path, monkeypatch):
    b = bench(squares(), record=tmp_path / "walk.mp4")

    def full(*_):
        raise OSError("no space left")

    b.start(red(0))
    b.step()
    monkeypatch.setattr(b.live._recorder._video, "write", full)
    b.step()
    b.until(lambda view: "no space left" in view.hint and not view.recording)
    b.step()
    boxes = tmp_path / "walk.target-1.txt"
    assert b.live.close() == [boxes]
    assert "no space left" in b.live.fault
    np.testing.assert_array_equal(read_boxes(boxes), [*map(red, range(4))])
    assert list(tmp_path.iterdir()) == [boxes]


@pytest.mark.parametrize("cannot", ["walk.mp4", "walk.target-1.txt"])
def test_files_that_can_be_written_at_the_end_are(bench, tmp_path, cannot):
    b = bench(squares(), record=tmp_path / "walk.mp4")
    b.start(red(0))
    b.start(blue(0))
    b.step()
    (tmp_path / cannot).mkdir()  # nothing takes the place of a folder
    files = {"walk.mp4", "walk.target-1.txt", "walk.target-2.txt"} - {cannot}
    assert {path.name for path in b.live.close()} == files
    assert cannot in b.live.fault
    assert {path.name for path in tmp_path.iterdir()} == files | {cannot}


def test_nothing_is_left_where_the_page_cannot_be_served(tmp_path):
    with pytest.raises(OSError, match="cannot listen"):
        LiveTracking(squares(), ColorTracker(), "203.0.113.1", record=tmp_path / "walk.mp4")
    assert list(tmp_path.iterdir()) == []
