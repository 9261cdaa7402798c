"""The player: pause, step, seek, the end, faults, and sources that are live."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.live.player import Player
from test.spmtrack_core.live.squares import squares


class Screen:
    """What the player has shown: the place of each image, in images, and whether it was a cut."""

    def __init__(self, sequence, fps=100.0):
        self.shown, self.changed = [], threading.Condition()
        self.fps, self.slow = fps, 0.0  # s that the tracker takes for an image
        self.player = Player(sequence, self.push, self.note)

    def push(self, image, seconds, cut):
        time.sleep(self.slow)
        with self.changed:
            self.shown.append((round(seconds * self.fps), cut))
            self.changed.notify_all()

    def note(self):
        with self.changed:
            self.changed.notify_all()

    def until(self, condition):
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), 10), self.shown

    @property
    def places(self):
        return [place for place, _ in self.shown]


@pytest.fixture
def screen():
    screens = []

    def start(length=30, live=False, **changes):
        screens.append(Screen(replace(squares(length, 100.0, live), **changes)))
        screens[-1].player.start()
        return screens[-1]

    yield start
    for each in screens:
        each.player.close()


def test_a_video_waits_at_its_first_image_and_then_shows_every_one(screen):
    seen = screen(30)
    seen.until(lambda s: s.places == [0])
    now = seen.player.playback
    assert (now.playing, now.position, now.seekable, now.ended) == (False, 0.0, True, False)
    assert now.length == pytest.approx(0.29)
    seen.player.play(True)
    seen.until(lambda s: s.player.playback.ended)
    assert seen.shown == [(0, True)] + [(place, False) for place in range(1, 30)]
    assert not seen.player.playback.playing


def test_a_slow_tracker_makes_a_video_slower_and_leaves_out_nothing(screen):
    seen = screen(10)
    seen.until(lambda s: s.places == [0])
    seen.slow = 0.03
    seen.player.play(True)
    seen.until(lambda s: s.player.playback.ended)
    assert seen.places == list(range(10))


def test_pause_and_step(screen):
    seen = screen(30)
    seen.until(lambda s: s.places == [0])
    for count in (1, 2, 3):
        seen.player.step()
        seen.until(lambda s, count=count: s.places == list(range(count + 1)))
    seen.player.play(True)
    seen.until(lambda s: len(s.shown) > 5)
    seen.player.play(False)
    seen.player.step()
    seen.until(lambda s: not s.player.playback.playing)
    assert seen.places == list(range(len(seen.shown)))


@pytest.mark.parametrize(
    ("position", "place"),
    [(0.1, 10), (0.104, 10), (0.0, 0), (-5.0, 0), (0.29, 29), (99.0, 29)],
)
def test_seek_shows_the_image_there_as_a_cut(screen, position, place):
    seen = screen(30)
    seen.player.step()
    seen.until(lambda s: len(s.shown) == 2)
    seen.player.seek(position)
    seen.until(lambda s: len(s.shown) == 3)
    assert seen.shown[-1] == (place, True)
    assert seen.player.playback.position == pytest.approx(place / 100)


def test_play_at_the_end_begins_again(screen):
    seen = screen(3)
    seen.player.play(True)
    seen.until(lambda s: s.player.playback.ended)
    seen.player.step()  # there is no next image
    seen.player.play(True)
    seen.until(lambda s: len(s.shown) == 6)
    assert seen.shown[3] == (0, True) and seen.places == [0, 1, 2] * 2


def test_a_folder_of_images_has_no_times_of_its_own(screen):
    seen = screen(3, fps=None, open_timed=None)
    seen.fps = 30.0
    seen.player.play(True)
    seen.until(lambda s: s.player.playback.ended)
    assert seen.places == [0, 1, 2]


def test_a_live_source_plays_at_once_and_shows_the_newest_after_a_pause(screen):
    newest = iter(range(10**9))  # of a camera, a frame that is not asked for is gone

    def timed():
        while True:
            yield squares(1).open().__next__(), next(newest) / 100

    seen = screen(live=True, length=None, open_timed=timed)
    seen.until(lambda s: len(s.shown) > 3)
    assert seen.player.playback.playing and not seen.player.playback.seekable
    seen.player.play(False)
    seen.player.step()
    count = len(seen.shown)
    for _ in range(500):
        next(newest)
    seen.player.play(True)
    seen.until(lambda s: len(s.shown) > count + 4)
    assert any(b - a > 400 for a, b in zip(seen.places, seen.places[1:], strict=False))
    with pytest.raises(ValueError, match="squares is live"):
        seen.player.seek(0.0)


def test_a_source_that_breaks_says_why_and_can_be_started_again(screen):
    def timed():
        yield from list(squares(2, 100.0).timed())
        raise ModuleNotFoundError("walk.mp4 cannot be read any further")

    seen = screen(open_timed=timed)
    seen.player.play(True)
    seen.until(lambda s: s.player.playback.ended)
    assert seen.places == [0, 1] and "any further" in seen.player.fault
    seen.player.play(True)
    seen.until(lambda s: len(s.shown) == 4)


def test_a_camera_that_has_ended_cannot_play(screen):
    seen = screen(2, live=True)
    seen.until(lambda s: s.player.playback.ended)
    with pytest.raises(ValueError, match="squares has ended"):
        seen.player.play(True)
    assert not seen.player.playback.playing


def test_an_empty_source_ends(screen):
    seen = screen(open_timed=lambda: iter(()))
    seen.until(lambda s: s.player.playback.ended)
    assert seen.shown == []


def test_a_sequence_is_not_live_unless_it_says_so():
    assert not FrameSequence("a", lambda: iter(())).live


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        ([0.0, 0.1, 0.05, 0.2], [0.0, 0.1, 0.11, 0.2]),  # damaged
        ([0.0, 0.01, 0.0, 0.01], [0.0, 0.01, 0.02, 0.03]),  # two files were joined
        ([0.0, None, 0.03, None], [0.0, 0.01, 0.03, 0.04]),  # some frames have no time
        ([0.0, 0.3, None, 0.31], [0.0, 0.3, 0.31, 0.32]),  # variable rate, and no time
        ([None, None, 0.0, 0.01], [0.0, 0.01, 0.02, 0.03]),
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.01, 0.02, 0.03]),
    ],
)
def test_places_always_increase(screen, times, shown):
    frames = [image for image, _ in squares(len(times)).timed()]
    seen = screen(open_timed=lambda: iter(zip(frames, times, strict=True)))
    seen.player.play(True)
    seen.until(lambda s: s.player.playback.ended)
    assert [place / 100 for place in seen.places] == shown
