"""The thread that owns the tracker: it starts targets and finds them in the newest image."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace

from spmtrack_core.geometry.lazy_image import AnyImage
from spmtrack_core.session.answers import Answers
from spmtrack_core.session.frame_buffer import Frame
from spmtrack_core.session.image_step import ImageStep
from spmtrack_core.session.init_request import Code, Reply
from spmtrack_core.session.listeners import Listeners
from spmtrack_core.session.request_queue import Pending
from spmtrack_core.session.shared_state import SharedState
from spmtrack_core.session.snapshot import FrameReport
from spmtrack_core.tracking.followed import Reason, Target

# Replaying all buffered images takes long, and the images that arrive meanwhile would add up to
# one big jump at the end. A few images in even steps keep every jump small.
_MAX_REPLAYED = 8


class Worker:
    """Takes requests first, then the image that waits. The tracker runs outside of the lock."""

    def __init__(
        self, state: SharedState, step: ImageStep, listeners: Listeners, answers: Answers
    ) -> None:
        self._state, self._step, self._listeners = state, step, listeners
        self._answers = answers

    def run(self) -> None:
        """Work until the session is closed."""
        state = self._state
        while True:
            with state.lock:
                ready = state.requests.take()
                state.busy_since = 0.0
                if state.closed:
                    return
                frame = state.waiting
                if ready is None and frame is None:
                    state.work.wait()
                    continue
                state.busy_since = time.monotonic()
                if ready is None:
                    state.waiting = None
            if ready is not None:
                pending, found = ready
                reply = found if isinstance(found, Reply) else self._start(pending, found)
                if reply is not None:
                    self._answers.give([pending], reply)
            elif frame is not None:
                self._process(frame)

    def _start(self, pending: Pending, frames: list[Frame]) -> Reply | None:
        """Start the target in the first frame and catch up through the others.

        None: the frame is unreadable and the request, which has no deadline, waits for the next.
        """
        state = self._state
        first, begun = frames[0], time.perf_counter()
        try:
            image = self._step.decode(first.message)
        except Exception as error:
            if not pending.patient:
                return Reply(Code.INVALID_IMAGE, str(error))
            self._fail(f"no target started yet: {error}")
            pending.after = first.number
            with state.lock:
                state.requests.add(pending)
            return None
        box = self._step.place(pending.request, first, image, state.limits)
        if isinstance(box, Reply):
            if box.code is Code.INTERNAL_ERROR:
                self._fail(box.message)
            return box
        with state.lock:
            rejection = state.reject_reason(pending)
        if rejection is not None:
            return rejection
        target = self._step.start(first, image, pending.request, box)
        if isinstance(target, Reply):
            if target.code is Code.INTERNAL_ERROR:
                self._fail(target.message)
            return target

        with state.lock:
            if pending.dropped:
                return None
            replaced = state.targets.replaced_by(target.id)
            pending.target = state.targets.add(target, replaced)
            state.last_arrival = time.monotonic()
            state.alarm.notify_all()
        self._process(first, image, time.perf_counter() - begun)
        step = math.ceil(len(frames[1:]) / _MAX_REPLAYED) or 1
        replayed = frames[:0:-step][::-1]  # the newest is always among them
        for frame in replayed:
            with state.lock:
                if pending.dropped or not state.enabled:
                    break
            if frame is replayed[-1] or not pending.expired:
                self._process(frame)
                pending.frames_caught_up += 1
        self._listeners.change()
        with state.lock:
            return state.reply(pending)

    def _process(self, frame: Frame, image: AnyImage | None = None, seconds: float = 0.0) -> None:
        """Track in one image all targets that have not been measured in it or in a newer one."""
        state = self._state
        begun = time.perf_counter()
        with state.lock:
            state.busy_since = time.monotonic()
            targets = [each for each in state.targets if each.frame.number < frame.number]
            first = state.first_after_jump
            jumped = [each for each in targets if each.frame.number < first <= frame.number]
        image, after, inference, error = self._step.follow(frame, image, targets, jumped)
        if error:
            self._fail(f"an image could not be processed: {error}")
        inference += seconds
        seconds += time.perf_counter() - begun
        self._publish(FrameReport(frame, image, seconds, inference, error), after)

    def _publish(self, report: FrameReport, after: Iterable[Target]) -> None:
        """Take over the targets ``after`` an image, unless tracking was disabled meanwhile.

        The image is reported once, also if a target is started in an earlier image later.
        """
        state = self._state
        number = report.frame.number
        with self._listeners.lock:
            with state.lock:
                if state.waiting is not None and state.waiting.number <= number:
                    state.waiting = None
                if not state.enabled:
                    return
                if any(each.reason is Reason.NO_IMAGE for each in state.targets):
                    state.alarm.notify_all()
                for each in after:
                    state.targets.update(each)
                if number <= state.reported:
                    return
                state.reported = number
                state.count(processed=1)
                # A target removed before this line is not published. A later removal waits.
                targets = tuple(each for each in state.targets if each.frame.number == number)
                primary = state.targets.primary
                primary = primary if primary in targets else None
                report = replace(report, targets=targets, primary=primary)
                state.report = report
            self._listeners.report(report)

    def _fail(self, text: str) -> None:
        with self._state.lock:
            self._state.count(errors=1)
        self._listeners.error(text)
