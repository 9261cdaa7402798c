"""Several targets of one session, and which of them a request replaces."""

from __future__ import annotations

import pytest

from spmtrack_core.session.init_request import Code, Limits
from test.spmtrack_core.session.bench import BOX, SECOND, SECOND_BOX


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
