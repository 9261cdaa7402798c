"""What the threads of a session share, guarded by one lock."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

from spmtrack_core.session.frame_buffer import Frame, FrameBuffer
from spmtrack_core.session.init_request import Code, Limits, Reply
from spmtrack_core.session.request_queue import Pending, RequestQueue
from spmtrack_core.session.snapshot import Counters, FrameReport, Snapshot
from spmtrack_core.session.target import TargetList
from spmtrack_core.tracking.followed import Reason, State


class SharedState:
    """Targets, images and requests. Everything is read and changed while ``lock`` is held."""

    def __init__(self, buffer: FrameBuffer, limits: Limits, enabled: bool) -> None:
        self.lock = threading.RLock()
        self.work = threading.Condition(self.lock)
        """Wakes the worker."""
        self.alarm = threading.Condition(self.lock)
        """Wakes the thread that keeps deadlines."""
        self.limits, self.enabled, self.closed = limits, enabled, False
        self.targets = TargetList()
        self.buffer = buffer
        self.requests = RequestQueue(buffer)
        self.waiting: Frame | None = None
        """The image that the worker takes next."""
        self.reported = 0
        """Number of the newest frame that was reported."""
        self.report: FrameReport | None = None
        self.first_after_jump = 0
        """Number of the newest frame that is no successor of the one before."""
        self.busy_since = 0.0
        """s of the monotonic clock, for the present image or start; 0 while the worker is idle."""
        self.last_arrival = 0.0
        """s of the monotonic clock; of the newest image that was not late."""
        self.counters = Counters()

    def snapshot(self) -> Snapshot:
        """The present state."""
        now = time.monotonic()
        return Snapshot(
            self.enabled,
            tuple(self.targets),
            self.targets.primary,
            self.counters,
            self.report,
            now,
            now - self.busy_since if self.busy_since else 0.0,
        )

    def count(self, received: int = 0, processed: int = 0, errors: int = 0) -> None:
        """Add to the totals."""
        totals = self.counters
        self.counters = replace(
            totals,
            received=totals.received + received,
            processed=totals.processed + processed,
            errors=totals.errors + errors,
        )

    def discard_images(self) -> None:
        """Forget the images that were not processed yet."""
        self.buffer.clear()
        self.waiting = None

    def reject_reason(self, pending: Pending) -> Reply | None:
        """Why a request must be rejected, regardless of its image; None if it need not."""
        if self.closed:
            return Reply(Code.CANCELLED, "the tracker is shutting down")
        if not self.enabled and not pending.patient:
            return Reply(Code.DISABLED, "tracking is disabled: enable it with ~/enable")
        return self.targets.reject_reason(pending.request, self.limits)

    def reply(self, pending: Pending) -> Reply:
        """The answer to a request whose target was started."""
        latest = self.targets.latest(pending.target)
        if latest is None:
            return Reply(Code.CANCELLED, "the target was removed while it was being started")
        text = "" if self.enabled else "started, but tracking was disabled meanwhile"
        if latest.state is State.LOST:
            text = "started, but lost again while catching up"
        box = pending.target.box_xywh if pending.target else latest.box_xywh
        return Reply(
            Code.OK, text, latest.id, latest.first_ns, latest.score, pending.frames_caught_up, box
        )

    def stale_time(self) -> float:
        """When targets become LOST if nothing is measured meanwhile; infinite if none can."""
        if not self.enabled or all(each.reason is Reason.NO_IMAGE for each in self.targets):
            return math.inf
        return min(self.last_arrival + self.limits.image_timeout, self.hang_time())

    def hang_time(self) -> float:
        """When the worker counts as hanging; infinite while it is idle.

        A network that takes longer for each image than the camera is slow, but works.
        """
        longest = max(self.limits.image_timeout, self.limits.processing_timeout)
        return self.busy_since + longest if self.busy_since else math.inf
