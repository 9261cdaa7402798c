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
        ([0, 30, 60], ["NEWEST"] * 3, [0, 30, 60]),
        ([0, 0, 0], ["NEWEST"] * 3, [0, 0, 0]),  # a camera without stamps
        ([30, 60, 90, 30, 120], ["NEWEST"] * 3 + ["LATE", "NEWEST"], [30, 60, 90, 120]),
        ([90, 30, 120, 90, 150], ["NEWEST", "LATE"] * 2 + ["NEWEST"], [90, 120, 150]),
        # two in a row: the clock was set back by a little
        ([30, 60, 90, 10, 40], ["NEWEST"] * 3 + ["LATE", "CLOCK_JUMPED"], [40]),
        ([5000, 5030, 10, 40], ["NEWEST"] * 2 + ["CLOCK_JUMPED", "NEWEST"], [10, 40]),
    ],
)
def test_late_images_and_clock_jumps(stamps, orders, kept):
    buffer = FrameBuffer()
    assert fill(buffer, stamps) == orders
    assert [frame.stamp_ns // MS for frame in buffer.since(kept[0] * MS)] == kept or kept[0] == 0
    assert len(buffer) == len(kept)


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
