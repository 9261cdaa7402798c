"""Pages of the live server that behave; skips tests that import them without aiohttp."""

from __future__ import annotations

import contextlib
import json
import time

import numpy as np
import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")

from spmtrack_core.live.messages import View

CLOSE = aiohttp.WSMsgType.CLOSE
SHOWN = '{"type": "shown"}'


def picture(number, side=64):
    noise = np.random.default_rng(number).integers(0, 256, (side, 2 * side, 3), np.uint8)
    return View(number, 1000 + number, lambda: noise, arrived=time.monotonic())


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
