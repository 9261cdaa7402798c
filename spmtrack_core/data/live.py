"""Live sources, cameras and network streams: the newest frame first, and connected again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import av

from spmtrack_core.data.decoding import decode, reason, upright
from spmtrack_core.data.sequence import TimedFrames
from spmtrack_core.files import one_line

LOG = logging.getLogger(__name__)
PAUSE = 1.0
"""Seconds between attempts to connect again."""
GIVE_UP = 30.0
"""Seconds without a frame after which a source has ended."""

Connect = Callable[[], av.container.InputContainer]


class NewestFrame:
    """Reads a live source in a thread of its own and keeps its newest frame only.

    A source that ends or breaks is connected again, which a warning tells. Iterating gives frames
    as they come, with their time of arrival in s from the first; frames that came while nobody
    asked are left out. The end of the iteration closes the source. Raises ``ValueError`` when
    there was no frame for ``GIVE_UP`` s.
    """

    def __init__(
        self, name: str, container: av.container.InputContainer, connect: Connect
    ) -> None:
        self.name = name
        self._connect = connect
        self._condition = threading.Condition()
        self._newest: tuple[av.VideoFrame, float] | None = None
        self._last = time.monotonic()
        """When the last frame came, or the reading began."""
        self._why = ""
        """Why no frame comes, as far as that is known."""
        self._stopped = False
        self._fault: Exception | None = None
        """What ended the thread."""
        self._thread = threading.Thread(target=self._read, args=(container,), daemon=True)
        self._thread.start()

    def __iter__(self) -> TimedFrames:
        start = None
        try:
            while (newest := self._next()) is not None:
                frame, arrived = newest
                start = arrived if start is None else start
                yield upright(frame), arrived - start
        finally:
            self.close()

    def close(self) -> None:
        """End the thread: at the next frame, or later when reading has timed out."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        self._thread.join(2.0)

    def _next(self) -> tuple[av.VideoFrame, float] | None:
        with self._condition:
            # in slices: a wait without an end would not see Ctrl-C on every platform
            while self._newest is None and not self._stopped and not self._fault:
                if time.monotonic() - self._last > GIVE_UP:
                    why = self._why or "what comes holds no frame that can be decoded"
                    raise ValueError(f"no frame from {self.name} for {GIVE_UP:g} s: {why}")
                self._condition.wait(0.5)
            newest, self._newest = self._newest, None
            if newest is None and self._fault:
                raise ValueError(f"{self.name}: {one_line(self._fault)}") from self._fault
            return newest

    def _read(self, container: av.container.InputContainer) -> None:
        try:
            self._receive(container)
        except Exception as error:  # of any kind: else the other thread would wait for frames
            with self._condition:
                self._fault = error
                self._condition.notify_all()

    def _receive(self, container: av.container.InputContainer | None) -> None:
        while not self._stopped:
            try:
                with container or self._connect() as container:
                    for frame in decode(container, self.name):
                        if self._why:
                            LOG.warning("%s: connected again", self.name)
                        with self._condition:
                            self._last, self._why = time.monotonic(), ""
                            self._newest = frame, self._last
                            self._condition.notify_all()
                        if self._stopped:
                            return
                why = "it has ended"
            except (av.FFmpegError, OSError, ValueError) as error:
                why = reason(error)
            container = None
            if not self._why:
                LOG.warning("%s: %s; connecting again", self.name, why)
            self._why = why
            time.sleep(PAUSE)
