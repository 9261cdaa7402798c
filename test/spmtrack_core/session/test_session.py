"""The session with a tracker that does what the test says, frame by frame."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from spmtrack_core.session.frame_buffer import FrameBuffer
from spmtrack_core.session.image_step import ImageStep
from spmtrack_core.session.init_request import Code, InitRequest, Limits
from spmtrack_core.session.listeners import Listeners
from spmtrack_core.session.session import Session
from spmtrack_core.session.snapshot import Counters
from spmtrack_core.tracking.followed import Reason, State

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


@pytest.fixture
def make_bench():
    benches = []

    def make(**options):
        benches.append(Bench(**options))
        return benches[-1]

    yield make
    for bench in benches:
        bench.tracker.gate.set()
        bench.session.close()
        for thread in bench.session._threads:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def bench(make_bench):
    return make_bench()


@pytest.mark.parametrize("point", [(50.0, 40.0), (0.25, 0.4)])
def test_a_target_about_a_point_gets_the_box_that_the_tracker_finds_there(bench, point):
    bench.push(1)
    normalized = point[0] < 1
    reply = bench.start((*point, 0.0, 0.0), point=True, normalized=normalized, label="cup")
    assert (reply.code, reply.box_xywh) == (Code.OK, (1.0, 20.0, 30.0, 40.0))
    assert bench.tracker.box == (1.0, 20.0, 30.0, 40.0)
    assert (bench.target.label, bench.target.first_ns) == ("cup", 1 * SECOND)


@pytest.mark.parametrize(
    ("point", "code", "said"),
    [
        ((200.0, 40.0), Code.BOX_OUTSIDE_IMAGE, "point x=200 y=40 is outside the image of 200 x"),
        ((-1.0, 40.0), Code.BOX_OUTSIDE_IMAGE, "outside the image"),
        ((np.nan, 40.0), Code.INVALID_BOX, "expected finite numbers"),
        ((50.0, 40.0), Code.BOX_TOO_SMALL, "init_min_side is 35 px"),
    ],
)
def test_a_point_that_cannot_be_followed_is_a_coded_answer(make_bench, point, code, said):
    bench = make_bench(limits=Limits(init_min_side=35.0))
    bench.push(1)
    reply = bench.start((*point, 0.0, 0.0), point=True)
    assert reply.code is code and said in reply.message
    assert bench.target is None


def test_a_proposal_that_fails_is_an_answer_as_well(bench):
    bench.tracker.fails.add(("update", 1))
    bench.push(1)
    reply = bench.start((50.0, 40.0, 0.0, 0.0), point=True)
    assert reply.code is Code.INTERNAL_ERROR
    assert "no box was proposed: RuntimeError: out of memory" in reply.message
    assert bench.errors == [reply.message]
    assert bench.start().code is Code.OK


def test_without_a_target_each_image_is_reported_and_none_is_decoded(bench):
    report = bench.push(1)
    assert (report.primary, report.image, report.error) == (None, None, "")
    assert bench.session.snapshot().counters == Counters(received=1, processed=1)
    assert bench.tracker.log == []


def test_a_target_is_followed(bench):
    bench.push(1)
    reply = bench.start(label="cat")
    assert (reply.code, reply.stamp_ns, reply.score) == (Code.OK, 1 * SECOND, 1.0)
    assert reply.frames_caught_up == 0
    report = bench.push(2)
    assert report.primary.box_xywh == (2.0, 20.0, 30.0, 40.0)
    assert (report.primary.id, report.primary.label) == (reply.id, "cat")
    assert report.primary.state is State.TRACKING
    assert bench.tracker.log == [("init", 1), ("update", 2)]


def test_lost_keeps_id_and_last_box_and_found_again_is_the_same_target(bench):
    bench.tracker.lost = {3, 4}
    bench.push(1)
    reply = bench.start()
    seen = [bench.push(number).primary for number in (2, 3, 4, 5)]
    assert [target.state.name for target in seen] == ["TRACKING", "LOST", "LOST", "TRACKING"]
    assert {target.id for target in seen} == {reply.id}
    assert seen[2].box_xywh == seen[0].box_xywh


def test_a_new_target_gets_a_new_id_and_a_given_id_is_kept(bench):
    bench.push(1)
    first, second = bench.start().id, bench.start().id
    assert first and second and first != second
    assert bench.start(id="mine").id == "mine"
    assert bench.start(id="target-3").id == "target-3"
    assert bench.start().id == "target-4"  # the next free one


def test_newest_image_wins(bench):
    bench.push(1)
    bench.start()
    bench.keep_busy_with(2)
    for number in (3, 4, 5):
        bench.push(number, wait=False)
    bench.tracker.gate.set()
    bench.wait_for(5)
    assert bench.reported == [1, 2, 5]
    assert bench.session.snapshot().counters.dropped == 2


def test_start_on_an_earlier_image_catches_up_and_repeats_nothing(bench):
    for number in range(1, 7):
        bench.push(number)
    reply = bench.start(stamp_ns=3 * SECOND)
    assert (reply.code, reply.stamp_ns, reply.frames_caught_up) == (Code.OK, 3 * SECOND, 3)
    assert bench.tracker.log == [("init", 3), ("update", 4), ("update", 5), ("update", 6)]
    assert bench.target.box_xywh[0] == 6.0
    # The last report is about the newest image, not about the image of the box.
    assert [target.frame.message for target in bench.changes] == [6]
    bench.push(7)
    assert bench.reported == [1, 2, 3, 4, 5, 6, 7]


def test_init_while_inference_runs_uses_the_images_of_that_time(bench):
    bench.push(1)
    bench.start()
    bench.keep_busy_with(2)
    for number in (3, 4):
        bench.push(number, wait=False)
    answer = bench.init(stamp_ns=3 * SECOND, label="new")
    assert not answer.done()  # the result is not known yet
    bench.tracker.gate.set()
    reply = answer.result(5)
    assert (reply.code, bench.target.label, reply.frames_caught_up) == (Code.OK, "new", 1)
    assert bench.tracker.log[-2:] == [("init", 3), ("update", 4)]
    bench.push(5)
    assert bench.reported == [1, 2, 3, 4, 5]  # 4 was waiting, and is not processed twice
    assert bench.reports[2].primary.box_xywh == BOX


def test_init_waits_for_its_image(bench):
    newest, named = bench.init(), bench.init(stamp_ns=2 * SECOND)
    time.sleep(0.05)
    assert not newest.done()
    bench.push(1)
    assert newest.result(5).stamp_ns == 1 * SECOND
    assert not named.done()
    bench.push(2)
    assert named.result(5).stamp_ns == 2 * SECOND


FINE_STAMP = {"stamp_ns": 1795731423_123456789, "timeout": 0.05}


@pytest.mark.parametrize(
    ("stamps", "request_", "code", "words"),
    [
        ([], {"timeout": 0.05}, Code.NO_IMAGE, "no image"),
        ([], {"stamp_ns": 5, "timeout": 0.05}, Code.NO_IMAGE, "no image"),
        (
            [4, 5],
            {"stamp_ns": 9 * SECOND, "timeout": 0.05},
            Code.STAMP_NOT_BUFFERED,
            "9.000000000",
        ),
        ([4, 6], {"stamp_ns": 5 * SECOND}, Code.STAMP_NOT_BUFFERED, "4.0"),
        # to the nanosecond, of which a float of a present time has a hundred
        ([4, 6], FINE_STAMP, Code.STAMP_NOT_BUFFERED, "3.123456789 is"),
        ([4, 5], {"stamp_ns": 1 * SECOND}, Code.STAMP_NOT_BUFFERED, "holds 2"),
        ([1], {"box": (float("nan"), 0, 5, 5)}, Code.INVALID_BOX, "finite"),
        ([1], {"box": (0, 0, float("inf"), 5)}, Code.INVALID_BOX, "finite"),
        ([], {"box": (0, 0, 0, 5)}, Code.INVALID_BOX, "positive"),  # even without an image
        ([1], {"box": (0, 0, 5, -5)}, Code.INVALID_BOX, "positive"),
        ([1], {"box": (500, 20, 30, 40)}, Code.BOX_OUTSIDE_IMAGE, "200 x 100"),
        ([1], {"box": (-500, -500, 30, 40)}, Code.BOX_OUTSIDE_IMAGE, "200 x 100"),
        ([1], {"box": (-500, 0, 30, 1)}, Code.BOX_OUTSIDE_IMAGE, "200 x 100"),
        ([1], {"box": (1.5, 0, 1, 1), "normalized": True}, Code.BOX_OUTSIDE_IMAGE, "200 x 100"),
        ([1], {"box": (0, 0, 1e308, 1), "normalized": True}, Code.INVALID_BOX, "finite"),
        ([1], {"box": (50, 50, 3.9, 5)}, Code.BOX_TOO_SMALL, "init_min_side is 4 px"),
        ([1], {"box": (-5, -5, 300, 200)}, Code.BOX_TOO_LARGE, "covers 1 of the image"),
        ([1], {"box": (0, 50, 401, 20)}, Code.BOX_TOO_LARGE, "more than 2 times"),
        ([1], {"id": "a" * 65}, Code.INVALID_ID, "id has 65 characters"),
        ([1], {"id": "a\nb"}, Code.INVALID_ID, "no control characters"),
        ([1], {"label": "b" * 257}, Code.INVALID_ID, "label has 257"),
        ([1], {"frame_id": "map"}, Code.WRONG_FRAME_ID, "but that of the image 'camera'"),
        ([1], {"box": (0.4, 0.4, 0.2, 0.2)}, Code.INVALID_BOX, "set normalized"),
        ([1], {"box": (0, 0, 1, 1)}, Code.INVALID_BOX, "set normalized"),  # the whole image
    ],
)
def test_refusals_change_nothing(bench, stamps, request_, code, words):
    for stamp in stamps:
        bench.push(stamp)
    reply = bench.start(**request_)
    assert reply.code is code and words in reply.message, reply
    assert (reply.id, reply.stamp_ns, reply.score) == ("", 0, 0.0)
    assert bench.target is None and bench.tracker.log == []
    assert bench.push(50).error == ""


def test_normalized_box(bench):
    bench.push(1)
    assert bench.start(box=(0.5, 0.1, 0.25, 0.5), normalized=True).code is Code.OK
    assert bench.tracker.box == (100.0, 10.0, 50.0, 50.0)


def test_the_buffer_is_bounded(make_bench):
    bench = make_bench(buffer=FrameBuffer(3))
    for number in range(1, 6):
        bench.push(number)
    assert bench.start(stamp_ns=2 * SECOND).code is Code.STAMP_NOT_BUFFERED
    assert bench.start(stamp_ns=3 * SECOND).frames_caught_up == 2


def test_a_clock_that_jumps_back_empties_the_buffer(bench):
    for number in (208, 209):
        bench.push(number)
    first = bench.set_clock_back()
    assert first >= 3  # the third late image in a row, or a later one
    assert bench.start(stamp_ns=208 * SECOND, timeout=0.05).code is Code.STAMP_NOT_BUFFERED
    assert bench.start(stamp_ns=(first - 2) * SECOND).frames_caught_up == 2  # none is lost


def test_a_tracker_that_fails_in_one_image_loses_the_target_there_only(bench):
    bench.push(1)
    bench.start()
    bench.tracker.fails = {("update", 2)}
    report = bench.push(2)
    assert report.primary.state is State.LOST and "out of memory" in report.error
    assert bench.push(3).primary.state is State.TRACKING
    assert bench.session.snapshot().counters.errors == 1 and "out of memory" in bench.errors[0]


def test_a_tracker_that_fails_to_start_keeps_the_present_target(bench):
    bench.push(1)
    target = bench.start().id
    bench.tracker.fails = {("init", 2)}
    bench.push(2)
    reply = bench.start()
    assert reply.code is Code.INTERNAL_ERROR and "out of memory" in reply.message
    assert bench.push(3).primary.id == target
    assert bench.start().code is Code.OK


def test_a_broken_image_is_reported_and_the_next_one_processed(bench):
    bench.session.push(1, "broken")
    bench.wait_for("broken")
    assert bench.start().code is Code.INVALID_IMAGE
    bench.push(2)
    assert bench.start().code is Code.OK
    bench.session.push(3 * SECOND, "broken")
    with bench.arrived:
        assert bench.arrived.wait_for(lambda: len(bench.reports) == 3, 5)
    assert "yuv" in bench.reports[-1].error
    assert bench.push(4).primary.state is State.TRACKING


def test_a_listener_that_fails_does_not_end_the_worker(bench):
    note, failures = bench.listeners.on_report, iter([RuntimeError("publisher is gone")])

    def listener(report):
        for failure in failures:
            raise failure
        note(report)

    bench.listeners.on_report = listener
    bench.push(1, wait=False)
    deadline = time.monotonic() + 5
    while not bench.errors and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "publisher is gone" in bench.errors[0]
    bench.push(2)


def test_remove(bench):
    bench.push(1)
    assert bench.session.remove().code is Code.OK  # nothing to remove is no failure
    target = bench.start().id
    assert bench.session.remove("other").code is Code.UNKNOWN_ID
    assert bench.target is not None
    assert bench.session.remove(target).id == target
    assert bench.push(2).primary is None


@pytest.mark.parametrize("how", ["remove", "reset"])
def test_removed_while_inference_runs_stays_removed(bench, how):
    bench.push(1)
    bench.start()
    bench.keep_busy_with(2)
    getattr(bench.session, how)()
    bench.tracker.gate.set()
    bench.wait_for(2)
    assert bench.reports[-1].primary is None and bench.target is None


@pytest.mark.parametrize("how", ["remove", "reset"])
def test_cancelled_while_the_target_is_being_started(bench, how):
    bench.push(1)
    bench.tracker.gate.clear()
    answer, behind = bench.init(), bench.init(stamp_ns=9 * SECOND)
    assert bench.tracker.entered.acquire(timeout=5)
    getattr(bench.session, how)()
    assert behind.result(5).code is Code.CANCELLED
    bench.tracker.gate.set()
    assert answer.result(5).code is Code.CANCELLED
    assert bench.target is None


def test_switched_off_ignores_images_and_keeps_the_target(bench):
    bench.push(1)
    bench.start()
    waiting = bench.init(stamp_ns=9 * SECOND)
    bench.session.enable(False)
    assert waiting.result(5).code is Code.DISABLED
    bench.push(2, wait=False)
    assert bench.start().code is Code.DISABLED
    bench.session.enable(True)
    assert bench.push(3).primary.state is State.TRACKING
    assert bench.reported == [1, 3]


def test_of_many_images_some_are_caught_up_in_even_steps(bench):
    for number in range(1, 31):
        bench.push(number)
    reply = bench.start(stamp_ns=2 * SECOND)
    numbers = [number for _, number in bench.tracker.log]
    assert numbers == [2, 6, 10, 14, 18, 22, 26, 30]
    assert reply.frames_caught_up == 7


def test_a_hanging_tracker_does_not_delay_the_answer(bench):
    bench.push(1)
    target = bench.start().id
    bench.keep_busy_with(2)
    waiting, started = bench.init(timeout=0.05), bench.init(stamp_ns=9 * SECOND, timeout=0.05)
    assert waiting.result(5).code is Code.TIMEOUT
    assert started.result(5).code is Code.STAMP_NOT_BUFFERED
    bench.tracker.gate.set()
    assert bench.push(3).primary.id == target and bench.tracker.started == 1


def test_a_target_that_was_not_started_in_time_is_not_followed(bench):
    bench.push(1)
    target = bench.start().id
    bench.tracker.gate.clear()
    answer = bench.init(id="late", timeout=0.05)  # the tracker hangs in start()
    assert answer.result(5).code is Code.TIMEOUT
    bench.tracker.gate.set()
    bench.push(2)
    assert bench.ids == [target]


def test_a_target_that_was_started_in_time_is_reported_at_the_deadline(bench):
    for number in range(1, 6):
        bench.push(number)
    bench.tracker.gates[2] = threading.Event()
    reply = bench.init(stamp_ns=1 * SECOND, timeout=0.5).result(5)
    assert (reply.code, reply.frames_caught_up, reply.score) == (Code.OK, 0, 1.0)
    bench.tracker.gates[2].set()
    bench.push(6)  # after the deadline, only the newest image is caught up
    assert bench.tracker.log == [("init", 1), ("update", 2), ("update", 5), ("update", 6)]


def test_a_target_lost_again_while_catching_up_is_said_to_be(bench):
    for number in (1, 2, 3):
        bench.push(number)
    bench.tracker.lost = {3}
    reply = bench.start(stamp_ns=1 * SECOND)
    assert (reply.code, reply.score) == (Code.OK, 0.5) and "lost again" in reply.message
    assert bench.target.state is State.LOST


def test_a_box_that_the_tracker_refuses_keeps_the_target(bench):
    bench.push(1)
    target = bench.start().id

    def refuse(frame, box_xywh):
        raise ValueError("too small")

    bench.tracker.start = refuse
    assert bench.start().code is Code.INVALID_BOX
    assert bench.push(2).primary.id == target and bench.errors == []


def test_switched_off_before_the_tracker_has_the_new_target(bench):
    bench.push(1)
    target = bench.start().id
    decode = bench.step.decode

    def decode_and_switch_off(message):
        bench.session.enable(False)
        return decode(message)

    bench.step.decode = decode_and_switch_off
    assert bench.start().code is Code.DISABLED
    assert bench.target.id == target
    assert bench.tracker.log == [("init", 1)]


def test_switched_off_when_the_tracker_has_the_new_target(bench):
    bench.push(1)
    bench.tracker.gate.clear()
    answer = bench.init(id="new")
    assert bench.tracker.entered.acquire(timeout=5)
    bench.session.enable(False)
    bench.tracker.gate.set()
    reply = answer.result(5)
    assert reply.code is Code.OK and "disabled" in reply.message
    assert bench.target.id == bench.changes[-1].id == "new"
    bench.session.enable(True)
    assert bench.push(2).primary.id == "new"


def test_switched_off_while_an_image_is_in_work(bench):
    """Nobody sees what was measured in it: the image is not reported."""
    bench.push(1)
    bench.start()
    bench.push(2)
    bench.keep_busy_with(3)
    bench.session.enable(False)
    bench.tracker.gate.set()
    assert until(lambda: bench.session._state.busy_since == 0)
    assert bench.tracker.log[-1] == ("update", 3)
    assert bench.target.frame.message == bench.reported[-1] == 2
    bench.session.enable(True)
    assert bench.push(4).primary.frame.message == 4


def test_a_request_without_end_waits_until_tracking_is_switched_on(make_bench):
    bench = make_bench(enabled=False)
    answer = bench.init(timeout=float("inf"))
    bench.session.enable(True)
    bench.session.enable(False)
    bench.push(1, wait=False)
    assert not answer.done()
    bench.session.enable(True)
    bench.push(2)
    assert answer.result(5).stamp_ns == 2 * SECOND


def test_a_request_without_end_waits_for_an_image_that_can_be_read(bench):
    answer = bench.init(timeout=float("inf"))
    for number in (1, 2):  # as the first ones of some cameras
        bench.session.push(number * SECOND, "broken")
    bench.wait_for("broken")
    assert not answer.done() and bench.session.snapshot().counters.errors >= 1
    assert "yuv" in bench.errors[-1]
    before = time.process_time()
    time.sleep(0.2)  # the broken one is not tried again and again
    assert time.process_time() - before < 0.1
    bench.push(3)
    assert answer.result(5).stamp_ns == 3 * SECOND and bench.target.frame.number == 3


@pytest.mark.parametrize("how", ["remove", "reset", "close"])
def test_a_request_without_end_ends_with_everything_else(bench, how):
    answer = bench.init(timeout=float("inf"))
    bench.session.push(1 * SECOND, "broken")
    bench.wait_for("broken")
    getattr(bench.session, how)()
    assert answer.result(5).code is Code.CANCELLED


def test_of_requests_that_replace_each_other_only_the_newest_waits(bench):
    bench.push(1)
    bench.start()
    bench.keep_busy_with(2)
    answers = [None]
    for number in range(50):
        answers.append(bench.session.init(InitRequest(BOX, id=f"{number}"), 5.0, answers[-1]))
    assert len(bench.session._state.requests) == 1
    assert {answer.result(5).code for answer in answers[1:-1]} == {Code.CANCELLED}
    bench.tracker.gate.set()
    assert answers[-1].result(5).id == "49"


@pytest.mark.parametrize("how", ["remove", "reset", "enable"])
def test_what_is_removed_just_before_it_is_published_is_not(bench, how):
    bench.push(1)
    bench.start()
    report_now, done = bench.session._worker._publish, threading.Event()

    def report_late(*arguments):
        getattr(bench.session, how)(*([False] if how == "enable" else []))
        report_now(*arguments)
        done.set()

    bench.session._worker._publish = report_late
    bench.push(2, wait=False)
    assert done.wait(5)
    targets = [report.primary for report in bench.reports]
    assert targets == ([None] if how == "enable" else [None, None])


def test_listeners_are_called_one_at_a_time(bench):
    entered, go_on, note = threading.Event(), threading.Event(), bench.listeners.on_report

    def slow(report):
        entered.set()
        assert go_on.wait(5)
        note(report)

    bench.listeners.on_report = slow
    bench.push(1, wait=False)
    assert entered.wait(5)
    remover = threading.Thread(target=bench.session.remove)
    remover.start()
    remover.join(0.1)
    assert remover.is_alive() and bench.changes == []  # its answer comes after the publication
    go_on.set()
    remover.join(5)
    assert bench.changes == [None]


def test_close_answers_everyone_and_refuses_the_rest(make_bench):
    bench = make_bench()
    waiting = bench.init(timeout=float("inf"))
    bench.session.close()
    assert waiting.result(5).code is Code.CANCELLED
    assert bench.start().code is Code.CANCELLED
    bench.push(1, wait=False)
    assert bench.reports == []


@pytest.mark.parametrize("how", ["remove", "reset", "enable", "close", "deadline"])
def test_many_answers_leave_at_intervals_and_all_before_the_end(bench, how):
    """Clients of ROS services lose most of a burst."""
    bench.push(1)
    bench.start()
    bench.keep_busy_with(2)
    answers, times = [], []
    for _ in range(100):
        answers.append(bench.init(timeout=0.1 if how == "deadline" else 60.0))
        answers[-1].add_done_callback(lambda _: times.append(time.monotonic()))
    if how == "deadline":
        assert until(lambda: times)
    else:
        getattr(bench.session, how)(*([False] if how == "enable" else []))
    bench.session.close()
    codes = {answer.result(0).code for answer in answers}
    assert codes <= {Code.CANCELLED, Code.DISABLED, Code.TIMEOUT}
    assert max(times) - min(times) >= 0.15


def test_many_late_answers_do_not_delay_the_loss_of_targets(make_bench):
    bench = make_bench(limits=Limits(image_timeout=0.2))
    bench.push(1)
    bench.start()
    bench.keep_busy_with(2)
    answers = [bench.init(timeout=0.1) for _ in range(200)]
    assert until(lambda: bench.changes and bench.changes[-1].reason is Reason.NO_IMAGE)
    assert not all(answer.done() for answer in answers)


def test_a_waiting_session_uses_no_processor(bench):
    bench.init(timeout=float("inf"))
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_many_threads_at_once_leave_order_and_counts_right(bench):
    def clients():
        for _ in range(20):
            bench.init(timeout=1.0).result(5)
            bench.session.remove()

    threads = [threading.Thread(target=clients) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 250):
        bench.session.push(number * SECOND, number)
        time.sleep(0.0005)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    bench.wait_for(249)
    assert bench.reported == sorted(set(bench.reported))
    counters = bench.session.snapshot().counters
    assert (counters.received, counters.processed) == (249, len(bench.reported))
    assert bench.errors == []


SECOND_BOX = (100.0, 20.0, 30.0, 40.0)


def test_several_targets_share_one_pass_and_keep_their_order(bench):
    bench.push(1)
    first = bench.start().id
    bench.start(SECOND_BOX, id="second")
    bench.start(id="third")
    report = bench.push(2)
    assert bench.tracker.followed == [(2, [1, 2, 3])]
    assert [target.id for target in report.targets] == [first, "second", "third"]
    assert report.primary.id == first


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ("", ["target-2", "b", "c"]),  # an empty id replaces the primary target in its place
        ("b", ["a", "b", "c"]),  # a known id replaces that target
        ("d", ["a", "b", "c", "d"]),  # a new one is added
    ],
)
def test_which_target_a_request_replaces(bench, given, ids):
    bench.push(1)
    for each in "abc":
        bench.start(id=each)
    bench.session._state.targets._ids_made = 1
    before = {target.id: target.handle for target in bench.session.snapshot().targets}
    assert bench.start(id=given).code is Code.OK
    after = {target.id: target.handle for target in bench.session.snapshot().targets}
    assert list(after) == ids
    assert sum(after[each] != before.get(each) for each in after) == 1
    assert bench.target.id == ids[0]


def test_too_many_targets(make_bench):
    bench = make_bench(limits=Limits(max_targets=2))
    bench.push(1)
    for each in "ab":
        assert bench.start(id=each).code is Code.OK
    reply = bench.start(id="c")
    assert reply.code is Code.TOO_MANY_TARGETS and "max_targets is 2" in reply.message
    same = bench.start(id="of a detector", unless_followed=(BOX,))  # whose ids change
    assert same.code is Code.OK and same.unchanged
    assert bench.start(id="a").code is bench.start().code is Code.OK  # they replace others
    assert len(bench.ids) == 2


def test_set_primary(bench):
    assert bench.session.set_primary("").code is Code.UNKNOWN_ID
    bench.push(1)
    for each in "abc":
        bench.start(id=each)
    assert bench.session.set_primary("x").code is Code.UNKNOWN_ID
    assert bench.session.set_primary("b").code is Code.OK
    assert bench.push(2).primary.id == "b"
    replacing = bench.start().id  # without an id: instead of the primary one
    assert bench.ids == ["a", replacing, "c"] and bench.target.id == replacing
    bench.session.remove(replacing)
    assert bench.target.id == "a"
    bench.session.set_primary("c")
    bench.session.set_primary("")
    assert bench.target.id == "a"


def test_a_new_target_catches_up_without_the_others(bench):
    bench.push(1)
    bench.start(id="a")
    for number in (2, 3):
        bench.push(number)
    bench.start(SECOND_BOX, id="b", stamp_ns=2 * SECOND)
    assert bench.tracker.followed[-1] == (3, [2])
    report = bench.push(4)
    assert bench.tracker.followed[-1] == (4, [1, 2])
    assert [target.frame.message for target in report.targets] == [4, 4]


def test_the_image_of_a_new_target_is_processed_for_the_others_too(bench):
    bench.push(1)
    bench.start(id="a")
    bench.keep_busy_with(2)
    bench.push(3, wait=False)
    answer = bench.init(SECOND_BOX, id="b")
    bench.tracker.gate.set()
    assert answer.result(5).code is Code.OK
    assert bench.tracker.followed == [(2, [1]), (3, [1])]
    assert [target.id for target in bench.reports[-1].targets] == ["a", "b"]


def test_a_removed_target_leaves_the_others(bench):
    bench.push(1)
    for each in "abc":
        bench.start(id=each)
    bench.keep_busy_with(2)
    bench.session.remove("b")
    bench.tracker.gate.set()
    bench.wait_for(2)
    assert [target.id for target in bench.reports[-1].targets] == ["a", "c"]


def test_uncertain_is_visible_and_has_a_reason(bench):
    bench.tracker.names = {2: "UNCERTAIN"}
    bench.push(1)
    bench.start()
    target = bench.push(2).primary
    assert (target.state, target.reason) == (State.UNCERTAIN, Reason.LOW_CONFIDENCE)
    assert target.visible and target.frames_lost == 0 and target.last_seen_ns == 2 * SECOND
    assert bench.push(3).primary.reason is Reason.NONE


@pytest.mark.parametrize(
    ("box_before", "reason"),
    [((50.0, 20.0, 30.0, 40.0), Reason.LOW_CONFIDENCE), ((0.5, 20, 30, 40), Reason.LEFT_IMAGE)],
)
def test_a_loss_has_a_reason_and_is_counted(bench, box_before, reason):
    bench.tracker.lost = {2, 3}
    bench.push(1)
    bench.start(box_before)
    bench.push(2)
    target = bench.push(3).primary
    assert (target.state, target.reason, target.frames_lost) == (State.LOST, reason, 2)
    assert target.last_seen_ns == 1 * SECOND
    assert bench.push(4).primary.frames_lost == 0


def test_reasons_of_failures(bench):
    bench.push(1)
    bench.start()
    bench.tracker.fails = {("update", 2)}
    assert bench.push(2).primary.reason is Reason.INTERNAL_ERROR
    bench.session.push(3 * SECOND, "broken")
    bench.wait_for("broken")
    assert bench.reports[-1].primary.reason is Reason.INVALID_IMAGE


def until(condition, timeout=5.0):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_targets_are_lost_without_images_and_go_on_afterwards(make_bench):
    bench = make_bench(limits=Limits(image_timeout=0.1))
    bench.push(1)
    target = bench.start().id
    bench.push(2)
    for number in (3, 4):  # also the second time
        assert until(lambda: bench.target.state is State.LOST)
        assert bench.target.reason is Reason.NO_IMAGE
        assert until(lambda: bench.changes[-1].reason is Reason.NO_IMAGE)  # was published
        count = len(bench.changes)
        time.sleep(0.2)
        assert len(bench.changes) == count  # once
        seen = bench.push(number).primary
        assert (seen.id, seen.state, seen.reason) == (target, State.TRACKING, Reason.NONE)


def test_targets_are_lost_again_after_an_image_that_took_longer_than_the_timeout(make_bench):
    bench = make_bench(limits=Limits(image_timeout=0.1))
    bench.push(1)
    bench.start()
    bench.keep_busy_with(2)
    assert until(lambda: bench.target.reason is Reason.NO_IMAGE)
    bench.tracker.gate.set()
    bench.wait_for(2)
    assert bench.reports[-1].primary.state is State.TRACKING
    assert until(lambda: bench.target.reason is Reason.NO_IMAGE)


@pytest.mark.parametrize(
    ("image_timeout", "processing_timeout", "state"),
    [
        (0.3, 0.2, State.LOST),  # it hangs
        (0.5, 60.0, State.TRACKING),  # a slow network
        (60.0, 0.1, State.TRACKING),  # nor is it lost before image_timeout
    ],
)
def test_targets_are_lost_while_the_tracker_hangs_although_images_arrive(
    make_bench, image_timeout, processing_timeout, state
):
    bench = make_bench()
    bench.push(1)
    target = bench.start().id
    bench.session.limits = Limits(
        image_timeout=image_timeout, processing_timeout=processing_timeout
    )
    bench.keep_busy_with(2)
    for number in range(3, 63):
        bench.push(number, wait=False)
        time.sleep(0.01)
    assert bench.target.state is state
    lost = state is State.LOST
    assert [each.reason for each in bench.changes[1:]] == [Reason.NO_IMAGE] * lost
    assert len(bench.warnings) == lost and all("for so long" in each for each in bench.warnings)
    bench.tracker.gate.set()
    bench.wait_for(62)
    assert (bench.target.id, bench.target.state) == (target, State.TRACKING)


def test_the_tracker_time_is_part_of_the_processing_time(bench):
    bench.push(1)
    bench.start()
    for report in bench.reports[1:] + [bench.push(number) for number in (2, 3)]:
        assert 0 < report.inference <= report.seconds
        assert 0 < report.frame.arrival <= time.monotonic()


def test_targets_are_not_stale_while_tracking_is_disabled(make_bench):
    bench = make_bench(limits=Limits(image_timeout=0.05))
    bench.push(1)
    bench.start()
    bench.session.enable(False)
    time.sleep(0.15)
    assert bench.target.state is State.TRACKING
    bench.session.enable(True)
    assert until(lambda: bench.target.reason is Reason.NO_IMAGE)


def test_a_detection_of_a_followed_target_changes_nothing(bench):
    bench.push(1)
    target = bench.start().id
    again = (12.0, 21.0, 30.0, 40.0)
    for box, known in ((again, (again,)), (SECOND_BOX, (SECOND_BOX, again))):
        reply = bench.start(box, unless_followed=known)
        assert (reply.code, reply.id, reply.unchanged) == (Code.OK, target, True)
    assert bench.tracker.started == 1
    assert not bench.start(SECOND_BOX, unless_followed=(SECOND_BOX,)).unchanged
    assert bench.tracker.started == 2


def test_a_detection_where_a_target_was_lost_starts_a_new_one(bench):
    bench.tracker.lost = {2}
    bench.push(1)
    lost = bench.start().id
    bench.push(2)
    reply = bench.start(unless_followed=(BOX,))
    assert not reply.unchanged and reply.id != lost


def test_a_detection_that_is_sent_again_while_its_target_is_started(bench):
    bench.push(1)
    bench.tracker.gate.clear()
    first = bench.init(unless_followed=(BOX,))
    assert bench.tracker.entered.acquire(timeout=5)
    second = bench.init(unless_followed=(BOX,))
    bench.tracker.gate.set()
    assert first.result(5).id == second.result(5).id and second.result().unchanged


def test_a_clock_jump_is_reported_once(bench):
    for number in (208, 209):
        bench.push(number)
    first = bench.set_clock_back()
    bench.push(first + 1)
    assert bench.warnings == [
        f"the stamps of the images jumped back by {209 - first}.000 s: images of later stamps "
        "were discarded"
    ]


@pytest.mark.parametrize("late", [0.05, 1.0])
def test_a_single_late_image_is_dropped_and_counted_and_nothing_else(bench, late):
    bench.push(8)
    bench.start()
    bench.push(9)
    bench.session.push(int((9 - late) * SECOND), 1)
    bench.push(10)
    assert bench.start(stamp_ns=8 * SECOND).frames_caught_up == 2
    assert bench.reported == [8, 9, 10] and bench.warnings == []
    assert bench.session.snapshot().counters.dropped == 1
    assert not any(what == "forget" for what, _ in bench.tracker.log)


def test_targets_are_lost_while_all_images_are_late(make_bench):
    bench = make_bench(limits=Limits(image_timeout=0.2))
    bench.push(200)
    target = bench.start().id
    for number in range(199, 99, -1):  # never in order, so that they are no new clock
        bench.push(number, wait=False)
        if until(lambda: bench.target.reason is Reason.NO_IMAGE, 0.02):
            break
    assert bench.target.state is State.LOST
    report = bench.push(201)
    assert (report.primary.id, report.primary.state) == (target, State.TRACKING)


def test_two_cameras_on_one_topic_neither_fill_the_log_nor_reset_the_target(bench):
    bench.push(100)
    bench.start()
    for number in range(101, 130):  # the other camera's stamps are 50 s older
        bench.push(number)
        bench.push(number - 50, wait=False)
    assert bench.reported == list(range(100, 130)) and bench.warnings == []
    assert not any(what == "forget" for what, _ in bench.tracker.log)


def test_a_clock_that_does_not_come_to_rest_is_one_warning(bench):
    for ahead in (208, 209, 210):
        bench.push(ahead)
        bench.set_clock_back()
    assert len(bench.warnings) == 1


def test_a_snapshot_shows_a_busy_worker(bench):
    bench.push(1)
    bench.start()
    assert until(lambda: bench.session.snapshot().busy == 0)
    bench.keep_busy_with(2)
    time.sleep(0.02)
    assert bench.session.snapshot().busy >= 0.02
    assert bench.session.snapshot().report.frame.message == 1


def test_a_worker_that_catches_up_is_busy_with_one_image_at_a_time(bench):
    for number in range(1, 5):
        bench.push(number)
        bench.tracker.gates[number] = threading.Event()
    before = time.monotonic()
    answer = bench.init(stamp_ns=1 * SECOND)
    for number in range(1, 5):
        assert bench.tracker.entered.acquire(timeout=5)
        time.sleep(0.02)
        busy, now = bench.session.snapshot().busy, time.monotonic()
        assert 0.02 <= busy <= now - before  # no longer than since the image before
        before = now
        bench.tracker.gates[number].set()
    assert answer.result(5).frames_caught_up == 3


def test_reset_forgets_the_last_image_and_its_error(bench):
    bench.session.push(1 * SECOND, "broken")
    bench.wait_for("broken")
    assert until(lambda: bench.session.snapshot().report is not None)
    bench.session.reset()
    assert bench.session.snapshot().report is None


def test_close_answers_a_request_that_is_being_started(make_bench):
    bench = make_bench()
    bench.push(1)
    bench.tracker.gate.clear()
    answer = bench.init()
    assert bench.tracker.entered.acquire(timeout=5)
    bench.session.close()  # although the tracker hangs
    assert answer.result(0).code is Code.CANCELLED


def test_a_broken_image_is_reported_without_a_target_too(bench):
    bench.session.push(1 * SECOND, "broken")
    bench.wait_for("broken")
    assert "yuv" in bench.reports[-1].error and "yuv" in bench.errors[-1]
    assert bench.session.snapshot().counters.errors == 1


def test_a_clock_jump_resets_the_motion_of_all_targets_once(bench):
    bench.push(208)
    bench.start()
    bench.push(209)
    first = bench.set_clock_back()
    bench.push(first + 1)
    assert bench.tracker.log[1:] == [
        ("update", 209),
        ("forget", [1]),
        ("update", first),
        ("update", first + 1),
    ]


def test_a_clock_jump_resets_the_motion_of_each_target_in_its_own_next_image(bench):
    """The new target catches up through images before the jump, which the other one has seen."""
    bench.push(7)
    bench.start(id="a")
    for number in (8, 9):
        bench.push(number)
    bench.tracker.gates[8] = threading.Event()
    answer = bench.init(SECOND_BOX, id="b", stamp_ns=8 * SECOND)
    assert until(lambda: bench.tracker.log[-1] == ("init", 8))
    bench.session.cut()
    bench.push(1, wait=False)
    bench.tracker.gates[8].set()
    assert answer.result(5).code is Code.OK
    bench.wait_for(1)
    assert bench.tracker.log[-2:] == [("forget", [1, 2]), ("update", 1)]
    assert [what for what, _ in bench.tracker.log].count("forget") == 1


def test_an_unreadable_image_after_a_clock_jump_does_not_hide_the_jump(bench):
    bench.push(8)
    bench.start()
    bench.session.cut()
    bench.session.push(1 * SECOND, "broken")
    bench.wait_for("broken")
    bench.push(2)
    assert bench.tracker.log[1:] == [("forget", [1]), ("update", 2)]


def test_images_of_another_aspect_are_a_reason(bench):
    start = bench.tracker.start
    bench.tracker.start = lambda *given: SimpleNamespace(number=start(*given), lost_reason="size")
    bench.tracker.lost = {2}
    bench.push(1)
    bench.start()
    assert bench.push(2).primary.reason is Reason.IMAGE_SIZE_CHANGED


def test_a_cut_resets_the_motion_and_forgets_the_images_before_without_a_warning(bench):
    bench.push(8)
    bench.start()
    bench.session.cut()
    bench.push(7)  # a little earlier: not taken for one that was overtaken
    bench.push(9)
    assert bench.tracker.log[1:] == [("forget", [1]), ("update", 7), ("update", 9)]
    assert bench.init(stamp_ns=8 * SECOND).result(5).code is Code.STAMP_NOT_BUFFERED
    assert bench.warnings == []


def test_a_shorter_timeout_holds_at_once(make_bench):
    bench = make_bench(limits=Limits(image_timeout=float("inf")))
    bench.push(1)
    bench.start()
    time.sleep(0.1)
    assert bench.target.state is State.TRACKING
    begun = time.monotonic()
    bench.session.limits = Limits(image_timeout=0.05)
    assert until(lambda: bench.target.reason is Reason.NO_IMAGE)
    assert time.monotonic() - begun >= 0.05  # the time before does not count


def test_limits_set_again_and_again_put_off_no_loss(make_bench):
    bench = make_bench(limits=Limits(image_timeout=0.2))
    bench.push(1)
    bench.start()
    begun = time.monotonic()
    while time.monotonic() - begun < 10 and bench.target.state is State.TRACKING:
        bench.session.limits = Limits(image_timeout=0.2)
        time.sleep(0.05)
    assert bench.target.reason is Reason.NO_IMAGE
