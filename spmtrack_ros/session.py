"""The decisions of the node, free of ROS: which image is processed, and the state of the target.

One worker thread owns the tracker. :meth:`Session.push` never queues images: a new image replaces
the one that waits for the worker. Requests may come from any thread while inference runs. State
changes under one lock; the tracker runs outside of it.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Protocol

from spmtrack_core.geometry.boxes import check_box_xywh, misses_image
from spmtrack_ros.conversions import Image, normalized_to_pixels

BoxXywh = tuple[float, float, float, float]

# Replaying all buffered images takes long, and the images that arrive meanwhile would add up to
# one big jump at the end. A few images in even steps keep every jump small.
_MAX_REPLAYED = 8


class State(IntEnum):
    """State of a target; the numbers are those of ``msg/TrackState``."""

    IDLE = 0
    TRACKING = 1
    LOST = 2


class Code(IntEnum):
    """Result of a request; the numbers are those of ``srv/InitTarget`` and ``RemoveTarget``."""

    OK = 0
    NO_IMAGE = 1
    STAMP_NOT_BUFFERED = 2
    INVALID_BOX = 3
    BOX_OUTSIDE_IMAGE = 4
    INVALID_IMAGE = 5
    DISABLED = 6
    CANCELLED = 7
    UNKNOWN_ID = 8
    INTERNAL_ERROR = 255


class Tracker(Protocol):
    """The two methods that the session uses of ``spmtrack_core.load_tracker``'s tracker."""

    def init(self, frame: Image, box_xywh: BoxXywh) -> Any: ...

    def update(self, frame: Image) -> Any: ...


@dataclass(frozen=True)
class Frame:
    """One received image, not decoded yet."""

    number: int
    """Position in the order of arrival, from 1; unlike stamps it neither repeats nor jumps."""
    stamp_ns: int
    message: Any


@dataclass(frozen=True)
class Target:
    """The target, with its state in the newest processed image."""

    id: str
    label: str
    state: State
    score: float
    """Confidence, 0 to 1; 1 right after initialization."""
    box_xywh: BoxXywh
    """The box in ``frame``, or the last one seen while ``state`` is LOST."""
    frame: Frame
    """The image that this state was measured in."""


@dataclass(frozen=True)
class FrameReport:
    """Result of one processed image."""

    frame: Frame
    target: Target | None
    image: Image | None
    """The decoded image; None if decoding was not needed."""
    seconds: float
    """Duration of decoding and inference."""
    error: str = ""
    """Why the image could not be processed; empty if it was."""


@dataclass(frozen=True)
class InitRequest:
    """A target, given by its box in one image."""

    box_xywh: BoxXywh
    stamp_ns: int = 0
    """Stamp of the image that the box was drawn in; 0 means the newest image."""
    id: str = ""
    """Empty: the session generates one."""
    label: str = ""
    normalized: bool = False
    """The box is in parts of the image (0 to 1) instead of pixels."""


@dataclass(frozen=True)
class Reply:
    """Answer to a request; ``message`` is one sentence, empty if nothing is unusual."""

    code: Code
    message: str = ""
    id: str = ""
    stamp_ns: int = 0
    score: float = 0.0
    frames_caught_up: int = 0


@dataclass(frozen=True)
class Counters:
    """Totals since the start."""

    received: int = 0
    """Images that arrived while tracking was enabled."""
    processed: int = 0
    """Images that were reported, each once."""
    errors: int = 0

    @property
    def dropped(self) -> int:
        """Images skipped for a newer one; the image that waits now is included."""
        return self.received - self.processed


@dataclass(eq=False)
class _Pending:
    """A request that the worker has not started."""

    request: InitRequest
    deadline: float
    answer: Future[Reply] = field(default_factory=Future)
    after: int = 0
    """Number of the last image that could not be read for it."""


class Session:
    """Runs one tracker over the newest images and answers requests meanwhile.

    ``decode`` converts a message to an RGB image or raises ``ValueError``. ``on_report`` receives
    every reported image and runs in the worker thread, ``on_change`` is called after every other
    change of the state, ``on_error`` receives one sentence per failure; only one of them runs at a
    time. ``buffer_size`` is the number of images kept for requests that name an older one.
    """

    def __init__(
        self,
        tracker: Tracker,
        decode: Callable[[Any], Image],
        on_report: Callable[[FrameReport], None],
        on_change: Callable[[], None] = lambda: None,
        on_error: Callable[[str], None] = lambda text: None,
        buffer_size: int = 30,
        enabled: bool = True,
    ) -> None:
        if buffer_size < 1:
            raise ValueError(f"buffer_size is {buffer_size}: expected at least 1 image")
        self._tracker = tracker
        self._decode = decode
        self._on_report = on_report
        self._on_change = on_change
        self._on_error = on_error

        # Serializes listeners, so that an older state is never published after a newer one.
        self._listener_lock = threading.RLock()
        self._condition = threading.Condition()  # guards all of the below
        self._enabled = enabled
        self._closed = False
        self._target: Target | None = None
        self._epoch = 0  # counts resets; a target that is being started meanwhile is discarded
        self._recent: deque[Frame] = deque(maxlen=buffer_size)
        self._waiting: Frame | None = None
        self._reported = 0  # number of the newest frame that was reported
        self._pending: deque[_Pending] = deque()
        self._counters = Counters()
        self._ids_made = 0
        self._worker = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._worker.start()

    # Called from any thread

    @property
    def target(self) -> Target | None:
        """The target in the newest processed image, or None."""
        with self._condition:
            return self._target

    @property
    def enabled(self) -> bool:
        """Whether images are processed."""
        with self._condition:
            return self._enabled

    @property
    def counters(self) -> Counters:
        """Totals since the start."""
        with self._condition:
            return self._counters

    def push(self, stamp_ns: int, message: Any) -> None:
        """Add a new image; it replaces the one that waits for the worker."""
        with self._condition:
            if not self._enabled or self._closed:
                return
            received = self._counters.received + 1
            self._counters = replace(self._counters, received=received)
            if self._recent and stamp_ns < self._recent[-1].stamp_ns:
                self._recent.clear()  # the clock jumped back: old stamps mean other images now
            self._waiting = Frame(received, stamp_ns, message)
            self._recent.append(self._waiting)
            self._condition.notify_all()

    def init(
        self, request: InitRequest, timeout: float, instead_of: Future[Reply] | None = None
    ) -> Future[Reply]:
        """Follow a new target instead of the present one.

        The future is set when the target has been started in its image and has been tracked
        through some of the buffered images since then, up to the newest one. A request whose image
        has not arrived waits for it. After ``timeout`` seconds a request that still waits fails
        and changes nothing, and one that is catching up continues with the newest image. An
        infinite timeout also waits for :meth:`enable` and for a readable image. ``instead_of`` is
        the future of an earlier request, which is cancelled if it still waits.
        """
        pending = _Pending(request, time.monotonic() + timeout)
        replaced: list[_Pending] = []
        with self._condition:
            refusal = self._reject_reason(request.box_xywh, pending.deadline)
            if refusal is None:
                replaced = [each for each in self._pending if each.answer is instead_of]
                self._drop(replaced)
                self._pending.append(pending)
                self._condition.notify_all()
        if refusal is not None:
            _answer([pending], refusal)
        _answer(
            replaced,
            Reply(Code.CANCELLED, "a newer request replaced this one before it was started"),
        )
        return pending.answer

    def remove(self, target_id: str = "") -> Reply:
        """Stop following the target with this id; an empty id means any."""
        with self._condition:
            target = self._target
            if target_id and (target is None or target.id != target_id):
                now = f"the target is '{target.id}'" if target else "no target is followed"
                return Reply(Code.UNKNOWN_ID, f"no target has the id '{target_id}'; {now}")
            self._target = None
            pending = [] if target_id else self._forget_requests()
        _answer(pending, Reply(Code.CANCELLED, "all targets were removed meanwhile"))
        self._notify(self._on_change)
        return Reply(Code.OK, id=target.id if target else "")

    def reset(self) -> None:
        """Discard the target, the buffered images and the waiting requests."""
        with self._condition:
            self._target = None
            self._forget_images()
            pending = self._forget_requests()
        _answer(pending, Reply(Code.CANCELLED, "the tracker was reset meanwhile"))
        self._notify(self._on_change)

    def enable(self, enabled: bool) -> None:
        """Process or ignore images. The target is kept."""
        pending: list[_Pending] = []
        with self._condition:
            self._enabled = enabled
            if not enabled:
                self._forget_images()
                pending = [each for each in self._pending if math.isfinite(each.deadline)]
                self._drop(pending)
        _answer(pending, Reply(Code.DISABLED, "tracking was disabled meanwhile"))
        self._notify(self._on_change)

    def close(self, timeout: float = 10.0) -> None:
        """End the worker after the present image and cancel the waiting requests."""
        with self._condition:
            self._closed = True
            self._forget_images()
            pending = self._forget_requests()
            self._condition.notify_all()
        _answer(pending, Reply(Code.CANCELLED, "the tracker is shutting down"))
        self._worker.join(timeout)

    def _reject_reason(self, box_xywh: BoxXywh, deadline: float) -> Reply | None:
        """Why a request must be rejected, regardless of its image; None if it need not."""
        if self._closed:
            return Reply(Code.CANCELLED, "the tracker is shutting down")
        if not self._enabled and math.isfinite(deadline):
            return Reply(Code.DISABLED, "tracking is disabled: enable it with ~/enable")
        x, y, w, h = box_xywh
        if not all(map(math.isfinite, box_xywh)) or w <= 0 or h <= 0:
            text = f"box x={x:g} y={y:g} w={w:g} h={h:g}"
            return Reply(Code.INVALID_BOX, f"{text}: expected finite numbers and a positive size")
        return None

    def _forget_images(self) -> None:
        self._recent.clear()
        self._waiting = None

    def _forget_requests(self) -> list[_Pending]:
        self._epoch += 1
        forgotten = list(self._pending)
        self._pending.clear()
        return forgotten

    def _drop(self, requests: Iterable[_Pending]) -> None:
        for each in requests:
            self._pending.remove(each)

    # Called in the worker thread

    def _work(self) -> None:
        while True:
            with self._condition:
                ready = self._next_request()
                if self._closed:
                    return
                if ready is None and self._waiting is None:
                    self._condition.wait(self._seconds_to_deadline())
                    continue
                frame, epoch = self._waiting, self._epoch
                if ready is None:
                    self._waiting = None
            if ready is not None:
                pending, found = ready
                reply = found if isinstance(found, Reply) else self._start(pending, found, epoch)
                if reply is not None:
                    _answer([pending], reply)
            elif frame is not None:
                self._process(frame)

    def _next_request(self) -> tuple[_Pending, list[Frame] | Reply] | None:
        """Take the first request that can be started or answered."""
        for pending in self._pending:
            found = self._find(pending)
            if found is not None:
                self._pending.remove(pending)
                return pending, found
        return None

    def _find(self, pending: _Pending) -> list[Frame] | Reply | None:
        """The image of a request and all newer ones, a rejection, or None: wait for the image."""
        stamp_ns = pending.request.stamp_ns
        frames = [frame for frame in self._recent if frame.number > pending.after]
        if stamp_ns:
            stamps = [frame.stamp_ns for frame in frames]
            frames = frames[stamps.index(stamp_ns) :] if stamp_ns in stamps else []
        else:
            frames = frames[-1:]
        late = time.monotonic() >= pending.deadline
        if frames and late:
            return Reply(Code.CANCELLED, "the tracker was busy for longer than init_timeout")
        if frames:
            return frames
        if stamp_ns and self._recent and (late or stamp_ns < self._recent[-1].stamp_ns):
            oldest, newest = self._recent[0].stamp_ns / 1e9, self._recent[-1].stamp_ns / 1e9
            text = f"no image with the stamp {stamp_ns / 1e9:.9f} is in the buffer, which holds"
            text = f"{text} {len(self._recent)} from {oldest:.9f} to {newest:.9f}"
            return Reply(Code.STAMP_NOT_BUFFERED, text)
        return Reply(Code.NO_IMAGE, "no image has arrived") if late else None

    def _seconds_to_deadline(self) -> float | None:
        """Seconds until the next deadline, None if there is none."""
        deadline = min((pending.deadline for pending in self._pending), default=math.inf)
        return None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())

    def _start(self, pending: _Pending, frames: list[Frame], epoch: int) -> Reply | None:
        """Start the target in the first frame and catch up through the others.

        None: the frame is unreadable and the request, which has no deadline, waits for the next.
        """
        request, first = pending.request, frames[0]
        started = time.perf_counter()
        try:
            image = self._decode(first.message)
        except Exception as error:
            if math.isfinite(pending.deadline):
                return Reply(Code.INVALID_IMAGE, str(error))
            self._fail(f"no target started yet: {error}")
            pending.after = first.number
            with self._condition:
                if self._epoch == epoch:
                    self._pending.append(pending)
                    return None
            return Reply(Code.CANCELLED, "the target was removed while it was being started")
        box = request.box_xywh
        if request.normalized:
            box = normalized_to_pixels(box, image.shape[:2])
        elif max(box[0] + box[2], box[1] + box[3]) <= 1:
            text = f"box ({', '.join(f'{value:g}' for value in box)}) lies within the first pixel"
            return Reply(
                Code.INVALID_BOX, f"{text}: set normalized for a box in parts of the image"
            )
        with self._condition:
            refusal = self._reject_reason(box, pending.deadline)
        if refusal is not None:
            return refusal
        try:
            check_box_xywh(box, image.shape[:2])
        except ValueError as error:
            outside = misses_image(box, image.shape[:2])
            return Reply(Code.BOX_OUTSIDE_IMAGE if outside else Code.INVALID_BOX, str(error))
        try:
            self._tracker.init(image, box)
        except ValueError as error:  # the tracker has kept the present target
            return Reply(Code.INVALID_BOX, str(error))
        except Exception as error:
            # A tracker that failed half-way may have lost the present target as well.
            with self._condition:
                self._target = None
            text = f"the tracker did not start: {type(error).__name__}: {error}"
            self._fail(text)
            self._notify(self._on_change)
            return Reply(Code.INTERNAL_ERROR, text)

        with self._condition:
            if self._epoch != epoch:
                self._target = None
                return Reply(Code.CANCELLED, "the target was removed while it was being started")
            target = Target(self._new_id(request), request.label, State.TRACKING, 1.0, box, first)
            self._target = target
        self._report(FrameReport(first, target, image, time.perf_counter() - started))

        caught_up = 0
        latest: Target | None = target
        step = math.ceil(len(frames[1:]) / _MAX_REPLAYED) or 1
        replayed = frames[:0:-step][::-1]  # the newest is always among them
        for frame in replayed:
            with self._condition:
                stopped = self._epoch != epoch or not self._enabled
            if stopped or latest is None:
                break
            if frame is replayed[-1] or time.monotonic() < pending.deadline:
                latest = self._process(frame)
                caught_up += 1
        self._notify(self._on_change)
        with self._condition:
            enabled = self._enabled
            if self._target is None or latest is None:
                return Reply(Code.CANCELLED, "the target was removed while it was being started")
        text = "" if enabled else "started, but tracking was disabled meanwhile"
        if latest.state is State.LOST:
            text = "started, but lost again while catching up"
        return Reply(Code.OK, text, target.id, first.stamp_ns, latest.score, caught_up)

    def _process(self, frame: Frame) -> Target | None:
        """Track the target in one image; return the target with its new state."""
        before = self.target
        started = time.perf_counter()
        image, after, error = None, before, ""
        if before is not None:
            try:
                image = self._decode(frame.message)
                result = self._tracker.update(image)
                state = State[result.state.name]
                box = result.box_xywh if state is State.TRACKING else before.box_xywh
                score = float(result.confidence)
                after = replace(before, state=state, score=score, box_xywh=box, frame=frame)
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
                after = replace(before, state=State.LOST, score=0.0, frame=frame)
                self._fail(f"an image could not be processed: {error}")
        seconds = time.perf_counter() - started
        with self._condition:
            # Only this thread sets a target. A different one now means that it was removed.
            if self._target is not before:
                after = None
            self._target = after
        self._report(FrameReport(frame, after, image, seconds, error))
        return after

    def _report(self, report: FrameReport) -> None:
        """Report an image once, also if a target is started in an earlier image later."""
        with self._listener_lock:
            with self._condition:
                number = report.frame.number
                if self._waiting is not None and self._waiting.number <= number:
                    self._waiting = None
                if number <= self._reported or not self._enabled:
                    return
                self._reported = number
                self._counters = replace(self._counters, processed=self._counters.processed + 1)
                # A target removed before this line is not published. A later removal waits.
                report = replace(report, target=self._target)
            self._notify(self._on_report, report)

    def _new_id(self, request: InitRequest) -> str:
        if request.id:
            return request.id
        followed = self._target.id if self._target else ""
        made = followed
        while made in ("", followed):  # a client may have given such an id
            self._ids_made += 1
            made = f"target-{self._ids_made}"
        return made

    def _fail(self, text: str) -> None:
        with self._condition:
            self._counters = replace(self._counters, errors=self._counters.errors + 1)
        self._notify(self._on_error, text)

    def _notify(self, listener: Callable[..., None], *arguments: Any) -> None:
        """Call a listener. Its failure is reported and ends neither worker nor request."""
        with self._listener_lock:
            try:
                listener(*arguments)
            except Exception as error:
                if listener is not self._on_error:
                    text = f"publishing failed: {type(error).__name__}: {error}"
                    self._notify(self._on_error, text)


def _answer(pending: Iterable[_Pending], reply: Reply) -> None:
    for each in pending:
        with contextlib.suppress(InvalidStateError):  # cancelled by its owner
            each.answer.set_result(reply)
