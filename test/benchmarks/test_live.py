"""The benchmark of the live page: its camera, its boxes and its slow page."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")
pytest.importorskip("playwright.sync_api", reason="playwright is absent: pip install playwright")
pytest.importorskip("skimage", reason="the scene needs scikit-image")

from benchmarks.live import boxes, camera, slow_page
from spmtrack_core.live.tracking import LiveTracking
from test.spmtrack_core.live.squares import ColorTracker, squares


def test_the_camera_leaves_out_what_is_not_taken_in_time():
    frames, begun = camera().timed(), time.monotonic()
    first = next(frames)
    assert first[0].shape == (480, 640, 3) and first[1] == 0.0
    time.sleep(0.2)
    late = next(frames)[1]
    assert 0.16 <= late <= time.monotonic() - begun + 0.001


def test_boxes_lie_in_the_image():
    for x, y, w, h in boxes(4):
        assert 0 <= x < x + w <= 640 and 0 <= y < y + h <= 480


def test_a_slow_page_is_a_page():
    live = LiveTracking(squares(), ColorTracker())
    with slow_page(live.server.url):
        deadline = time.monotonic() + 30
        while not live.server.pages:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    live.close()
