"""Targets that are removed, tracking that is switched off, and the end of a session."""

from __future__ import annotations

import threading

import pytest

from spmtrack_core.session.init_request import Code
from spmtrack_core.tracking.followed import State
from test.spmtrack_core.session.bench import SECOND, until


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


def test_close_answers_everyone_and_refuses_the_rest(make_bench):
    bench = make_bench()
    waiting = bench.init(timeout=float("inf"))
    bench.session.close()
    assert waiting.result(5).code is Code.CANCELLED
    assert bench.start().code is Code.CANCELLED
    bench.push(1, wait=False)
    assert bench.reports == []


def test_close_answers_a_request_that_is_being_started(make_bench):
    bench = make_bench()
    bench.push(1)
    bench.tracker.gate.clear()
    answer = bench.init()
    assert bench.tracker.entered.acquire(timeout=5)
    bench.session.close()  # although the tracker hangs
    assert answer.result(0).code is Code.CANCELLED
