"""Images for pages that draw them, draw nothing, never read, or come by the dozen."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")

import cv2

from spmtrack_core.live import server as server_module
from spmtrack_core.live.connections import Connection
from spmtrack_core.live.messages import LONGEST, View
from spmtrack_core.live.server import MAX_PAGES
from test.spmtrack_core.live.pages import CLOSE, SHOWN, open_page, picture


def test_a_page_gets_the_newest_image_when_it_has_drawn_the_last(server, monkeypatch):
    async def run():
        async with open_page(server) as page:
            view, jpeg = await page.view()
            assert (view["width"], jpeg) == (0, b"")  # before the first image
            for number in range(1, 60):
                server.show(picture(number))
            await page.shown()
            view, jpeg = await page.view()
            assert view["stamp"] == "1059" and (view["width"], view["height"]) == (128, 64)
            assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[0] == 64
            await page.shown()
            server.show(picture(59))  # the same image, perhaps with other targets
            view, jpeg = await page.view()
            assert (view["stamp"], jpeg) == ("1059", b"") and view["latency"] > 0
            monkeypatch.setattr(server_module, "_REPEAT", 0.1)
            await page.shown()
            view, jpeg = await page.view()  # nothing is new
            assert (view["stamp"], jpeg) == ("1059", b"")

    asyncio.run(run())


def test_large_images_are_made_smaller_but_boxes_stay_in_their_pixels(server):
    server.show(View(1, 1, lambda: np.zeros((1080, 1920, 3), np.uint8)))

    async def run():
        async with open_page(server) as page:
            view, jpeg = await page.view()
            assert (view["width"], view["height"]) == (1920, 1080)
            decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert decoded.shape == (720, 1280, 3)

    asyncio.run(run())


def test_an_image_that_cannot_be_decoded_leaves_the_page_open(server):
    def broken():
        raise ValueError("image encoding 'yuv' is not supported")

    async def run():
        async with open_page(server) as page:
            await page.view()
            await page.shown()
            server.show(View(1, 1, broken, hint="broken"))
            view, jpeg = await page.view()
            assert (view["hint"], jpeg) == ("broken", b"")
            await page.shown()
            server.show(picture(2))
            assert (await page.view())[1]

    asyncio.run(run())


@pytest.mark.parametrize("fault", [RuntimeError("no memory left"), MemoryError()])
def test_a_page_whose_image_fails_is_closed_and_comes_back(server, caplog, fault):
    def broken():
        raise fault

    async def run():
        for number in (1, 1, 2):  # the page connects again
            async with open_page(server) as page:
                server.show(View(number, number, broken))
                while (message := await page.socket.receive(20)).type is not CLOSE:
                    await page.shown()
                assert (message.data, type(fault).__name__ in message.extra) == (1011, True)
        server.show(picture(3))
        async with open_page(server) as page:
            assert (await page.view())[1]

    asyncio.run(run())
    assert [type(fault).__name__ in each.message for each in caplog.records] == [True]


def test_whoever_shows_never_waits_for_the_server(server):
    busy = threading.Event()
    server._loop.call_soon_threadsafe(busy.wait)
    for number in range(1000):  # would never end otherwise
        server.show(picture(number, side=2))
    busy.set()


def test_requests_that_wait_do_not_stop_the_images(server, monkeypatch):
    waiting, ended = threading.Semaphore(0), threading.Event()

    def handle(request):
        waiting.release()
        ended.wait()
        return Future()

    server._loop.set_default_executor(ThreadPoolExecutor(2))
    monkeypatch.setattr(server, "_handle", handle)

    async def run():
        async with open_page(server) as page:
            await page.view()
            for number in range(2):
                await page.socket.send_str(f'{{"type": "pause", "request": {number}}}')
                await asyncio.to_thread(waiting.acquire)
            server.show(picture(1))
            await page.shown()
            assert (await page.view())[1]

    try:
        asyncio.run(run())
    finally:
        ended.set()


def test_a_page_that_draws_nothing_gets_one_image_and_is_dropped(server, monkeypatch):
    monkeypatch.setattr(server_module, "_SILENCE", 1.0)

    async def run():
        async with open_page(server) as page, open_page(server) as other:
            await page.view()
            for number in range(1, 30):
                server.show(picture(number))
                await other.view()
                await other.shown()
            assert await page.end() is None
            server.show(picture(99))
            while (await other.view())[0]["stamp"] != "1099":
                await other.shown()

    asyncio.run(run())


def memory_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def test_a_page_that_never_reads_takes_no_memory(server):
    """It claims to have drawn every image, but takes none out of its connection."""
    hand = (
        f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Origin: http://127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    )
    claim = bytes([0x81, 0x80 + len(SHOWN), 0, 0, 0, 0]) + SHOWN.encode()  # a masked frame
    pictures = [picture(number, side=640) for number in range(4)]
    encoded = [each.image for each in pictures]
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(hand.encode())
        before = None
        for number in range(120):
            server.show(View(number + 1, number + 1, encoded[number % 4]))
            with contextlib.suppress(OSError):
                client.sendall(claim)
            asyncio.run(asyncio.sleep(0.01))
            if number == 40:
                before = memory_mb()
        assert memory_mb() - before < 30  # 80 JPEGs of these have 80 MB


def test_fifty_pages_are_served_or_told_to_come_later(server):
    async def one(everybody):
        async with open_page(server) as page:
            message = await page.socket.receive(20)
            served = message.type is aiohttp.WSMsgType.BINARY
            if served:
                await page.shown()
            else:
                assert message.type is aiohttp.WSMsgType.CLOSE
                assert message.data == 1013 and f"{MAX_PAGES} pages" in message.extra
            everybody.append(served)
            while len(everybody) < 50:
                await asyncio.sleep(0.01)
            server.show(picture(1))
            while served and (await page.view())[0]["stamp"] != "1001":
                await page.shown()
            return served

    async def run():
        everybody = []
        tasks = [asyncio.create_task(one(everybody)) for _ in range(50)]
        while len(everybody) < 50:
            await asyncio.sleep(0.01)
        assert sum(await asyncio.gather(*tasks)) == MAX_PAGES
        while server.pages:
            await asyncio.sleep(0.01)
        assert await one([None] * 49)

    asyncio.run(run())


# ---- memory


async def send_garbage(server):
    """Texts that are no messages, bytes that are no HTTP, and a path without an end."""
    async with open_page(server) as page:
        for number in range(25):
            await page.socket.send_str(chr(32 + number) * (LONGEST - 1))
            assert (await page.answer())["code"] == "INTERNAL_ERROR"
    noise = np.random.default_rng(0).bytes(20_000)
    for text in (noise, b"GET /" + b"x" * 60_000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9000):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.suppress(ConnectionError):
            writer.write(text)
            await writer.drain()
            await reader.read(100)
        writer.close()


async def flood(server):
    async with open_page(server) as page:
        with contextlib.suppress(ConnectionError):
            for number in range(500):
                await page.socket.send_str(json.dumps({"type": "remove", "request": number}))
        await page.end()


async def crowd(server):
    async def one():
        async with open_page(server) as page:
            message = await page.socket.receive(20)
            if message.type is aiohttp.WSMsgType.BINARY:
                server.show(picture(1))
                await page.shown()
                await page.socket.receive(20)

    await asyncio.gather(*(one() for _ in range(50)))


def until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
    return condition()


def kept_objects():
    """How many pages and connections are still in memory."""
    gc.collect()
    return sum(type(each) in (server_module._Page, Connection) for each in gc.get_objects())


@pytest.mark.parametrize("harm", [send_garbage, flood, crowd])
def test_whatever_connections_do_nothing_of_them_stays(server, caplog, harm):
    async def run(times):
        for _ in range(times):
            await harm(server)
        while server.pages:
            await asyncio.sleep(0.01)

    others = kept_objects()  # of servers that were closed
    asyncio.run(run(2))
    before = memory_mb()
    asyncio.run(run(8))
    assert memory_mb() - before < 8
    assert caplog.records == []  # which would fill a log
    assert until(lambda: kept_objects() <= others)
