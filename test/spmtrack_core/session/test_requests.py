"""Requests to start a target: their images, their answers, and when those come."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from spmtrack_core.session.frame_buffer import FrameBuffer
from spmtrack_core.session.init_request import Code, InitRequest, Limits
from spmtrack_core.tracking.followed import State
from test.spmtrack_core.session.bench import BOX, SECOND, until


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


def test_a_new_target_gets_a_new_id_and_a_given_id_is_kept(bench):
    bench.push(1)
    first, second = bench.start().id, bench.start().id
    assert first and second and first != second
    assert bench.start(id="mine").id == "mine"
    assert bench.start(id="target-3").id == "target-3"
    assert bench.start().id == "target-4"  # the next free one


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
        ([4, 5], {"stamp_ns": 1 * SECOND}, Code.STAMP_NOT_BUFFERED, "(frame_buffer)"),
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


def test_a_tracker_that_fails_to_start_keeps_the_present_target(bench):
    bench.push(1)
    target = bench.start().id
    bench.tracker.fails = {("init", 2)}
    bench.push(2)
    reply = bench.start()
    assert reply.code is Code.INTERNAL_ERROR and "out of memory" in reply.message
    assert bench.push(3).primary.id == target
    assert bench.start().code is Code.OK


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
