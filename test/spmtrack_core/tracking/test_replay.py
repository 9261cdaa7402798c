"""The replay of a recording: which images are processed, and what is reported of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rosbags", reason="rosbags is absent: pip install 'spmtrack_ros[bag]'")

from spmtrack_core.data.bag import BagImage
from spmtrack_core.tracking.followed import Reason, State
from spmtrack_core.tracking.replay import Start, newest_only, replay
from spmtrack_core.tracking.result import TrackResult, TrackState

S = 1_000_000_000
PIXELS = np.zeros((20, 30, 3), np.uint8)


def image(number, time_ns=0, data=None):
    header = SimpleNamespace(frame_id="camera")
    message = SimpleNamespace(
        header=header,
        encoding="rgb8",
        height=20,
        width=30,
        step=90,
        is_bigendian=0,
        data=PIXELS.tobytes() if data is None else data,
    )
    return BagImage(number, time_ns, time_ns, message, "sensor_msgs/msg/Image")


def processed(times, seconds, speed=1.0, keep=lambda image: False):
    images = [image(number, round(time * S)) for number, time in enumerate(times)]
    return [each.number for each in newest_only(images, lambda: seconds, speed, keep)]


@pytest.mark.parametrize(
    ("times", "seconds", "speed", "numbers", "why"),
    [
        ([0, 1, 2, 3], 0.5, 1.0, [0, 1, 2, 3], "the tracker is faster than the camera"),
        ([0, 1, 2, 3, 4], 2.5, 1.0, [0, 2, 4], "the newest, not the next"),
        ([0, 1, 2, 3, 4, 5], 1.0, 2.5, [0, 2, 5], "played faster"),
        ([0, 1, 2, 3], 0.5, 1.9, [0, 1, 2, 3], "played faster, but not too fast"),
        ([0, 1, 2, 3], 100, 1.0, [0, 3], "what arrived last is still processed"),
        ([0, 0.1, 5, 5.1], 1.0, 1.0, [0, 1, 2, 3], "a pause lets the tracker catch up"),
        ([], 1.0, 1.0, [], "no images"),
    ],
)
def test_the_newest_image_is_processed(times, seconds, speed, numbers, why):
    assert processed(times, seconds, speed) == numbers, why


@given(
    gaps=st.lists(st.floats(0.01, 3), max_size=30),
    seconds=st.floats(0.01, 5),
    kept=st.sets(st.integers(0, 30)),
)
def test_images_are_never_old_and_those_to_keep_are_kept(gaps, seconds, kept):
    times = np.cumsum(gaps).tolist()
    numbers = processed(times, seconds, keep=lambda each: each.number in kept)
    assert numbers == sorted(set(numbers))
    assert kept & set(range(len(times))) <= set(numbers)
    assert not times or numbers[-1] == len(times) - 1
    free = -1.0
    for number in numbers:
        begun = max(free, times[number])
        newer = [each for each, time in enumerate(times) if number < each and time < begun - 1e-6]
        assert not newer or number in kept
        free = begun + seconds


class Following:
    """Moves every box by a pixel an image; ``results`` are given by image otherwise."""

    def __init__(self, states=None):
        self.states = states or {}
        self.calls = 0

    def start(self, frame, box_xywh):
        if box_xywh[2] <= 0:
            raise ValueError("no area")
        return SimpleNamespace(box=box_xywh, lost_reason="")

    def follow(self, frame, targets):
        self.calls += 1
        state = self.states.get(self.calls, TrackState.TRACKING)
        for target in targets:
            target.box = (target.box[0] + 1, *target.box[1:])
        return [TrackResult(target.box, 0.5, state) for target in targets]


BOX = (5.0, 6.0, 7.0, 8.0)


def test_every_target_starts_in_its_image():
    waiting = [Start(BOX, "a", number=1), Start((1, 2, 3, 4), "b", stamp_ns=round(2.5 * S))]
    images = [image(number, number * S) for number in range(5)]
    done = list(replay(Following(), images, waiting))
    assert [[target.id for target in each.targets] for each in done] == [
        [],
        ["a"],
        ["a"],
        ["a", "b"],
        ["a", "b"],
    ]
    assert waiting == [] and done[0].image is None
    first = done[3].targets
    assert (first[0].box_xywh[0], first[1].box_xywh[0], first[1].score) == (7, 1, 1.0)
    assert (first[1].first_ns, first[1].started) == (3 * S, 3.0)


def test_a_target_whose_image_never_comes_is_left_over():
    start = Start(BOX, "a", number=9)
    waiting = [start]
    assert all(not each.targets for each in replay(Following(), [image(0)], waiting))
    assert waiting == [start]


def test_loss_and_return_are_reported_as_the_node_does():
    tracker = Following({2: TrackState.LOST, 3: TrackState.LOST})
    images = [image(number, number * S) for number in range(5)]
    states = [each.targets[0] for each in replay(tracker, images, [Start(BOX, "a")])]
    assert [target.state for target in states] == [1, 1, 2, 2, 1]
    assert [target.frames_lost for target in states] == [0, 0, 1, 2, 0]
    assert [target.last_seen_ns // S for target in states] == [0, 1, 1, 1, 4]
    assert states[2].reason is Reason.LOW_CONFIDENCE


def test_an_image_that_cannot_be_read_costs_nothing_but_itself():
    images = [image(0), image(1, data=b"short"), image(2)]
    first, broken, last = replay(Following(), images, [Start(BOX, "a")])
    assert not first.error and "image data have 5 bytes" in broken.error
    (target,) = broken.targets
    assert (target.state, target.reason) == (State.LOST, Reason.INVALID_IMAGE)
    assert last.targets[0].state is State.TRACKING


@pytest.mark.parametrize(
    ("box", "data", "said"),
    [((1, 2, 0, 4), None, "no area"), (BOX, b"short", "image 0: image data have 5 bytes")],
)
def test_a_target_that_cannot_be_started_is_an_error(box, data, said):
    with pytest.raises(ValueError, match=said):
        list(replay(Following(), [image(0, data=data)], [Start(box, "a")]))


@pytest.mark.parametrize(
    ("box", "data", "said"),
    [((1, 2, 0, 4), None, "no area"), (BOX, b"short", "image data have 5 bytes")],
)
def test_a_later_target_that_cannot_be_started_leaves_the_others(box, data, said):
    images = [image(0), image(1, data=data), image(2)]
    waiting = [Start(BOX, "a"), Start(box, "b", number=1)]
    first, second, third = replay(Following(), images, waiting)
    (failed,) = second.failed
    assert failed.startswith("target b was not started in image 1: ") and said in failed
    assert first.failed == third.failed == () and waiting == []
    assert [target.id for target in third.targets] == ["a"]
