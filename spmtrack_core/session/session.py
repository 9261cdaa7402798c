"""The decisions of a live tracker: which image is processed, and the state of the targets.

A worker thread owns the tracker. :meth:`Session.push` never queues images: a new image replaces
the one that waits for the worker. A second thread keeps deadlines, also while inference hangs.
Requests may come from any thread. State changes under one lock; the tracker runs outside of it.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from spmtrack_core.geometry.lazy_image import AnyImage
from spmtrack_core.session.frame_buffer import Frame, FrameBuffer, Order
from spmtrack_core.session.image_step import ImageStep
from spmtrack_core.session.init_request import Code, InitRequest, Limits, Reply
from spmtrack_core.session.listeners import Listeners
from spmtrack_core.session.request_queue import Pending, RequestQueue, answer_all
from spmtrack_core.session.snapshot import Counters, FrameReport, Snapshot
from spmtrack_core.session.target import TargetList
from spmtrack_core.tracking.followed import Reason, State

# Replaying all buffered images takes long, and the images that arrive meanwhile would add up to
# one big jump at the end. A few images in even steps keep every jump small.
_MAX_REPLAYED = 8
# Clients of ROS services keep 10 answers by default: they lose most of a burst of late ones.
_ANSWERS_AT_ONCE = 5
_ANSWER_SPACING = 0.01  # s
_JOIN_TIMEOUT = 0.2  # s; the worker may hang in the tracker, and the process ends anyway


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
        self._step = step
        self._listeners = listeners
        self._limits = limits or Limits()

        lock = threading.RLock()  # guards all of the below
        self._condition = threading.Condition(lock)  # wakes the worker
        self._alarm = threading.Condition(lock)  # wakes the thread that keeps deadlines
        self._enabled = enabled
        self._closed = False
        self._targets = TargetList()
        self._buffer = FrameBuffer() if buffer is None else buffer
        self._requests = RequestQueue(self._buffer)
        self._waiting: Frame | None = None
        self._reported = 0  # number of the newest frame that was reported
        self._report: FrameReport | None = None
        self._jumped = False  # the clock of the images was set back
        self._busy_since = 0.0  # s of the monotonic clock; 0 while the worker is idle
        self._last_arrival = 0.0
        self._counters = Counters()
        self._threads = [
            threading.Thread(target=self._work, name="tracker", daemon=True),
            threading.Thread(target=self._keep_deadlines, name="deadlines", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # Called from any thread

    @property
    def limits(self) -> Limits:
        """What is accepted and expected at present."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        with self._condition:
            self._limits = limits
            self._alarm.notify_all()  # perhaps another time to be woken up

    def snapshot(self) -> Snapshot:
        """The present state."""
        with self._condition:
            now = time.monotonic()
            return Snapshot(
                self._enabled,
                tuple(self._targets),
                self._targets.primary,
                self._counters,
                self._report,
                now,
                now - self._busy_since if self._busy_since else 0.0,
            )

    def push(self, stamp_ns: int, message: Any, frame_id: str = "", size: int = 0) -> None:
        """Add a new image of ``size`` bytes; it replaces the one that waits for the worker."""
        with self._condition:
            if not self._enabled or self._closed:
                return
            self._last_arrival = now = time.monotonic()
            received = self._counters.received + 1
            self._counters = replace(self._counters, received=received)
            before = self._buffer.newest
            frame = Frame(received, stamp_ns, message, frame_id, size, now)
            order = self._buffer.add(frame)
            if order is not Order.LATE:
                self._waiting = frame
                self._jumped |= order is Order.CLOCK_JUMPED
                self._condition.notify_all()
        if order is Order.CLOCK_JUMPED and before is not None:
            seconds = (before.stamp_ns - stamp_ns) / 1e9
            text = f"the stamps of the images jumped back by {seconds:.3f} s"
            self._listeners.warning(f"{text}: older images were discarded")

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
        pending = Pending(request, time.monotonic() + timeout)
        replaced: list[Pending] = []
        with self._condition:
            rejection = self._reject_reason(pending)
            if rejection is None:
                replaced = self._requests.drop_with(instead_of)
                self._requests.add(pending)
                self._condition.notify_all()
                self._alarm.notify_all()
        if rejection is not None:
            pending.reply(rejection)
        answer_all(replaced, Reply(Code.CANCELLED, "replaced by a newer request"))
        return pending.answer

    def set_primary(self, target_id: str) -> Reply:
        """Choose the target that counts as the primary one; empty: the first one."""
        with self._condition:
            reply = self._targets.set_primary(target_id)
        self._listeners.change()
        return reply

    def remove(self, target_id: str = "") -> Reply:
        """Stop following the target with this id; an empty id means all, also requested ones."""
        with self._condition:
            reply = self._targets.remove(target_id)
            pending = [] if target_id else self._requests.drop_all()
        answer_all(pending, Reply(Code.CANCELLED, "all targets were removed meanwhile"))
        self._listeners.change()
        return reply

    def reset(self) -> None:
        """Discard the targets, the buffered images and the waiting requests."""
        with self._condition:
            self._targets.remove()
            self._discard_images()
            pending = self._requests.drop_all()
        answer_all(pending, Reply(Code.CANCELLED, "the tracker was reset meanwhile"))
        self._listeners.change()

    def cut(self) -> None:
        """The next image is no successor of the one before: a video was wound."""
        with self._condition:
            self._discard_images()
            self._jumped = True

    def enable(self, enabled: bool) -> None:
        """Process or ignore images. The targets are kept."""
        pending: list[Pending] = []
        with self._condition:
            self._enabled = enabled
            self._last_arrival = time.monotonic()
            if not enabled:
                self._discard_images()
                pending = self._requests.drop_impatient()
            self._alarm.notify_all()
        answer_all(pending, Reply(Code.DISABLED, "tracking was disabled meanwhile"))
        self._listeners.change()

    def close(self) -> None:
        """Cancel all requests and end the threads, after the present image."""
        with self._condition:
            self._closed = True
            self._discard_images()
            pending = self._requests.drop_all()
            self._condition.notify_all()
            self._alarm.notify_all()
        answer_all(pending, Reply(Code.CANCELLED, "the tracker is shutting down"))
        for thread in self._threads:
            thread.join(_JOIN_TIMEOUT)

    def _reject_reason(self, pending: Pending) -> Reply | None:
        """Why a request must be rejected, regardless of its image; None if it need not."""
        if self._closed:
            return Reply(Code.CANCELLED, "the tracker is shutting down")
        if not self._enabled and not pending.patient:
            return Reply(Code.DISABLED, "tracking is disabled: enable it with ~/enable")
        return self._targets.reject_reason(pending.request, self.limits)

    def _discard_images(self) -> None:
        self._buffer.clear()
        self._waiting = None

    # Called in the thread that keeps deadlines

    def _keep_deadlines(self) -> None:
        while True:
            with self._condition:
                if self._closed:
                    return
                now = time.monotonic()
                expired = [
                    (pending, reply or self._reply(pending))
                    for pending, reply in self._requests.expire(now)
                ]
                stale = now >= self._stale_time()
                if stale:
                    for target in self._targets:
                        self._targets.update(target.without_image())
                if not expired and not stale:
                    wake = min(self._requests.next_deadline(), self._stale_time())
                    self._alarm.wait(None if math.isinf(wake) else max(0.0, wake - now))
                    continue
            for count, (pending, reply) in enumerate(expired):
                time.sleep(_ANSWER_SPACING if count >= _ANSWERS_AT_ONCE else 0)
                pending.reply(reply)
            if stale:
                self._listeners.change()

    def _stale_time(self) -> float:
        """When targets become LOST if no image arrives; infinite if none can."""
        if not self._enabled or all(each.reason is Reason.NO_IMAGE for each in self._targets):
            return math.inf
        return self._last_arrival + self.limits.image_timeout

    # Called in the worker thread

    def _work(self) -> None:
        while True:
            with self._condition:
                ready = self._requests.take()
                self._busy_since = 0.0
                if self._closed:
                    return
                frame = self._waiting
                if ready is None and frame is None:
                    self._condition.wait()
                    continue
                self._busy_since = time.monotonic()
                if ready is None:
                    self._waiting = None
            if ready is not None:
                pending, found = ready
                reply = found if isinstance(found, Reply) else self._start(pending, found)
                if reply is not None:
                    pending.reply(reply)
            elif frame is not None:
                self._process(frame)

    def _start(self, pending: Pending, frames: list[Frame]) -> Reply | None:
        """Start the target in the first frame and catch up through the others.

        None: the frame is unreadable and the request, which has no deadline, waits for the next.
        """
        first, begun = frames[0], time.perf_counter()
        try:
            image = self._step.decode(first.message)
        except Exception as error:
            if not pending.patient:
                return Reply(Code.INVALID_IMAGE, str(error))
            self._fail(f"no target started yet: {error}")
            pending.after = first.number
            with self._condition:
                self._requests.add(pending)
            return None
        box = self._step.place(pending.request, first, image, self.limits)
        if isinstance(box, Reply):
            if box.code is Code.INTERNAL_ERROR:
                self._fail(box.message)
            return box
        with self._condition:
            rejection = self._reject_reason(pending)
        if rejection is not None:
            return rejection
        target = self._step.start(first, image, pending.request, box)
        if isinstance(target, Reply):
            if target.code is Code.INTERNAL_ERROR:
                self._fail(target.message)
            return target

        with self._condition:
            if pending.dropped:
                return None
            replaced = self._targets.replaced_by(target.id)
            pending.target = self._targets.add(target, replaced)
            self._last_arrival = time.monotonic()
            self._alarm.notify_all()
        self._process(first, image, time.perf_counter() - begun)
        step = math.ceil(len(frames[1:]) / _MAX_REPLAYED) or 1
        replayed = frames[:0:-step][::-1]  # the newest is always among them
        for frame in replayed:
            with self._condition:
                if pending.dropped or not self._enabled:
                    break
            if frame is replayed[-1] or not pending.expired:
                self._process(frame)
                pending.frames_caught_up += 1
        self._listeners.change()
        with self._condition:
            return self._reply(pending)

    def _reply(self, pending: Pending) -> Reply:
        """The answer to a request whose target was started."""
        latest = self._targets.latest(pending.target)
        if latest is None:
            return Reply(Code.CANCELLED, "the target was removed while it was being started")
        text = "" if self._enabled else "started, but tracking was disabled meanwhile"
        if latest.state is State.LOST:
            text = "started, but lost again while catching up"
        box = pending.target.box_xywh if pending.target else latest.box_xywh
        return Reply(
            Code.OK, text, latest.id, latest.first_ns, latest.score, pending.frames_caught_up, box
        )

    def _process(self, frame: Frame, image: AnyImage | None = None, seconds: float = 0.0) -> None:
        """Track in one image all targets that have not been measured in it or in a newer one."""
        begun = time.perf_counter()
        with self._condition:
            targets = [each for each in self._targets if each.frame.number < frame.number]
            jumped, self._jumped = self._jumped, False
        image, after, inference, error = self._step.follow(frame, image, targets, jumped)
        if error:
            self._fail(f"an image could not be processed: {error}")
        with self._condition:
            if any(each.reason is Reason.NO_IMAGE for each in self._targets):
                self._alarm.notify_all()
            for each in after:
                self._targets.update(each)
        inference += seconds
        seconds += time.perf_counter() - begun
        self._publish(FrameReport(frame, image, seconds, inference, error))

    def _publish(self, report: FrameReport) -> None:
        """Report an image once, also if a target is started in an earlier image later."""
        number = report.frame.number
        with self._listeners.lock:
            with self._condition:
                if self._waiting is not None and self._waiting.number <= number:
                    self._waiting = None
                if number <= self._reported or not self._enabled:
                    return
                self._reported = number
                self._counters = replace(self._counters, processed=self._counters.processed + 1)
                # A target removed before this line is not published. A later removal waits.
                targets = tuple(each for each in self._targets if each.frame.number == number)
                primary = self._targets.primary
                primary = primary if primary in targets else None
                report = replace(report, targets=targets, primary=primary)
                self._report = report
            self._listeners.report(report)

    def _fail(self, text: str) -> None:
        with self._condition:
            self._counters = replace(self._counters, errors=self._counters.errors + 1)
        self._listeners.error(text)
