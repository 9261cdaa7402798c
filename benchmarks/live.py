"""What the live page shows, and what it costs: camera -> tracker -> headless Chromium.

    python benchmarks/live.py [--seconds 10] [--targets 1 4] [--runtime torch]

A camera of 640x480 at 30 images/s is played from the built-in scene. For each number of targets it
is tracked without a page, with the page in Chromium, and with a page that takes a second for every
image. The tracker's own figures show what a page costs it; the page's are those that it displays.
Needs Playwright and Chromium. Both work on the same processor as the tracker.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
import cv2
import numpy as np
from playwright.sync_api import sync_playwright

from spmtrack_core.data.scene import scene, scene_boxes_xywh
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.geometry.image import Image
from spmtrack_core.geometry.lazy_image import AnyImage
from spmtrack_core.live.messages import StartTarget
from spmtrack_core.live.tracking import LiveTracking
from spmtrack_core.session.init_request import Code
from spmtrack_core.tracking.loading import load_tracker

RATE = 30.0  # images/s of the camera
FRAMES = 60  # of the scene, played forwards and backwards
SLOW = 1.0  # s that the slow page takes for an image


def camera() -> FrameSequence:
    """The scene at 640x480, in real time; an image that is not taken in time is left out."""
    frames = [cv2.resize(frame, (640, 480)) for _, frame in zip(range(FRAMES), scene())]  # noqa: B905

    def timed() -> Iterator[tuple[Image, float]]:
        begun, last = time.monotonic(), -1
        while True:
            number = max(last + 1, int((time.monotonic() - begun) * RATE))
            time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
            last, place = number, number % (2 * FRAMES - 2)
            yield frames[min(place, 2 * FRAMES - 2 - place)], number / RATE

    return FrameSequence(
        "camera", lambda: (frame for frame, _ in timed()), None, RATE, open_timed=timed, live=True
    )


class Timed:
    """A tracker that notes how long it takes for each image."""

    def __init__(self, tracker: Any) -> None:
        self._tracker, self.seconds = tracker, list[float]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)

    def follow(self, frame: AnyImage, targets: Sequence[Any]) -> Any:
        """Follow, and note the time."""
        begun = time.perf_counter()
        results = self._tracker.follow(frame, targets)
        self.seconds.append(time.perf_counter() - begun)
        return results


@contextlib.contextmanager
def slow_page(url: str) -> Iterator[None]:
    """A page that acknowledges each image after ``SLOW`` seconds."""
    end = threading.Event()

    async def read() -> None:
        headers = {"Origin": url.rstrip("/")}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}live", headers=headers) as page,
        ):
            while not end.is_set():
                await page.receive()
                await asyncio.sleep(SLOW)
                await page.send_str('{"type": "shown"}')

    thread = threading.Thread(target=asyncio.run, args=(read(),))
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def boxes(count: int) -> list[tuple[float, float, float, float]]:
    """The scene's target, and places beside it."""
    x, y, w, h = (scene_boxes_xywh()[0] * (1, 480 / 360, 1, 480 / 360)).tolist()
    return [(x, y, w, h), *((420.0, 60.0 + 110 * place, 90.0, 80.0) for place in range(count - 1))]


def measure(timed: Timed, seconds: float, page: Any = None) -> str:
    """Images/s and time of the tracker and, with a Chromium page, what the page displays."""
    time.sleep(2.0)
    timed.seconds.clear()
    rates, delays = [], []
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        time.sleep(0.5)
        if page is not None:
            rate, delay = page.evaluate("[Number($('rate').textContent), view.latency]")
            rates.append(rate)
            delays.append(1000 * (delay or np.nan))
    taken = 1000 * np.array(timed.seconds)
    text = f"{len(taken) / seconds:5.1f} images/s tracked, {np.median(taken):5.1f} ms each"
    if rates:
        text += f"; page {np.mean(rates):4.1f} images/s, {np.nanmedian(delays):.0f} ms behind"
    return text


def main() -> None:
    """Print a line for each number of targets and each kind of page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 4], help="followed at once")
    parser.add_argument("--weights", default="nano", help="weights of the tracker")
    parser.add_argument("--runtime", default="torch", help="torch, openvino or auto")
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    timed = Timed(load_tracker(options.weights, "cpu", runtime=options.runtime))
    source = camera()
    with sync_playwright() as driver:
        for count in options.targets:
            timed.warm_up(count)
            live = LiveTracking(source, timed)
            live.start()
            time.sleep(0.5)
            for box in boxes(count):
                reply = live.handle(StartTarget(0, box)).result(60)
                if reply.code is not Code.OK:
                    raise SystemExit(f"no target started: {reply.message}")
            print(f"{count} targets, no page:   {measure(timed, options.seconds)}", flush=True)
            with slow_page(live.server.url):
                print(f"{count} targets, slow page: {measure(timed, options.seconds)}", flush=True)
            flags = ["--no-sandbox", "--disable-gpu"]
            browser = driver.chromium.launch(executable_path=chromium, args=flags)
            page = browser.new_page()
            page.goto(live.server.url)
            shown = measure(timed, options.seconds, page)
            print(f"{count} targets, Chromium:  {shown}", flush=True)
            browser.close()
            live.close()


if __name__ == "__main__":
    main()
