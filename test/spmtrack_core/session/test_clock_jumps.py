"""Stamps that go back: late images, and a clock that was set back."""

from __future__ import annotations

import threading

import pytest

from spmtrack_core.session.init_request import Code
from test.spmtrack_core.session.bench import SECOND, SECOND_BOX, until


def test_a_clock_that_jumps_back_empties_the_buffer(bench):
    for number in (208, 209):
        bench.push(number)
    first = bench.set_clock_back()
    assert first >= 3  # the third late image in a row, or a later one
    assert bench.start(stamp_ns=208 * SECOND, timeout=0.05).code is Code.STAMP_NOT_BUFFERED
    assert bench.start(stamp_ns=(first - 2) * SECOND).frames_caught_up == 2  # none is lost


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


def test_a_cut_resets_the_motion_and_forgets_the_images_before_without_a_warning(bench):
    bench.push(8)
    bench.start()
    bench.session.cut()
    bench.push(7)  # a little earlier: not taken for one that was overtaken
    bench.push(9)
    assert bench.tracker.log[1:] == [("forget", [1]), ("update", 7), ("update", 9)]
    assert bench.init(stamp_ns=8 * SECOND).result(5).code is Code.STAMP_NOT_BUFFERED
    assert bench.warnings == []
