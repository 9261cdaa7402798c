"""The page of the node `web` in a real browser, with a tracker node and a camera over DDS."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")
pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")

from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy
from spmtrack_ros.conversions import bbox_to_xywh, stamp_to_ns
from spmtrack_ros.msg import TrackState
from test.spmtrack_core.live.chromium import chromium, drag, playwright
from test.spmtrack_core.live.squares import HIDDEN, frame, red
from test.spmtrack_ros.peer import MS, RELIABLE, Peer, start_node, stop_node
from test.spmtrack_ros.test_web import address_of, start_web

PERIOD = 0.1  # s between two images
pytestmark = pytest.mark.ros


class Camera:
    """Sends a red square, which moves from ``start`` on, and collects what the tracker reports."""

    def __init__(self, peer):
        self.peer, self.start, self._ended = peer, False, threading.Event()
        self._places = {}  # of the square, by stamp in ms
        self._sent = self._index = 0
        peer.node.create_timer(PERIOD, self._send)
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _send(self):
        self._sent += 1
        self._index += self.start and self._index < HIDDEN.start - 1
        self._places[self._sent * 100] = self._index
        self.peer.send(frame(self._index), self._sent * 100, wait=False)

    def _spin(self):
        while not self._ended.is_set():
            self.peer.executor.spin_once(timeout_sec=0.05)

    def followed(self):
        """Whether the newest status has a target that is TRACKING on the square, far from there
        where it was named."""
        if not self.peer.status or not self.peer.status[-1].targets:
            return False
        (target,) = self.peer.status[-1].targets
        place = self._places[stamp_to_ns(target.header.stamp) // MS]
        boxes = xywh_to_xyxy([bbox_to_xywh(target.bbox), red(place)])
        overlap = iou_xyxy(boxes[0], boxes[1])
        return target.state == TrackState.TRACKING and place > 20 and overlap > 0.5

    def close(self):
        self._ended.set()
        self._thread.join()


def test_a_target_named_in_the_browser_is_followed_by_the_node():
    tracker = start_node(RELIABLE, "frame_buffer:=150", weights="nano")
    process, peer, camera = start_web(), Peer(), None
    try:
        address = address_of(process, peer)
        peer.wait_for_node(tracker)
        camera = Camera(peer)
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 1000, "height": 600})
            faults = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto(address)
            page.wait_for_function("() => bitmap !== null", timeout=60_000)
            drag(page, red(0))
            row = page.locator("#targets li")
            playwright.expect(row).to_contain_text("tracking", timeout=60_000)
            camera.start = True
            deadline = time.monotonic() + 60
            while not camera.followed():
                assert time.monotonic() < deadline, peer.status[-1]
                page.wait_for_timeout(100)
            playwright.expect(row).to_contain_text("tracking", timeout=60_000)
            assert faults == []
    finally:
        if camera is not None:
            camera.close()
        peer.close()
        outputs = [stop_node(each) for each in (process, tracker)]
    assert [code for code, _ in outputs] == [0, 0], outputs
