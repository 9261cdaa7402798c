"""A session from image to report: one target, failures, listeners and counters."""

from __future__ import annotations

import threading
import time

from spmtrack_core.session.init_request import Code
from spmtrack_core.session.snapshot import Counters
from spmtrack_core.tracking.followed import State
from test.spmtrack_core.session.bench import SECOND, until


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


def test_a_tracker_that_fails_in_one_image_loses_the_target_there_only(bench):
    bench.push(1)
    bench.start()
    bench.tracker.fails = {("update", 2)}
    report = bench.push(2)
    assert report.primary.state is State.LOST and "out of memory" in report.error
    assert bench.push(3).primary.state is State.TRACKING
    assert bench.session.snapshot().counters.errors == 1 and "out of memory" in bench.errors[0]


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


def test_the_tracker_time_is_part_of_the_processing_time(bench):
    bench.push(1)
    bench.start()
    for report in bench.reports[1:] + [bench.push(number) for number in (2, 3)]:
        assert 0 < report.inference <= report.seconds
        assert 0 < report.frame.arrival <= time.monotonic()


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


def test_a_broken_image_is_reported_without_a_target_too(bench):
    bench.session.push(1 * SECOND, "broken")
    bench.wait_for("broken")
    assert "yuv" in bench.reports[-1].error and "yuv" in bench.errors[-1]
    assert bench.session.snapshot().counters.errors == 1
