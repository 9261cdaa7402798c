"""The soak of the node: twenty seconds of it pass, and lost answers or states are errors."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")
pytest.importorskip("skimage", reason="scikit-image is absent: install the extra demo")

from benchmarks import soak_node as module
from benchmarks.soak_node import (
    LOST,
    SEEN,
    SIZE_WH,
    STORM,
    await_states,
    call_all,
    growth_mib,
    requests,
    soak_node,
    storm,
    take_camera_away,
)
from robot import grid
from spmtrack_ros.msg import TrackState

pytestmark = pytest.mark.ros


class DeafRobot:
    """A client whose node answers nothing, or never reports the given state."""

    def __init__(self, answered=True, states=(TrackState.TRACKING,)):
        self.answered, self.status = answered, SimpleNamespace(targets=[])
        self.status.targets = [SimpleNamespace(state=state) for state in states]

    def ask(self, *_):
        answer = SimpleNamespace(success=True)
        return SimpleNamespace(done=lambda: self.answered, result=lambda: answer)

    def send_at(self, rate, done):
        pass

    def until(self, condition, seconds):
        return condition()


@pytest.mark.parametrize(
    ("client", "do", "words"),
    [
        (
            DeafRobot(answered=False),
            lambda client: call_all(client, 10.0, [("enable", None, None)]),
            "no answer of enable",
        ),
        (
            DeafRobot(),
            lambda client: take_camera_away(client, 10.0),
            "are TRACKING, expected LOST",
        ),
        (
            DeafRobot(states=[TrackState.LOST]),
            lambda client: take_camera_away(client, 10.0),
            "are LOST, expected TRACKING and UNCERTAIN",
        ),
        (
            DeafRobot(states=[TrackState.TRACKING, TrackState.LOST]),
            lambda client: await_states(client, 10.0, LOST),
            "are LOST and TRACKING, expected LOST",
        ),
    ],
)
def test_what_is_wrong_is_an_error(client, do, words):
    with pytest.raises(RuntimeError, match=words):
        do(client)


def test_what_is_right_is_none():
    assert call_all(DeafRobot(), 10.0, [("enable", None, None)] * 3) == 3
    await_states(DeafRobot(), 10.0, SEEN)


def test_a_storm_removes_nothing():
    calls = storm(grid(3, SIZE_WH), random.Random(0))
    assert len(calls) == STORM
    assert {request.id for name, _, request in calls if name == "remove_target"} == {"nobody"}


def test_calls_of_all_kinds():
    calls = requests(grid(3, SIZE_WH), random.Random(0))
    assert {name for name, _, _ in calls} == {
        "init_target", "remove_target", "set_primary", "set_parameters"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mib", "growth"),
    [
        ([10, 74], 64),
        ([10] + 6 * [100, 140], 0),  # the first round fills the caches
        (range(20), 9),  # 18 rounds count
    ],
)
def test_growth_is_that_of_the_means(mib, growth):
    assert growth_mib([each * 2**20 for each in mib]) == growth


@pytest.mark.slow
def test_twenty_seconds(tiny_checkpoint, capsys):
    soak_node(1 / 3, 3, 15.0, str(tiny_checkpoint), "cpu", 64.0)
    assert "memory flat" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.slow
def test_growing_memory_is_an_error(tiny_checkpoint, monkeypatch):
    sizes = iter(range(2**30, 2**40, 2**26))
    monkeypatch.setattr(module, "resident_bytes", lambda process: next(sizes))
    with pytest.raises(ValueError, match="memory grew by 64"):
        soak_node(0.01, 1, 15.0, str(tiny_checkpoint), "cpu", 32.0)
