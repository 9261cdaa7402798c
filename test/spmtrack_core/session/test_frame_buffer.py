"""The frame buffer: order, limits and search by stamp."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.session.frame_buffer import Frame, FrameBuffer, Order

MS = 1_000_000


def fill(buffer, stamps_ms, size=0):
    return [
        buffer.add(Frame(number, stamp * MS, None, size=size)).name
        for number, stamp in enumerate(stamps_ms, 1)
    ]


@pytest.mark.parametrize(
    ("stamps", "orders", "kept"),
    [
        ([0, 30, 60], "NNN", [0, 30, 60]),
        ([0, 0, 0], "NNN", [0, 0, 0]),  # a camera without stamps
        ([30, 60, 90, 30, 120], "NNNLN", [30, 60, 90, 120]),  # one was overtaken
        ([30, 60, 900, 300, 960], "NNNLN", [30, 60, 900, 960]),  # by much, at a low rate
        ([90, 30, 120, 90, 150], "NLNLN", [90, 120, 150]),
        ([30, 60, 90, 20, 40, 120], "NNNLLN", [30, 60, 90, 120]),  # two were overtaken
        # three in a row: the clock was set back, by much or by a little
        ([5000, 5030, 10, 40, 70, 100], "NNLLJN", [10, 40, 70, 100]),
        ([30, 60, 90, 10, 40, 70], "NNNLLJ", [10, 40, 70]),
        ([30, 60, 90, 80, 40, 70, 85], "NNNLLLJ", [30, 40, 70, 85]),  # one of them late itself
        # one stamp in the future: the images before it stay
        ([30, 60, 9999, 90, 120, 150, 180], "NNNLLJN", [30, 60, 90, 120, 150, 180]),
        # two cameras, whose stamps differ, also after the clock was set back
        ([500, 0, 530, 30, 560, 60, 590, 90], "NLNLNLNL", [500, 530, 560, 590]),
        ([9000, 0, 500, 30, 530, 60, 560], "NLLLJLN", [0, 30, 530, 560]),
    ],
)
def test_late_images_and_clock_jumps(stamps, orders, kept):
    buffer = FrameBuffer()
    assert "".join(name[0] for name in fill(buffer, stamps)).replace("C", "J") == orders
    assert [frame.stamp_ns // MS for frame in buffer._frames] == kept


@pytest.mark.parametrize("slower", [1, 3, 10])
def test_of_two_cameras_the_leading_one_counts_whatever_their_rates(slower):
    """The slower one leads: between two of its images comes a run of the other one's."""
    images = [(3 * ms / 2, ms + 5000) for ms in range(0, 3000, 30 * slower)]
    images += [(3 * ms / 2 + 1, ms) for ms in range(0, 3000, 30)]
    buffer = FrameBuffer()
    orders = [
        buffer.add(Frame(number, stamp * MS, None, arrival=arrival / 1000))
        for number, (arrival, stamp) in enumerate(sorted(images), 1)
    ]
    assert orders.count(Order.CLOCK_JUMPED) <= 1  # before its rate is known
    assert orders[20:].count(Order.CLOCK_JUMPED) == 0
    assert orders.count(Order.NEWEST) >= 100 // slower


def test_images_overtaken_by_one_in_a_burst_are_late():
    buffer = FrameBuffer()
    arrivals = [(0, 0), (30, 30), (60, 60), (90, 180), (91, 90), (92, 120), (93, 150), (210, 210)]
    orders = [
        buffer.add(Frame(number, stamp * MS, None, arrival=arrival / 1000)).name[0]
        for number, (arrival, stamp) in enumerate(arrivals, 1)
    ]
    assert "".join(orders) == "NNNNLLLN"


@pytest.mark.parametrize(
    ("max_images", "max_bytes", "size", "kept"),
    [(3, 1e9, 10, 3), (100, 35, 10, 3), (100, 40, 10, 4), (100, 5, 10, 1)],
)
def test_bounded_by_count_and_bytes_but_never_empty(max_images, max_bytes, size, kept):
    buffer = FrameBuffer(max_images, max_bytes)
    fill(buffer, range(0, 300, 30), size)
    assert len(buffer) == kept and buffer.newest.number == 10
    assert buffer.oldest.number == 11 - kept


def test_no_room_is_an_error():
    with pytest.raises(ValueError, match="max_images is 0: expected at least 1"):
        FrameBuffer(0)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 50)), max_size=60))
def test_any_stamps_keep_the_buffer_ordered_and_bounded(images):
    buffer = FrameBuffer(5, 100)
    for number, (stamp, size) in enumerate(images, 1):
        order = buffer.add(Frame(number, stamp * MS, None, size=size))
        assert buffer.newest.number == number or order is Order.LATE
        frames = list(buffer._frames)
        assert len(frames) <= 5 and (len(frames) == 1 or sum(f.size for f in frames) <= 100)
        assert [f.stamp_ns for f in frames] == sorted(f.stamp_ns for f in frames)
        assert buffer._bytes == sum(f.size for f in frames)


def test_since():
    buffer = FrameBuffer()
    fill(buffer, [30, 60, 90])
    assert [frame.number for frame in buffer.since(60 * MS)] == [2, 3]
    assert [frame.number for frame in buffer.since(0)] == [3]
    assert (
        buffer.since(0, after=3) == buffer.since(45 * MS) == buffer.since(30 * MS, after=1) == []
    )
