"""When targets of a session are lost, why, and how they come back."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from spmtrack_core.session.init_request import Limits
from spmtrack_core.tracking.followed import Reason, State
from test.spmtrack_core.session.bench import SECOND, until


def test_lost_keeps_id_and_last_box_and_found_again_is_the_same_target(bench):
    bench.tracker.lost = {3, 4}
    bench.push(1)
    reply = bench.start()
    seen = [bench.push(number).primary for number in (2, 3, 4, 5)]
    assert [target.state.name for target in seen] == ["TRACKING", "LOST", "LOST", "TRACKING"]
    assert {target.id for target in seen} == {reply.id}
    assert seen[2].box_xywh == seen[0].box_xywh


def test_many_late_answers_do_not_delay_the_loss_of_targets(make_bench):
    bench = make_bench(limits=Limits(image_timeout=0.2))
    bench.push(1)
    bench.start()
    bench.keep_busy_with(2)
    answers = [bench.init(timeout=0.1) for _ in range(200)]
    assert until(lambda: bench.changes and bench.changes[-1].reason is Reason.NO_IMAGE)
    assert not all(answer.done() for answer in answers)


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


def test_targets_are_not_stale_while_tracking_is_disabled(make_bench):
    bench = make_bench(limits=Limits(image_timeout=0.05))
    bench.push(1)
    bench.start()
    bench.session.enable(False)
    time.sleep(0.15)
    assert bench.target.state is State.TRACKING
    bench.session.enable(True)
    assert until(lambda: bench.target.reason is Reason.NO_IMAGE)


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


def test_images_of_another_aspect_are_a_reason(bench):
    start = bench.tracker.start
    bench.tracker.start = lambda *given: SimpleNamespace(number=start(*given), lost_reason="size")
    bench.tracker.lost = {2}
    bench.push(1)
    bench.start()
    assert bench.push(2).primary.reason is Reason.IMAGE_SIZE_CHANGED


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
