"""A session with a tracker that does what the test says, frame by frame."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from spmtrack_core.session.image_step import ImageStep
from spmtrack_core.session.init_request import InitRequest
from spmtrack_core.session.listeners import Listeners
from spmtrack_core.session.session import Session

BOX = (10.0, 20.0, 30.0, 40.0)
SECOND = 1_000_000_000


class FakeTracker:
    """Returns the frame's number, which is in its first pixel, as x of the box."""

    def __init__(self):
        self.log = []  # ("init" | "update", frame number)
        self.fails = set()  # entries of the log that raise
        self.lost = set()  # frame numbers without a visible target
        self.names = {}  # state by frame number
        self.started = 0  # handles are numbers
        self.followed = []  # (frame number, handles)
        self.gate = threading.Event()  # closed: the tracker is busy
        self.gate.set()
        self.gates = {}  # the same for single images
        self.entered = threading.Semaphore(0)

    def start(self, frame, box_xywh):
        self.box = box_xywh
        self._note("init", frame)
        self.started += 1
        return self.started

    def follow(self, frame, targets):
        number = self._note("update", frame)
        self.followed.append((number, list(targets)))
        name = "LOST" if number in self.lost else self.names.get(number, "TRACKING")
        box = (float(number), 20.0, 30.0, 40.0)
        result = SimpleNamespace(box_xywh=box, confidence=0.5, state=SimpleNamespace(name=name))
        return [result for _ in targets]

    def forget_motion(self, targets):
        self.log.append(("forget", list(targets)))

    def _note(self, what, frame):
        number = int(frame[0, 0, 0])
        self.log.append((what, number))
        self.entered.release()
        assert self.gate.wait(10) and self.gates.get(number, self.gate).wait(10)
        if (what, number) in self.fails:
            raise RuntimeError("out of memory")
        return number


class Bench:
    """A session, its tracker and its output."""

    def __init__(self, **options):
        self.tracker = FakeTracker()
        self.reports, self.errors, self.warnings, self.changes = [], [], [], []
        self.arrived = threading.Condition()
        self.listeners = Listeners(
            self.note,
            lambda: self.changes.append(self.target),
            self.errors.append,
            self.warnings.append,
        )
        self.step = ImageStep(self.tracker, self.decode, self.check)
        self.session = Session(self.step, self.listeners, **options)

    @property
    def target(self):
        """The primary target."""
        return self.session.snapshot().primary

    @property
    def ids(self):
        return [target.id for target in self.session.snapshot().targets]

    def decode(self, message):
        if message == "broken":
            raise ValueError("image encoding 'yuv' is not supported")
        return np.full((100, 200, 3), message, np.uint8)

    def check(self, message):
        if message == "broken":
            raise ValueError("image encoding 'yuv' is not supported")

    def note(self, report):
        with self.arrived:
            self.reports.append(report)
            self.arrived.notify_all()

    def push(self, number, wait=True):
        """An image whose stamp is its number in seconds; returns when it has been reported."""
        self.session.push(number * SECOND, number, "camera")
        if wait:
            self.wait_for(number)
        return self.reports[-1] if wait else None

    def wait_for(self, number):
        with self.arrived:
            ready = self.arrived.wait_for(lambda: number in self.reported, 5)
        assert ready, f"{number} not among {self.reported}"

    def keep_busy_with(self, number):
        """Returns when the tracker is at work on this image; it goes on when the gate opens."""
        while self.tracker.entered.acquire(blocking=False):
            pass
        self.tracker.gate.clear()
        self.push(number, wait=False)
        assert self.tracker.entered.acquire(timeout=5)

    def set_clock_back(self):
        """Images of a clock that starts at 1 s again; returns the first that counts."""
        for number in range(1, 200):
            self.push(number, wait=False)
            if until(lambda number=number: self.reported[-1] == number, 0.02):
                return number
        pytest.fail("no image counts after the clock was set back")

    @property
    def reported(self):
        return [report.frame.message for report in self.reports]

    def init(self, box=BOX, timeout=5.0, **options):
        return self.session.init(InitRequest(box, **options), timeout)

    def start(self, box=BOX, **options):
        return self.init(box, **options).result(5)


SECOND_BOX = (100.0, 20.0, 30.0, 40.0)


def until(condition, timeout=5.0):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()
