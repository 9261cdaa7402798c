"""Plays a sequence in a thread of its own: at its speed, image by image, or from another place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from spmtrack_core.data.sequence import FrameSequence, TimedFrames, next_time
from spmtrack_core.geometry.image import Image
from spmtrack_core.live.messages import Playback

_RATE = 30.0  # frames per second of a source without a rate, such as a folder of images
_SLICE = 0.5  # s


class Player:
    """Gives the images of a sequence to ``push``, one at a time.

    A video waits at its first image, a live source plays at once. ``push(image, seconds, cut)``
    gets the place of the image in the source, and whether it is no successor of the one before;
    the next image waits until ``push`` returns: of a video, none is left out. ``on_change`` is
    called whenever ``playback`` has changed without an image.
    """

    def __init__(
        self,
        sequence: FrameSequence,
        push: Callable[[Image, float, bool], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.fault = ""
        """Why the source ended too early; empty if it did not."""
        self._sequence, self._push, self._on_change = sequence, push, on_change
        self._period = 1 / (sequence.fps or _RATE)
        self._condition = threading.Condition()
        self._playing = sequence.live
        self._steps = 0  # images to show although it does not play
        self._position = 0.0
        self._seek: float | None = None
        self._closed = self._ended = False
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    @property
    def playback(self) -> Playback:
        """Where the player stands."""
        length = self._sequence.length
        seconds = None if length is None else max(0.0, (length - 1) * self._period)
        with self._condition:
            seekable = not self._sequence.live
            return Playback(self._playing, self._position, seconds, seekable, self._ended)

    def play(self, playing: bool) -> None:
        """Go on or stop; at the end, go on from the beginning.

        Raises ``ValueError`` for a live source that has ended.
        """
        with self._condition:
            if playing and self._ended:
                if self._sequence.live:
                    raise ValueError(f"{self._sequence.name} has ended: start the program again")
                self._seek = 0.0
            self._playing, self._steps = playing, 0
            self._condition.notify_all()
        self._on_change()

    def step(self) -> None:
        """Show the next image and stop."""
        with self._condition:
            self._playing = False
            self._steps += 1
            self._condition.notify_all()
        self._on_change()

    def seek(self, position: float) -> None:
        """Go to the image at ``position`` in s. Raises ``ValueError`` for a live source."""
        if self._sequence.live:
            raise ValueError(f"{self._sequence.name} is live: it cannot go to another place")
        with self._condition:
            self._seek = max(0.0, position)
            self._condition.notify_all()

    def close(self) -> None:
        """End the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        start = 0.0
        while not self._closed:
            frames = self._sequence.timed()
            try:
                if self._sequence.live:
                    self._show_live(frames)
                else:
                    self._show_from(frames, start)
            except Exception as error:  # of whatever library reads the source
                self.fault = str(error) or type(error).__name__
            with self._condition:
                if self._seek is None and not self._closed:
                    self._ended, self._playing = True, False
            self._on_change()
            with self._condition:
                while self._seek is None and not self._closed:
                    self._condition.wait(_SLICE)
                start, self._seek = self._seek or 0.0, None
                self._ended, self._steps, self.fault = False, 0, ""

    def _show_live(self, frames: TimedFrames) -> None:
        """Show images as they come; the one that is asked for after a pause is the newest."""
        while self._wait(0.0):
            image, when = next(frames, (None, None))
            if image is None:
                return
            self._show(image, when or 0.0, False)

    def _show_from(self, frames: TimedFrames, start: float) -> None:
        """Show the images from ``start`` on, to the end, a seek or the close."""
        due, before = 0.0, start
        first = True
        last: tuple[Image, float] | None = None
        for image, seconds in self._places(frames):
            if self._interrupted():
                return
            if seconds < start - self._period / 2:
                last = image, seconds
                continue
            if first:
                due = time.monotonic()
            else:
                due = max(due + seconds - before, time.monotonic() - self._period)
                if not self._wait(due):
                    return
            self._show(image, seconds, first)
            first, before = False, seconds
        if first and last is not None:  # the place is beyond the end
            self._show(*last, True)

    def _places(self, frames: TimedFrames) -> Iterator[tuple[Image, float]]:
        """Each image with its time, which always increases."""
        seconds = -self._period
        for image, when in frames:
            seconds = next_time(when, seconds, self._period)
            yield image, seconds

    def _show(self, image: Image, seconds: float, cut: bool) -> None:
        with self._condition:
            self._position = seconds
        self._push(image, seconds, cut)

    def _interrupted(self) -> bool:
        return self._closed or self._seek is not None

    def _wait(self, due: float) -> bool:
        """Until the next image may be shown; False if another one is wanted."""
        with self._condition:
            while not self._interrupted():
                wait = due - time.monotonic() if self._playing else _SLICE
                if self._steps or (self._playing and wait <= 0):
                    self._steps = max(0, self._steps - 1)
                    return True
                self._condition.wait(min(_SLICE, max(wait, 0.0)))
        return False
