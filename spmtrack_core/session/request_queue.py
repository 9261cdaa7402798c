"""Requests that wait for their image or for the tracker, and their deadlines. Not thread-safe."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from spmtrack_core.data.messages import stamp_text
from spmtrack_core.session.frame_buffer import Frame, FrameBuffer
from spmtrack_core.session.init_request import Code, InitRequest, Reply
from spmtrack_core.tracking.followed import Target


@dataclass(eq=False)
class Pending:
    """A request that is not answered yet, or whose target is still catching up."""

    request: InitRequest
    deadline: float
    """s of the monotonic clock; infinite for a request that waits for ever."""
    answer: Future[Reply] = field(default_factory=Future)
    after: int = 0
    """Number of the last image that could not be read for it."""
    dropped: bool = False
    """Answered, or about to be: its target must not be started any more."""
    expired: bool = False
    """The deadline has passed."""
    target: Target | None = None
    """The target as it was started; None before."""
    frames_caught_up: int = 0

    @property
    def patient(self) -> bool:
        """Whether the request waits for ever."""
        return math.isinf(self.deadline)

    def reply(self, reply: Reply) -> None:
        """Answer, unless that was done before or the owner has cancelled the request."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_result(reply)


class RequestQueue:
    """Requests in the order of their arrival, and the one that is being started."""

    def __init__(self, buffer: FrameBuffer) -> None:
        self._buffer = buffer
        self._waiting: deque[Pending] = deque()
        self._starting: Pending | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, pending: Pending) -> None:
        """Let a request wait, unless it was dropped."""
        if not pending.dropped:
            self._waiting.append(pending)

    def take(self) -> tuple[Pending, list[Frame] | Reply] | None:
        """Take the first request that can be started, with its frames, or rejected.

        It counts as being started until the next call.
        """
        self._starting = None
        for pending in self._waiting:
            found = self._find(pending)
            if found is not None:
                self._waiting.remove(pending)
                self._starting = pending
                return pending, found
        return None

    def drop(self, requests: Iterable[Pending]) -> list[Pending]:
        """Give up requests; returns them, for the caller to answer."""
        dropped = list(requests)
        for each in dropped:
            each.dropped = True
            with contextlib.suppress(ValueError):  # it is being started
                self._waiting.remove(each)
        return dropped

    def drop_all(self) -> list[Pending]:
        """Give up all requests, also the one that is being started."""
        return self.drop(self._all())

    def drop_impatient(self) -> list[Pending]:
        """Give up all waiting requests that have a deadline."""
        return self.drop([each for each in self._waiting if not each.patient])

    def drop_with(self, answer: Future[Reply] | None) -> list[Pending]:
        """Give up the waiting request with this future, if any."""
        return self.drop([each for each in self._waiting if each.answer is answer])

    def expire(self, now: float) -> list[tuple[Pending, Reply | None]]:
        """Requests whose deadline has just passed, with the answer.

        None instead of an answer: its target was started, and goes on catching up.
        """
        late = [each for each in self._all() if not each.expired and each.deadline <= now]
        replies = [(each, None if each.target else self._late_reply(each)) for each in late]
        self.drop(each for each in late if each.target is None)
        for each in late:
            each.expired = True
        return replies

    def next_deadline(self) -> float:
        """The earliest deadline to come; infinite if there is none."""
        return min((each.deadline for each in self._all() if not each.expired), default=math.inf)

    def _all(self) -> list[Pending]:
        return [*self._waiting, *([self._starting] if self._starting else [])]

    def _find(self, pending: Pending) -> list[Frame] | Reply | None:
        """The image of a request and all newer ones, a rejection, or None: wait for the image."""
        stamp_ns, newest = pending.request.stamp_ns, self._buffer.newest
        if frames := self._buffer.since(stamp_ns, pending.after):
            return frames
        missed = stamp_ns and newest is not None and stamp_ns < newest.stamp_ns
        return self._not_buffered(stamp_ns) if missed else None

    def _late_reply(self, pending: Pending) -> Reply:
        stamp_ns = pending.request.stamp_ns
        if pending is self._starting or self._buffer.since(stamp_ns, pending.after):
            return Reply(Code.TIMEOUT, "the tracker did not start the target within init_timeout")
        if self._buffer.newest is None or not stamp_ns:
            return Reply(Code.NO_IMAGE, "no image has arrived")
        return self._not_buffered(stamp_ns)

    def _not_buffered(self, stamp_ns: int) -> Reply:
        text = f"no image with the stamp {stamp_text(stamp_ns)} is in the buffer"
        oldest, newest = self._buffer.oldest, self._buffer.newest
        if oldest is not None and newest is not None:
            span = f"{stamp_text(oldest.stamp_ns)} to {stamp_text(newest.stamp_ns)}"
            text = f"{text}, which holds {len(self._buffer)} from {span}"
            if stamp_ns < oldest.stamp_ns:
                text = f"{text}: older ones are forgotten (frame_buffer)"
        return Reply(Code.STAMP_NOT_BUFFERED, text)
