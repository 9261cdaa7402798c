"""Who is served by the live server, and requests of pages that behave, flood or lie."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import json
import socket
import threading

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")

from spmtrack_core.live import server as server_module
from spmtrack_core.live.access import Access, _own_address
from spmtrack_core.live.messages import LONGEST, RemoveTarget, StartTarget
from spmtrack_core.live.page import PAGE
from spmtrack_core.live.server import LiveServer
from test.spmtrack_core.live.pages import SHOWN, open_page, picture


def get(server, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read().decode(), response.headers


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
