"""The server on the loopback address, with pages that behave, do not read, flood or lie."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import ipaddress
import json
import socket
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")

import cv2

from spmtrack_core.live import server as server_module
from spmtrack_core.live.access import Access, _own_address
from spmtrack_core.live.connections import Connection
from spmtrack_core.live.messages import LONGEST, RemoveTarget, StartTarget, View
from spmtrack_core.live.page import PAGE
from spmtrack_core.live.server import MAX_PAGES, LiveServer
from spmtrack_core.session.init_request import Code, Reply

CLOSE = aiohttp.WSMsgType.CLOSE
SHOWN = '{"type": "shown"}'


class Handler:
    """Answers each request at once, unless it is told to keep them."""

    def __init__(self):
        self.requests, self.kept, self.keep, self.fails = [], [], False, False

    def __call__(self, request):
        self.requests.append(request)
        if self.fails:
            raise RuntimeError("out of memory")
        done = Future()
        if self.keep:
            self.kept.append(done)
        else:
            done.set_result(Reply(Code.OK, "", "a"))
        return done


@pytest.fixture
def handler():
    return Handler()


@pytest.fixture
def server(handler):
    running = LiveServer(handler)
    yield running
    running.close()


def picture(number, side=64):
    noise = np.random.default_rng(number).integers(0, 256, (side, 2 * side, 3), np.uint8)
    return View(number, 1000 + number, lambda: noise, arrived=time.monotonic())


def get(server, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read().decode(), response.headers


class Page:
    """A WebSocket of the server, as the page has one."""

    def __init__(self, socket):
        self.socket = socket

    async def view(self):
        """The next view, and its JPEG."""
        while True:
            message = await self.socket.receive(20)
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
            if message.type is aiohttp.WSMsgType.BINARY:
                length = int.from_bytes(message.data[:4], "big")
                return json.loads(message.data[4 : 4 + length]), message.data[4 + length :]

    async def answer(self):
        while True:
            message = await self.socket.receive(20)
            if message.type is aiohttp.WSMsgType.TEXT:
                return json.loads(message.data)
            assert message.type is aiohttp.WSMsgType.BINARY, message

    async def end(self):
        """The code that the server closed the connection with; None if it was cut off."""
        while True:
            message = await self.socket.receive(20)
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data
            if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                return self.socket.close_code if self.socket.close_code != 1006 else None

    async def ask(self, **fields):
        await self.socket.send_str(json.dumps(fields))
        return await self.answer()

    async def shown(self):
        await self.socket.send_str(SHOWN)


@contextlib.asynccontextmanager
async def open_page(server, **headers):
    origin = f"http://127.0.0.1:{server.port}"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{origin}/live", headers={"Origin": origin, **headers}) as socket,
    ):
        yield Page(socket)


# ---- who is served


def test_the_page_is_one_file_that_loads_nothing(server):
    status, text, headers = get(server)
    assert status == 200 and text == PAGE.read_text()
    assert not [word for word in ("http://", "https://", "src=", "@import") if word in text]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"


def test_it_listens_on_the_loopback_address_alone(server):
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", 0)):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.port), 5)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/", {"Host": "evil.example"}, 403),
        ("/", {"Origin": "http://evil.example"}, 403),
        ("/live", {}, 403),  # no origin
        ("/live", {"Origin": "http://evil.example"}, 403),
        ("/live", {"Origin": "http://["}, 403),
        ("/other", {}, 404),
        ("/../page.html", {}, 404),
        ("/", {"X": "x" * 20_000}, 400),
    ],
)
def test_requests_of_others_are_rejected(server, path, headers, status):
    assert get(server, path, **headers)[0] == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_written(server, method):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, "/", body="x" * 20_000)
    assert connection.getresponse().status == 405


def test_a_websocket_of_another_site_is_refused(server, handler):
    async def run():
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with open_page(server, **headers):
                    pass
            assert refused.value.status == 403

    asyncio.run(run())
    assert not handler.requests


def test_on_another_address_the_token_is_required(server):
    server.access = access = Access("0.0.0.0")
    for token in ("", "?token=", "?token=wrong", "?token=%ff", "?token=%ed%a0%80"):
        assert get(server, f"/{token}")[0] == 403
    assert get(server, f"/?token={access.token}")[0] == 200
    origin = f"http://127.0.0.1:{server.port}"

    async def connect(query):
        async with aiohttp.ClientSession() as session:
            options = {"headers": {"Origin": origin}}
            async with session.ws_connect(f"{origin}/live{query}", **options) as page:
                return (await page.receive(20)).type

    with pytest.raises(aiohttp.WSServerHandshakeError):
        asyncio.run(connect(""))
    assert asyncio.run(connect(f"?token={access.token}")) is aiohttp.WSMsgType.BINARY


def own_address():
    """An IPv4 address of this computer that is not a loopback address; None without one."""
    address = _own_address()
    try:
        ip = ipaddress.IPv4Address(address)
    except ValueError:
        return None
    return None if ip.is_loopback else address


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_another_computer_reaches_the_printed_address_with_the_token(handler, host):
    address = own_address()
    if address is None:
        pytest.skip("this computer has no IPv4 address but the loopback one")
    if host == "::" and not socket.has_dualstack_ipv6():
        pytest.skip("this computer has no IPv6")
    server = LiveServer(handler, host)
    where = f"{address}:{server.port}"

    async def socket_of(session, query, **headers):
        async with session.ws_connect(f"http://{where}/live{query}", headers=headers) as page:
            return (await page.receive(20)).type

    async def run():
        async with aiohttp.ClientSession() as session:
            token = f"?token={server.access.token}"
            assert server.url == f"http://{where}/{token}"
            for url, host_header, status in (
                (server.url, where, 200),
                (server.url, "localhost", 200),  # a tunnel
                (server.url, "evil.example", 403),
                (f"http://{where}/", where, 403),
            ):
                async with session.get(url, headers={"Host": host_header}) as response:
                    assert response.status == status, (url, host_header)
            page = await socket_of(session, token, Origin=f"http://{where}")
            assert page is aiohttp.WSMsgType.BINARY
            for query, origin in (
                ("", f"http://{where}"),
                (token, "http://evil.example"),
                (token, f"http://127.0.0.1:{server.port}"),
            ):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await socket_of(session, query, Origin=origin)
                assert refused.value.status == 403

    try:
        asyncio.run(run())
    finally:
        server.close()


def test_a_port_in_use_is_one_sentence(server, handler):
    with pytest.raises(
        OSError, match=f"cannot listen on 127.0.0.1, port {server.port}: .*another"
    ):
        LiveServer(handler, port=server.port)
    for host in ("203.0.113.1", "no.such.host.invalid"):
        with pytest.raises(OSError, match=f"cannot listen on {host}, .*; the host must be"):
            LiveServer(handler, host=host)
    with pytest.raises(ValueError, match="0 to 65535; got 70000"):
        LiveServer(handler, port=70_000)


# ---- images


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


# ---- requests


def test_requests_reach_the_handler_and_are_answered(server, handler):
    async def run():
        async with open_page(server) as page:
            box = {"stamp": "5", "box": [1, 2, 3, 4]}
            answer = await page.ask(type="start", request=3, **box)
            assert answer == {"request": 3, "code": "OK", "message": "", "id": "a"}
            handler.fails = True
            answer = await page.ask(type="remove", request=4, id="a")
            assert (answer["request"], answer["code"]) == (4, "INTERNAL_ERROR")
            assert "out of memory" in answer["message"]

    asyncio.run(run())
    assert handler.requests == [StartTarget(5, (1.0, 2.0, 3.0, 4.0)), RemoveTarget("a")]


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "[" * 1000, "{}", '{"type": 5}', '{"type": "start"}', "\x00", "ü"]
)
def test_garbage_is_answered_and_does_no_harm(server, handler, text):
    async def run():
        async with open_page(server) as page:
            await page.socket.send_str(text)
            assert (await page.answer())["code"] == "INTERNAL_ERROR"
            assert (await page.ask(type="remove", request=1))["code"] == "OK"

    asyncio.run(run())
    assert len(handler.requests) == 1


def test_bytes_and_long_messages_end_the_connection(server, handler):
    async def run():
        async with open_page(server) as page:
            await page.socket.send_bytes(b"\x00" * 100)
            assert await page.end() == 1003
        async with open_page(server) as page:
            await page.socket.send_str(" " * LONGEST)
            assert (await page.answer())["code"] == "INTERNAL_ERROR"
            await page.socket.send_str(" " * (LONGEST + 1))
            assert await page.end() == 1009

    asyncio.run(run())
    assert not handler.requests


def test_a_flood_ends_the_connection(server, handler):
    async def run():
        async with open_page(server) as page, open_page(server) as other:
            with contextlib.suppress(ConnectionError):
                for _ in range(2000):
                    await page.socket.send_str(SHOWN)
            assert await page.end() in (1008, None)
            assert (await other.ask(type="remove", request=1))["code"] == "OK"

    asyncio.run(run())
    assert len(handler.requests) == 1


def test_a_fast_page_is_no_flood(server, monkeypatch):
    monkeypatch.setattr(server_module, "_BURST", 10.0)

    async def run():
        async with open_page(server) as page:
            for number in range(80):
                server.show(picture(number, side=2))
                await page.view()
                await page.shown()
            assert (await page.ask(type="remove", request=1))["code"] == "OK"

    asyncio.run(run())


def test_requests_that_nobody_answers_do_not_add_up(server, handler, monkeypatch):
    monkeypatch.setattr(server_module, "_PATIENCE", 0.5)
    handler.keep = True

    async def run():
        async with open_page(server) as page:
            for number in range(12):
                await page.socket.send_str(json.dumps({"type": "remove", "request": number}))
            codes = [(await page.answer())["code"] for _ in range(12)]
            assert (codes.count("CANCELLED"), codes.count("TIMEOUT")) == (4, 8)

    asyncio.run(run())
    assert all(each.cancelled() for each in handler.kept)


def test_a_closed_server_leaves_nothing_behind(handler):
    server = LiveServer(handler)

    async def run():
        async with open_page(server) as page:
            await page.view()
            await asyncio.to_thread(server.close)
            assert await page.end() == 1001

    asyncio.run(run())
    server.show(picture(1))
    server.close()
    LiveServer(handler, port=server.port).close()
    assert "live" not in {thread.name for thread in threading.enumerate()}


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
