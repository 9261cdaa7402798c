"""Connections that open no page or send too much, at a real server."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from concurrent.futures import Future

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")

from spmtrack_core.live import connections
from spmtrack_core.live.connections import MAX_WAITING, Allowance
from spmtrack_core.live.server import LiveServer

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
TEXT, CONTINUED, PING, PONG = 1, 0, 9, 10  # kinds of frames


@pytest.fixture
def server():
    running = LiveServer(lambda request: Future())
    yield running
    running.close()


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), 10)


def handshake(server):
    here = f"127.0.0.1:{server.port}"
    return (
        f"GET /live HTTP/1.1\r\nHost: {here}\r\nOrigin: http://{here}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def open_socket(server):
    """A WebSocket that nothing is read from beyond the handshake."""
    client = connect(server)
    client.sendall(handshake(server))
    assert client.recv(12) == b"HTTP/1.1 101"
    return client


def frame(kind, content, final=True):
    assert len(content) < 126
    return bytes([kind | 0x80 * final, 0x80 | len(content), 0, 0, 0, 0]) + content


def is_dropped(client):
    """Waits until the server has ended the connection."""
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    return True  # or a timeout was raised


def serves(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/")
    return connection.getresponse().status == 200


@pytest.mark.parametrize(
    "begin",
    [
        b"",  # nothing at all
        REQUEST + b"X-A: ",  # headers that never end
        REQUEST + b"\r\n",  # served, and kept open
        REQUEST + b"Content-Length: 100000\r\n\r\nx",  # a body that never ends
    ],
)
def test_who_opens_no_page_is_dropped(monkeypatch, server, begin):
    monkeypatch.setattr(connections, "_PATIENCE", 0.5)
    with connect(server) as client:
        client.sendall(begin)
        assert is_dropped(client)


def test_an_open_page_stays(monkeypatch, server):
    monkeypatch.setattr(connections, "_PATIENCE", 1.0)  # enough to open it on a busy machine
    with open_socket(server) as page:
        time.sleep(1.5)
        assert server.pages == 1
        page.sendall(frame(PING, b""))
        page.settimeout(10)
        while frame(PONG, b"")[:1] not in page.recv(4096):
            pass


def test_more_connections_drop_the_oldest_and_no_page(server):
    with contextlib.ExitStack() as stack:
        stack.enter_context(open_socket(server))
        idle = [stack.enter_context(connect(server)) for _ in range(MAX_WAITING + 20)]
        assert all(is_dropped(client) for client in idle[:20])
        assert serves(server)
        assert server.pages == 1
        idle[-1].sendall(REQUEST + b"\r\n")
        assert idle[-1].recv(12) == b"HTTP/1.1 200"


FLOODS = {
    "headers": (connect, REQUEST, b"X-A: " + b"a" * 4000 + b"\r\n"),
    "body": (connect, b"POST" + REQUEST[3:] + b"Content-Length: 9999999999\r\n\r\n", b"a" * 4000),
    "requests": (connect, b"", (REQUEST + b"\r\n") * 50),
    "pings": (open_socket, b"", frame(PING, b"a" * 125) * 40),
    "pongs": (open_socket, b"", frame(PONG, b"a" * 125) * 40),
    "empty frames": (
        open_socket,
        frame(TEXT, b"", final=False),
        frame(CONTINUED, b"", final=False) * 500,
    ),
    "a giant frame": (
        open_socket,
        b"\x81\xff" + (2**40).to_bytes(8, "big") + b"\0\0\0\0",
        b"a" * 4000,
    ),
}


@pytest.mark.parametrize(("opens", "first", "again"), FLOODS.values(), ids=FLOODS)
def test_a_flood_of_bytes_is_dropped(server, opens, first, again):
    with opens(server) as client, open_socket(server):
        with contextlib.suppress(ConnectionError, TimeoutError):
            client.sendall(first)
            client.settimeout(2)
            for _ in range(1000):
                client.sendall(again)
        client.settimeout(10)
        assert is_dropped(client)
        deadline = time.monotonic() + 10
        while server.pages != 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert serves(server)


def test_a_visitor_who_goes_is_no_error(server, caplog):
    for _ in range(50):
        with connect(server) as client:
            client.sendall(handshake(server))
            option = (1).to_bytes(4, "little") + bytes(4)  # close sends a reset
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
    assert serves(server)
    assert not caplog.records


def test_an_allowance_is_earned_by_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: now[0])
    allowance = Allowance(per_second=10, burst=20)
    assert allowance.take(15) and allowance.take(5)
    assert not allowance.take(1)
    now[0] += 1.0
    assert allowance.take(9) and not allowance.take(1)
    now[0] += 1000.0
    assert allowance.take(20) and not allowance.take(1)
