"""A source, a tracker and the live page, put together: what ``spmtrack live`` runs."""

from __future__ import annotations

import logging
import math
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.geometry.image import Image
from spmtrack_core.live.messages import (
    MakePrimary,
    Play,
    RemoveTarget,
    Request,
    Seek,
    ShownTarget,
    StartTarget,
    Step,
    View,
)
from spmtrack_core.live.player import Player
from spmtrack_core.live.recording import LiveRecorder
from spmtrack_core.live.server import LiveServer
from spmtrack_core.session.frame_buffer import FrameBuffer
from spmtrack_core.session.image_step import ImageStep, Tracker
from spmtrack_core.session.init_request import Code, InitRequest, Limits, Reply
from spmtrack_core.session.listeners import Listeners
from spmtrack_core.session.session import Session
from spmtrack_core.session.snapshot import FrameReport
from spmtrack_core.tracking.followed import Target

LOG = logging.getLogger(__name__)
_SECOND = 1_000_000_000  # ns; the stamp of the first image, for 0 is no stamp
# Somebody draws a box for some seconds, and its image must still be there.
_BUFFER = 300, 400e6  # images, bytes
_TIMEOUT = 20.0  # s for the answer to a request
_SLICE = 0.5  # s
_RATE = 30.0  # frames per second of a recording whose source has no rate


class LiveTracking:
    """Plays ``sequence``, follows the targets that pages name, and shows both.

    ``record`` is the mp4 file that everything shown is written to.
    """

    def __init__(
        self,
        sequence: FrameSequence,
        tracker: Tracker,
        host: str = "127.0.0.1",
        port: int = 0,
        record: Path | None = None,
    ) -> None:
        """Open the server, not yet the source. Raises ``OSError`` or ``ValueError``."""
        self._sequence = sequence
        self._condition = threading.Condition()
        self._awaited = 0  # ns; stamp of the image that was given and is not shown yet
        self._closed = False
        self._lock = threading.RLock()  # guards the view and the recorder
        self._image: Image | None = None  # the one that is shown
        self._view = View()
        self._names = 0
        self.fault = ""
        """Why a file of the recording cannot be written; empty if all can."""
        # a live source that stops is noticed; a video may be paused
        self._limits = Limits() if sequence.live else Limits(image_timeout=math.inf)
        self._session = Session(
            ImageStep(tracker, lambda message: message),
            Listeners(self._on_report, self._refresh, LOG.warning, LOG.warning),
            FrameBuffer(*_BUFFER),
            self._limits,
        )
        self._player = Player(sequence, self._push, self._refresh)
        self._recorder: LiveRecorder | None = None
        self._recording = record.name if record else ""
        try:
            if record:
                self._recorder = LiveRecorder(record, sequence.fps or _RATE)
            self.server = LiveServer(self.handle, host, port)
        except (OSError, ValueError):
            self._session.close()
            if self._recorder is not None:
                self._recorder.discard()
            raise
        self._refresh()

    def start(self) -> None:
        """Begin to play."""
        self._player.start()

    def close(self) -> list[Path]:
        """End everything; the files that were written. ``fault`` says why one could not."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._player.close()
        self._session.close()
        self.server.close()
        with self._lock:
            recorder, self._recorder = self._recorder, None
        if recorder is None:
            return []
        written = recorder.close()
        self.fault = recorder.fault
        return written

    def handle(self, request: Request) -> Future[Reply]:
        """Do what a page asks for; the answer comes later."""
        done: Future[Reply] = Future()
        if isinstance(request, StartTarget):
            start = InitRequest(request.box_xywh, request.stamp_ns, request.id or self._new_name())
            return self._session.init(start, _TIMEOUT)
        if isinstance(request, RemoveTarget):
            done.set_result(self._session.remove(request.id))
        elif isinstance(request, MakePrimary):
            done.set_result(self._session.set_primary(request.id))
        else:
            done.set_result(self._control(request))
        return done

    def _control(self, request: Play | Step | Seek) -> Reply:
        pauses = not (isinstance(request, Play) and request.playing)
        try:
            if isinstance(request, Seek):
                self._player.seek(request.position)
                return Reply(Code.OK)
            if self._sequence.live:  # no image comes during a pause, and no target is lost by it
                timeout = math.inf if pauses else self._limits.image_timeout
                self._session.limits = replace(self._limits, image_timeout=timeout)
            if isinstance(request, Play):
                self._player.play(request.playing)
            else:
                self._player.step()
        except ValueError as error:
            return Reply(Code.INTERNAL_ERROR, str(error))
        return Reply(Code.OK)

    def _new_name(self) -> str:
        """A name that no target has: each one that is drawn is added to the others."""
        with self._condition:
            self._names += 1
            return f"target-{self._names}"

    def _push(self, image: Image, seconds: float, cut: bool) -> None:
        """Give an image to the session; of a video, wait until it is shown."""
        if cut:
            self._session.cut()
        stamp_ns = _SECOND + round(seconds * _SECOND)
        with self._condition:
            self._awaited = stamp_ns
        taken = self._session.push(stamp_ns, image, size=image.nbytes)
        with self._condition:
            while taken and self._awaited and not self._closed and not self._sequence.live:
                self._condition.wait(_SLICE)

    def _on_report(self, report: FrameReport) -> None:
        try:
            self._show(report)
        finally:  # whatever is wrong with an image, the next one comes
            with self._condition:
                if self._awaited == report.frame.stamp_ns:
                    self._awaited = 0
                    self._condition.notify_all()

    def _show(self, report: FrameReport) -> None:
        frame = report.frame
        image = np.asarray(frame.message if report.image is None else report.image)
        with self._lock:
            self._image = image
            self._view = replace(
                self._view,
                number=frame.number,
                stamp_ns=frame.stamp_ns,
                image=lambda: image,
                arrived=frame.arrival,
                seconds=report.seconds if report.targets else 0.0,
            )
            self._refresh()

    def _refresh(self) -> None:
        """Show and record the present state, with the image that is shown."""
        with self._lock:
            now, view = self._session.snapshot(), self._view
            measured = [each for each in now.targets if each.frame.number == view.number]
            self._record(measured)
            self._view = replace(
                view,
                targets=tuple(
                    shown(each, each is now.primary, each in measured) for each in now.targets
                ),
                hint=self.fault or self._player.fault,
                playback=self._player.playback,
                recording=self._recording,
            )
            self.server.show(self._view)

    def _record(self, targets: list[Target]) -> None:
        if self._recorder is None or self._image is None:
            return
        seconds = (self._view.stamp_ns - _SECOND) / _SECOND
        self._recorder.show(self._view.number, self._image, seconds, targets)
        if self._recorder.fault:
            self.fault, self._recording = self._recorder.fault, ""


def shown(target: Target, primary: bool, measured: bool) -> ShownTarget:
    """A target as the page draws it; ``measured`` says that its state is that of the image."""
    reason = target.reason.name.lower().replace("_", " ") if target.reason else ""
    return ShownTarget(
        target.id,
        target.state.name.lower(),
        target.score,
        target.box_xywh if measured or not target.visible else None,
        target.label,
        primary,
        reason,
    )
