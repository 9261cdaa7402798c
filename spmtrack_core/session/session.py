"""The decisions of a live tracker: which image is processed, and the state of the targets.

A worker thread owns the tracker. :meth:`Session.push` never queues images: a new image replaces
the one that waits for the worker. A second thread keeps deadlines, also while inference hangs, and
a third one answers. Requests may come from any thread. The threads share one state; the tracker
runs outside its lock.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from typing import Any

from spmtrack_core.session.answers import Answers
from spmtrack_core.session.deadlines import Deadlines
from spmtrack_core.session.frame_buffer import Frame, FrameBuffer, Order
from spmtrack_core.session.image_step import ImageStep
from spmtrack_core.session.init_request import Code, InitRequest, Limits, Reply
from spmtrack_core.session.listeners import Listeners
from spmtrack_core.session.request_queue import Pending
from spmtrack_core.session.shared_state import SharedState
from spmtrack_core.session.snapshot import Snapshot
from spmtrack_core.session.worker import Worker

_JOIN_TIMEOUT = 0.2  # s; the worker may hang in the tracker, and the process ends anyway
_LAST_ANSWERS = 3.0  # s for those that are on their way; 200 take 0.4 s, longer on a busy machine
_WARNING_SPACING = 10.0  # s between warnings of a clock that does not come to rest


class Session:
    """Runs one tracker over the newest images and answers requests meanwhile.

    ``limits`` may be set at any time.
    """

    def __init__(
        self,
        step: ImageStep,
        listeners: Listeners,
        buffer: FrameBuffer | None = None,
        limits: Limits | None = None,
        enabled: bool = True,
    ) -> None:
        self._listeners = listeners
        buffer = FrameBuffer() if buffer is None else buffer
        self._state = state = SharedState(buffer, limits or Limits(), enabled)
        self._answers = Answers()
        self._worker = Worker(state, step, listeners, self._answers)
        self._warned = -_WARNING_SPACING  # s of the monotonic clock
        runs = {
            "tracker": self._worker.run,
            "deadlines": Deadlines(state, listeners, self._answers).run,
            "answers": self._answers.run,
        }
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True) for name, run in runs.items()
        ]
        for thread in self._threads:
            thread.start()

    # Called from any thread

    @property
    def limits(self) -> Limits:
        """What is accepted and expected at present."""
        return self._state.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        with self._state.lock:
            if math.isinf(self._state.limits.image_timeout):
                self._state.last_arrival = time.monotonic()  # nothing was expected before
            self._state.limits = limits
            self._state.alarm.notify_all()  # perhaps another time to be woken up

    def snapshot(self) -> Snapshot:
        """The present state."""
        with self._state.lock:
            return self._state.snapshot()

    def push(self, stamp_ns: int, message: Any, frame_id: str = "", size: int = 0) -> bool:
        """Add a new image of ``size`` bytes; it replaces the one that waits for the worker.

        False if it is dropped: a newer one has overtaken it, or tracking is disabled.
        """
        state = self._state
        with state.lock:
            if not state.enabled or state.closed:
                return False
            now = time.monotonic()
            state.count(received=1)
            before = state.buffer.newest
            frame = Frame(state.counters.received, stamp_ns, message, frame_id, size, now)
            order = state.buffer.add(frame)
            if order is not Order.LATE:
                state.last_arrival = now
                state.waiting = frame
                if order is Order.CLOCK_JUMPED:
                    state.first_after_jump = frame.number
                state.work.notify_all()
        may_warn = order is Order.CLOCK_JUMPED and now - self._warned >= _WARNING_SPACING
        if may_warn and before is not None:
            self._warned = now
            seconds = (before.stamp_ns - stamp_ns) / 1e9
            text = f"the stamps of the images jumped back by {seconds:.3f} s"
            self._listeners.warning(f"{text}: images of later stamps were discarded")
        return order is not Order.LATE

    def init(
        self, request: InitRequest, timeout: float, instead_of: Future[Reply] | None = None
    ) -> Future[Reply]:
        """Follow a new target: added, or instead of the primary one or the one of the same id.

        The future is set when the target has been started in its image and has been tracked
        through some of the buffered images since then, up to the newest one. A request whose image
        has not arrived waits for it. After ``timeout`` seconds every request is answered, also
        while the tracker hangs: one whose target was not started fails and changes nothing. An
        infinite timeout also waits for :meth:`enable` and for a readable image. ``instead_of`` is
        the future of an earlier request, which is cancelled if it still waits.
        """
        state = self._state
        pending = Pending(request, time.monotonic() + timeout)
        cancelled = Reply(Code.CANCELLED, "replaced by a newer request")
        with state.lock:
            rejection = state.reject_reason(pending)
            if rejection is None:
                self._answers.give(state.requests.drop_with(instead_of), cancelled)
                state.requests.add(pending)
                state.work.notify_all()
                state.alarm.notify_all()
        if rejection is not None:
            pending.reply(rejection)
        return pending.answer

    def set_primary(self, target_id: str) -> Reply:
        """Choose the target that counts as the primary one; empty: the first one."""
        with self._state.lock:
            reply = self._state.targets.set_primary(target_id)
        self._listeners.change()
        return reply

    def remove(self, target_id: str = "") -> Reply:
        """Stop following the target with this id; an empty id means all, also requested ones."""
        state = self._state
        cancelled = Reply(Code.CANCELLED, "all targets were removed meanwhile")
        with state.lock:
            reply = state.targets.remove(target_id)
            if not target_id:
                self._answers.give(state.requests.drop_all(), cancelled)
        self._listeners.change()
        return reply

    def reset(self) -> None:
        """Discard the targets, the buffered images and the waiting requests."""
        state = self._state
        cancelled = Reply(Code.CANCELLED, "the tracker was reset meanwhile")
        with state.lock:
            state.targets.remove()
            state.discard_images()
            state.report = None
            self._answers.give(state.requests.drop_all(), cancelled)
        self._listeners.change()

    def cut(self) -> None:
        """The next image is no successor of the one before: a video was wound."""
        state = self._state
        with state.lock:
            state.discard_images()
            state.first_after_jump = state.counters.received + 1

    def enable(self, enabled: bool) -> None:
        """Process or ignore images. The targets are kept."""
        state = self._state
        disabled = Reply(Code.DISABLED, "tracking was disabled meanwhile")
        with state.lock:
            state.enabled = enabled
            state.last_arrival = time.monotonic()
            if not enabled:
                state.discard_images()
                self._answers.give(state.requests.drop_impatient(), disabled)
            state.alarm.notify_all()
        self._listeners.change()

    def close(self) -> None:
        """Cancel all requests and end the threads, after the present image."""
        state = self._state
        cancelled = Reply(Code.CANCELLED, "the tracker is shutting down")
        with state.lock:
            state.closed = True
            state.discard_images()
            self._answers.give(state.requests.drop_all(), cancelled)
            self._answers.close()
            state.work.notify_all()
            state.alarm.notify_all()
        late = time.monotonic() + _LAST_ANSWERS
        *others, answers = self._threads
        for thread in others:
            thread.join(_JOIN_TIMEOUT)
        answers.join(max(0.0, late - time.monotonic()))
