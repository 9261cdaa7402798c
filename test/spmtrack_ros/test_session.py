"""The session with a tracker that does what the test says, frame by frame."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from spmtrack_ros.session import Code, Counters, InitRequest, Session, State

BOX = (10.0, 20.0, 30.0, 40.0)
SECOND = 1_000_000_000


class FakeTracker:
    """Returns the frame's number, which is in its first pixel, as x of the box."""

    def __init__(self):
        self.log = []  # ("init" | "update", frame number)
        self.fails = set()  # entries of the log that raise
        self.lost = set()  # frame numbers without a visible target
        self.gate = threading.Event()  # closed: the tracker is busy
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def init(self, frame, box_xywh):
        self.box = box_xywh
        self._note("init", frame)

    def update(self, frame):
        number = self._note("update", frame)
        name = "LOST" if number in self.lost else "TRACKING"
        box = (float(number), 20.0, 30.0, 40.0)
        return SimpleNamespace(box_xywh=box, confidence=0.5, state=SimpleNamespace(name=name))

    def _note(self, what, frame):
        number = int(frame[0, 0, 0])
        self.log.append((what, number))
        self.entered.release()
        assert self.gate.wait(10)
        if (what, number) in self.fails:
            raise RuntimeError("out of memory")
        return number


class Bench:
    """A session, its tracker and its output."""

    def __init__(self, **options):
        self.tracker = FakeTracker()
        self.reports, self.errors, self.changes = [], [], []
        self.arrived = threading.Condition()
        self.session = Session(
            self.tracker, self.decode, self.note, on_error=self.errors.append,
            on_change=lambda: self.changes.append(self.session.target), **options,
        )  # fmt: skip

    def decode(self, message):
        if message == "broken":
            raise ValueError("image encoding 'yuv' is not supported")
        return np.full((100, 200, 3), message, np.uint8)

    def note(self, report):
        with self.arrived:
            self.reports.append(report)
            self.arrived.notify_all()

    def push(self, number, wait=True):
        """An image whose stamp is its number in seconds; returns when it has been reported."""
        self.session.push(number * SECOND, number)
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

    @property
    def reported(self):
        return [report.frame.message for report in self.reports]

    def init(self, box=BOX, timeout=5.0, **options):
        return self.session.init(InitRequest(box, **options), timeout)

    def start(self, **options):
        return self.init(**options).result(5)


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
        assert not bench.session._worker.is_alive()


@pytest.fixture
def bench(make_bench):
    return make_bench()


def test_without_a_target_each_image_is_reported_and_none_is_decoded(bench):
    report = bench.push(1)
    assert (report.target, report.image, report.error) == (None, None, "")
    assert bench.session.counters == Counters(received=1, processed=1)
    assert bench.tracker.log == []


def test_a_target_is_followed(bench):
    bench.push(1)
    reply = bench.start(label="cat")
    assert (reply.code, reply.stamp_ns, reply.score) == (Code.OK, 1 * SECOND, 1.0)
    assert reply.frames_caught_up == 0
    report = bench.push(2)
    assert report.target.box_xywh == (2.0, 20.0, 30.0, 40.0)
    assert (report.target.id, report.target.label) == (reply.id, "cat")
    assert report.target.state is State.TRACKING
    assert bench.tracker.log == [("init", 1), ("update", 2)]


def test_lost_keeps_id_and_last_box_and_found_again_is_the_same_target(bench):
    bench.tracker.lost = {3, 4}
    bench.push(1)
    reply = bench.start()
    seen = [bench.push(number).target for number in (2, 3, 4, 5)]
    assert [target.state.name for target in seen] == ["TRACKING", "LOST", "LOST", "TRACKING"]
    assert {target.id for target in seen} == {reply.id}
    assert seen[2].box_xywh == seen[0].box_xywh


def test_a_new_target_gets_a_new_id_and_a_given_id_is_kept(bench):
    bench.push(1)
    first, second = bench.start().id, bench.start().id
    assert first and second and first != second
    assert bench.start(id="mine").id == "mine"
    assert bench.start(id="target-3").id == "target-3"
    assert bench.start().id == "target-4"


def test_newest_image_wins(bench):
    bench.push(1)
    bench.start()
    bench.keep_busy_with(2)
    for number in (3, 4, 5):
        bench.push(number, wait=False)
    bench.tracker.gate.set()
    bench.wait_for(5)
    assert bench.reported == [1, 2, 5]
    assert bench.session.counters.dropped == 2


def test_start_on_an_earlier_image_catches_up_and_repeats_nothing(bench):
    for number in range(1, 7):
        bench.push(number)
    reply = bench.start(stamp_ns=3 * SECOND)
    assert (reply.code, reply.stamp_ns, reply.frames_caught_up) == (Code.OK, 3 * SECOND, 3)
    assert bench.tracker.log == [("init", 3), ("update", 4), ("update", 5), ("update", 6)]
    assert bench.session.target.box_xywh[0] == 6.0
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
    answer = bench.init(stamp_ns=3 * SECOND, id="new")
    assert not answer.done()  # the result is not known yet
    bench.tracker.gate.set()
    reply = answer.result(5)
    assert (reply.code, reply.id, reply.frames_caught_up) == (Code.OK, "new", 1)
    assert bench.tracker.log[-2:] == [("init", 3), ("update", 4)]
    bench.push(5)
    assert bench.reported == [1, 2, 3, 4, 5]  # 4 was waiting, and is not processed twice
    assert bench.reports[2].target.box_xywh == BOX


def test_init_waits_for_its_image(bench):
    newest, named = bench.init(), bench.init(stamp_ns=2 * SECOND)
    time.sleep(0.05)
    assert not newest.done()
    bench.push(1)
    assert newest.result(5).stamp_ns == 1 * SECOND
    assert not named.done()
    bench.push(2)
    assert named.result(5).stamp_ns == 2 * SECOND


@pytest.mark.parametrize(
    ("stamps", "request_", "code", "words"),
    [
        ([], {"timeout": 0.05}, Code.NO_IMAGE, "no image"),
        ([], {"stamp_ns": 5, "timeout": 0.05}, Code.NO_IMAGE, "no image"),
        ([4, 5], {"stamp_ns": 9 * SECOND, "timeout": 0.05}, Code.STAMP_NOT_BUFFERED, "9.0"),
        ([4, 6], {"stamp_ns": 5 * SECOND}, Code.STAMP_NOT_BUFFERED, "4.0"),
        ([4, 5], {"stamp_ns": 1 * SECOND}, Code.STAMP_NOT_BUFFERED, "holds 2"),
        ([1], {"box": (float("nan"), 0, 5, 5)}, Code.INVALID_BOX, "finite"),
        ([1], {"box": (0, 0, float("inf"), 5)}, Code.INVALID_BOX, "finite"),
        ([], {"box": (0, 0, 0, 5)}, Code.INVALID_BOX, "positive"),  # even without an image
        ([1], {"box": (0, 0, 5, -5)}, Code.INVALID_BOX, "positive"),
        ([1], {"box": (500, 20, 30, 40)}, Code.BOX_OUTSIDE_IMAGE, "200 x 100"),
        ([1], {"box": (1.5, 0, 1, 1), "normalized": True}, Code.BOX_OUTSIDE_IMAGE, "200 x 100"),
        ([1], {"box": (0, 0, 1e308, 1), "normalized": True}, Code.INVALID_BOX, "finite"),
        ([1], {"box": (50, 50, 1e-4, 5)}, Code.INVALID_BOX, "no target"),  # too small, not outside
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
    assert bench.session.target is None and bench.tracker.log == []
    assert bench.push(50).error == ""


def test_normalized_box(bench):
    bench.push(1)
    assert bench.start(box=(0.5, 0.1, 0.25, 0.5), normalized=True).code is Code.OK
    assert bench.tracker.box == (100.0, 10.0, 50.0, 50.0)


def test_the_buffer_is_bounded(make_bench):
    bench = make_bench(buffer_size=3)
    for number in range(1, 6):
        bench.push(number)
    assert bench.start(stamp_ns=2 * SECOND).code is Code.STAMP_NOT_BUFFERED
    assert bench.start(stamp_ns=3 * SECOND).frames_caught_up == 2


def test_a_clock_that_jumps_back_empties_the_buffer(bench):
    for number in (8, 9, 1, 2):
        bench.push(number)
    assert bench.start(stamp_ns=8 * SECOND, timeout=0.05).code is Code.STAMP_NOT_BUFFERED
    assert bench.start(stamp_ns=1 * SECOND).frames_caught_up == 1


def test_a_tracker_that_fails_in_one_image_loses_the_target_there_only(bench):
    bench.push(1)
    bench.start()
    bench.tracker.fails = {("update", 2)}
    report = bench.push(2)
    assert report.target.state is State.LOST and "out of memory" in report.error
    assert bench.push(3).target.state is State.TRACKING
    assert bench.session.counters.errors == 1 and "out of memory" in bench.errors[0]


def test_a_tracker_that_fails_to_start_leaves_no_target(bench):
    bench.push(1)
    bench.start()
    bench.tracker.fails = {("init", 2)}
    bench.push(2)
    reply = bench.start()
    assert reply.code is Code.INTERNAL_ERROR and "out of memory" in reply.message
    assert bench.push(3).target is None
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
    assert bench.push(4).target.state is State.TRACKING


def test_a_listener_that_fails_does_not_end_the_worker(bench):
    note, failures = bench.session._on_report, iter([RuntimeError("publisher is gone")])

    def listener(report):
        for failure in failures:
            raise failure
        note(report)

    bench.session._on_report = listener
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
    assert bench.session.target is not None
    assert bench.session.remove(target).id == target
    assert bench.push(2).target is None


@pytest.mark.parametrize("how", ["remove", "reset"])
def test_removed_while_inference_runs_stays_removed(bench, how):
    bench.push(1)
    bench.start()
    bench.keep_busy_with(2)
    getattr(bench.session, how)()
    bench.tracker.gate.set()
    bench.wait_for(2)
    assert bench.reports[-1].target is None and bench.session.target is None


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
    assert bench.session.target is None


def test_switched_off_ignores_images_and_keeps_the_target(bench):
    bench.push(1)
    bench.start()
    waiting = bench.init(stamp_ns=9 * SECOND)
    bench.session.enable(False)
    assert waiting.result(5).code is Code.DISABLED
    bench.push(2, wait=False)
    assert bench.start().code is Code.DISABLED
    bench.session.enable(True)
    assert bench.push(3).target.state is State.TRACKING
    assert bench.reported == [1, 3]


@pytest.fixture
def clock(monkeypatch):
    """The session's clock, in s, as a list of one number."""
    now = [100.0]
    fake = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    monkeypatch.setattr("spmtrack_ros.session.time", fake)
    return now


def test_a_slow_tracker_goes_on_with_the_newest_image_at_the_deadline(clock, bench):
    for number in range(1, 6):
        bench.push(number)
    bench.tracker.gate.clear()
    answer = bench.init(stamp_ns=1 * SECOND, timeout=1.0)
    assert bench.tracker.entered.acquire(timeout=5)
    clock[0] += 2
    bench.tracker.gate.set()
    reply = answer.result(5)
    assert (reply.code, reply.frames_caught_up) == (Code.OK, 1)
    assert bench.tracker.log == [("init", 1), ("update", 5)]


def test_of_many_images_some_are_caught_up_in_even_steps(bench):
    for number in range(1, 31):
        bench.push(number)
    reply = bench.start(stamp_ns=2 * SECOND)
    numbers = [number for _, number in bench.tracker.log]
    assert numbers == [2, 6, 10, 14, 18, 22, 26, 30]
    assert reply.frames_caught_up == 7


def test_a_request_that_the_busy_tracker_came_to_too_late_changes_nothing(clock, bench):
    bench.push(1)
    target = bench.start().id
    bench.keep_busy_with(2)
    answer = bench.init(timeout=1.0)
    clock[0] += 2
    bench.tracker.gate.set()
    reply = answer.result(5)
    assert reply.code is Code.CANCELLED and "busy" in reply.message
    assert bench.push(3).target.id == target


def test_a_target_lost_again_while_catching_up_is_said_to_be(bench):
    for number in (1, 2, 3):
        bench.push(number)
    bench.tracker.lost = {3}
    reply = bench.start(stamp_ns=1 * SECOND)
    assert (reply.code, reply.score) == (Code.OK, 0.5) and "lost again" in reply.message
    assert bench.session.target.state is State.LOST


def test_a_box_that_the_tracker_refuses_keeps_the_target(bench):
    bench.push(1)
    target = bench.start().id

    def refuse(frame, box_xywh):
        raise ValueError("too small")

    bench.tracker.init = refuse
    assert bench.start().code is Code.INVALID_BOX
    assert bench.push(2).target.id == target and bench.errors == []


def test_switched_off_before_the_tracker_has_the_new_target(bench):
    bench.push(1)
    target = bench.start().id
    decode = bench.session._decode

    def decode_and_switch_off(message):
        bench.session.enable(False)
        return decode(message)

    bench.session._decode = decode_and_switch_off
    assert bench.start().code is Code.DISABLED
    assert bench.session.target.id == target
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
    assert bench.session.target.id == bench.changes[-1].id == "new"
    bench.session.enable(True)
    assert bench.push(2).target.id == "new"


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
    assert not answer.done() and bench.session.counters.errors >= 1
    assert "yuv" in bench.errors[-1]
    before = time.process_time()
    time.sleep(0.2)  # the broken one is not tried again and again
    assert time.process_time() - before < 0.1
    bench.push(3)
    assert answer.result(5).stamp_ns == 3 * SECOND and bench.session.target.frame.number == 3


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
    assert len(bench.session._pending) == 1
    assert {answer.result(0).code for answer in answers[1:-1]} == {Code.CANCELLED}
    bench.tracker.gate.set()
    assert answers[-1].result(5).id == "49"


@pytest.mark.parametrize("how", ["remove", "reset", "enable"])
def test_what_is_removed_just_before_it_is_published_is_not(bench, how):
    bench.push(1)
    bench.start()
    report_now, done = bench.session._report, threading.Event()

    def report_late(report):
        getattr(bench.session, how)(*([False] if how == "enable" else []))
        report_now(report)
        done.set()

    bench.session._report = report_late
    bench.push(2, wait=False)
    assert done.wait(5)
    targets = [report.target for report in bench.reports]
    assert targets == ([None] if how == "enable" else [None, None])


def test_listeners_are_called_one_at_a_time(bench):
    entered, go_on, note = threading.Event(), threading.Event(), bench.session._on_report

    def slow(report):
        entered.set()
        assert go_on.wait(5)
        note(report)

    bench.session._on_report = slow
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
    counters = bench.session.counters
    assert (counters.received, counters.processed) == (249, len(bench.reported))
    assert bench.errors == []


def test_an_empty_buffer_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Session(FakeTracker(), None, None, buffer_size=0)
