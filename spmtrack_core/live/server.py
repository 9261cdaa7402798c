"""Serves the live page: an HTTP and WebSocket server in a thread of its own.

Every page gets the newest view whenever it has drawn the one before: a slow one gets fewer images
and never old ones, and whoever makes the views waits for none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cv2
from aiohttp import WSCloseCode, WSMsgType, http_exceptions, web

from spmtrack_core.geometry.image import Image, encode_image
from spmtrack_core.live.access import Access
from spmtrack_core.live.connections import Allowance, Connection, Connections
from spmtrack_core.live.messages import LONGEST, Request, Shown, View, answer, pack, parse
from spmtrack_core.live.page import page_handler
from spmtrack_core.session.init_request import Code, Reply

LOG = logging.getLogger(__name__)
_HTTP_LOG = logging.getLogger(f"{__name__}.http")
MAX_PAGES = 16
_IMAGE_RATE = 60.0  # images per second to one page; screens show no more
_PER_SECOND = 100.0  # messages of one page, which acknowledges each image
_BURST = 120.0
_AT_ONCE = 8  # requests of one page that are not answered yet
_SILENCE = 20.0  # s in which a page must draw an image, or take it at all
_REPEAT = 5.0  # s after which a view is sent again: by it a page knows that the connection lives
_PATIENCE = 60.0  # s until a request that nobody answers is given up
_LONGEST_SIDE = 1280  # px of the image as it is sent
_QUALITY = 80  # of the JPEG, percent
_LONGEST_REASON = 123  # bytes, of a WebSocket that is closed
_USE_OWN_ADDRESS = "the host must be an address of this computer, or 0.0.0.0 for all of them"

Encoded = tuple[tuple[int, int], bytes]
"""Height and width of the image before it was made smaller, and its JPEG."""


class LiveServer:
    """The server; ``show`` gives it a new view, and it calls ``handle`` with each request.

    ``handle`` is called in several threads and returns the answer to come.
    """

    def __init__(
        self, handle: Callable[[Request], Future[Reply]], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Start to listen; port 0 is any that is free. Raises ``OSError`` where it cannot."""
        self._handle = handle
        self.access = Access(host)
        self._lock = threading.Lock()
        self._view, self._noticed = View(), True
        self._pages: set[_Page] = set()
        self._encoded: tuple[int, asyncio.Future[Encoded]] | None = None
        self._encoders = ThreadPoolExecutor()  # those that handle requests may all be waiting
        self._fault = ""  # why an image could not be shown
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="live", daemon=True)
        self._thread.start()
        try:
            self.port = self._call(self._start(host, port))
        except OSError as error:
            self._end()
            raise OSError(f"cannot listen on {host}, port {port}: {_reason(error)}") from None
        except OverflowError:
            self._end()
            raise ValueError(f"port must be 0 to 65535; got {port}") from None

    @property
    def url(self) -> str:
        """Address of the page."""
        return self.access.url(self.port)

    @property
    def pages(self) -> int:
        """How many pages are open."""
        return len(self._pages)

    def show(self, view: View) -> None:
        """Make this the newest view; returns at once. May be called from any thread."""
        with self._lock:
            self._view = view
            pending, self._noticed = not self._noticed, False
        if not pending:
            with contextlib.suppress(RuntimeError):  # the server is closed
                self._loop.call_soon_threadsafe(self._notice)

    def close(self) -> None:
        """Close all pages and end the thread."""
        if self._thread.is_alive():
            self._call(self._stop())
            self._end()

    # Everything below runs in the thread of the server

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()
        self._encoders.shutdown(wait=False)

    async def _start(self, host: str, port: int) -> int:
        app = web.Application(middlewares=[self._check], client_max_size=LONGEST)
        app.router.add_get("/", page_handler())
        app.router.add_get("/live", self._open_page)
        self._runner = web.AppRunner(app, access_log=None, logger=_HTTP_LOG, shutdown_timeout=0.5)
        await self._runner.setup()
        assert self._runner.server is not None
        connections = Connections(self._runner.server)
        if host == "::":  # asyncio would leave out IPv4, and with it most of the printed addresses
            both = socket.create_server(
                (host, port), family=socket.AF_INET6, dualstack_ipv6=socket.has_dualstack_ipv6()
            )
            self._listener = await self._loop.create_server(connections, sock=both)
        else:
            self._listener = await self._loop.create_server(connections, host, port)
        return int(self._listener.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        self._listener.close()
        for page in list(self._pages):
            with contextlib.suppress(Exception):
                await asyncio.wait_for(page.close(WSCloseCode.GOING_AWAY), 1.0)
        await self._runner.cleanup()
        if rest := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in rest:
                task.cancel()
            await asyncio.wait(rest, timeout=1.0)

    @web.middleware
    async def _check(self, request: web.Request, handler: Any) -> web.StreamResponse:
        reason = self.access.reject_reason(
            request.headers.get("Host", ""),
            request.headers.get("Origin"),
            request.query.get("token", ""),
            request.path == "/live",
        )
        if reason is not None:
            return web.Response(status=403, text=f"{reason}\n")
        try:
            response: web.StreamResponse = await handler(request)
        except ConnectionError:  # the other side has gone: nothing to report
            return web.Response()
        return response

    def _notice(self) -> None:
        with self._lock:
            self._noticed = True
        for page in self._pages:
            page.news.set()

    async def _open_page(self, request: web.Request) -> web.WebSocketResponse:
        if request.transport is None:
            raise ConnectionResetError
        connection = request.transport.get_protocol()
        assert isinstance(connection, Connection)
        limit = LONGEST + 1  # aiohttp refuses it already
        websocket = web.WebSocketResponse(heartbeat=_SILENCE, max_msg_size=limit, compress=False)
        await websocket.prepare(request)
        page = _Page(websocket, connection)
        if len(self._pages) >= MAX_PAGES:
            text = f"{MAX_PAGES} pages are open already: close one of them"
            await page.close(WSCloseCode.TRY_AGAIN_LATER, text)
            return websocket
        connection.keep()
        self._pages.add(page)
        sending = asyncio.create_task(self._send(page))
        try:
            await self._receive(page)
        finally:
            self._pages.discard(page)
            tasks = [sending, *page.requests]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return websocket

    async def _send(self, page: _Page) -> None:
        """Send the newest view whenever the page is ready; drop a page that never is."""
        shown = -1
        try:
            while True:
                await asyncio.wait_for(page.ready.wait(), _SILENCE)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(page.news.wait(), _REPEAT)
                await asyncio.sleep(page.sent + 1 / _IMAGE_RATE - time.monotonic())
                page.news.clear()
                page.sent = time.monotonic()
                view = self._view
                if view.image is None:
                    size_hw, jpeg = (0, 0), b""
                else:
                    size_hw, jpeg = await self._encode(view.number, view.image)
                jpeg = b"" if view.number == shown else jpeg
                shown = view.number
                page.ready.clear()
                page.arrived = view.arrived if jpeg else 0.0
                message = pack(view, size_hw, jpeg, page.latency)
                await asyncio.wait_for(page.websocket.send_bytes(message), _SILENCE)
        except asyncio.TimeoutError:
            page.connection.abort()
        except ConnectionError:
            pass  # the page was closed meanwhile
        except Exception as error:  # of whatever makes the image: the page connects again
            self._encoded = None
            text = f"the image cannot be shown: {type(error).__name__}: {error}"
            if text != self._fault:  # once, not for each image and page
                LOG.warning(text)
            self._fault = text
            with contextlib.suppress(Exception):
                short = text.encode()[:_LONGEST_REASON].decode(errors="ignore")
                await page.close(WSCloseCode.INTERNAL_ERROR, short)

    async def _encode(self, number: int, image: Callable[[], Image]) -> Encoded:
        """The JPEG of the image of this number: made once for all pages, outside this thread."""
        if self._encoded is None or self._encoded[0] != number:
            work = self._loop.run_in_executor(self._encoders, encode_jpeg, image)
            self._encoded = number, work
        return await asyncio.shield(self._encoded[1])

    async def _receive(self, page: _Page) -> None:
        async for message in page.websocket:
            if not page.allowance.take():
                text = f"more than {_PER_SECOND:g} messages a second"
                await page.close(WSCloseCode.POLICY_VIOLATION, text)
                return
            if message.type is not WSMsgType.TEXT:
                await page.close(WSCloseCode.UNSUPPORTED_DATA, "messages are texts")
                return
            number = 0
            try:
                number, request = parse(message.data)
            except ValueError as error:
                await page.answer(number, Reply(Code.INTERNAL_ERROR, str(error)))
                continue
            if isinstance(request, Shown):
                page.drawn()
            elif len(page.requests) >= _AT_ONCE:
                text = f"{_AT_ONCE} requests of this page are not answered yet"
                await page.answer(number, Reply(Code.CANCELLED, text))
            else:
                task = asyncio.create_task(self._answer(page, number, request))
                page.requests.add(task)
                task.add_done_callback(page.requests.discard)

    async def _answer(self, page: _Page, number: int, request: Request) -> None:
        try:
            answered = await asyncio.to_thread(self._handle, request)
            reply = await asyncio.wait_for(asyncio.wrap_future(answered), _PATIENCE)
        except asyncio.TimeoutError:
            reply = Reply(Code.TIMEOUT, f"no answer within {_PATIENCE:g} s")
        except Exception as error:  # whatever is wrong with a request, the others are served
            reply = Reply(Code.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        await page.answer(number, reply)


def _is_own_fault(record: logging.LogRecord) -> bool:
    """Whether a record tells of an error of the server: not of somebody who speaks no HTTP."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, http_exceptions.HttpProcessingError)


_HTTP_LOG.addFilter(_is_own_fault)


def _reason(error: OSError) -> str:
    """Why an address cannot be listened on, and the cure."""
    if isinstance(error, socket.gaierror):
        why, cure = error.strerror, _USE_OWN_ADDRESS
    else:  # the text of asyncio repeats the address
        why = os.strerror(error.errno) if error.errno else str(error)
        unknown = error.errno == errno.EADDRNOTAVAIL
        cure = _USE_OWN_ADDRESS if unknown else "choose another port, or 0 for any that is free"
    return f"{why}; {cure}"


class _Page:
    """One open page."""

    def __init__(self, websocket: web.WebSocketResponse, connection: Connection) -> None:
        self.websocket, self.connection = websocket, connection
        self.requests: set[asyncio.Task[None]] = set()
        self.ready, self.news = asyncio.Event(), asyncio.Event()
        self.ready.set()
        self.news.set()
        self.sent = 0.0  # s of the monotonic clock; the last message
        self.arrived = 0.0  # of the image that the page draws now; 0: it draws none
        self.latency: float | None = None
        self.allowance = Allowance(_PER_SECOND, _BURST)

    def drawn(self) -> None:
        """The page has drawn what was sent."""
        if self.arrived and not self.ready.is_set():
            self.latency = time.monotonic() - self.arrived
        self.ready.set()

    async def close(self, code: WSCloseCode, why: str = "") -> None:
        await self.websocket.close(code=code, message=why.encode())

    async def answer(self, number: int, reply: Reply) -> None:
        with contextlib.suppress(ConnectionError):
            await self.websocket.send_str(answer(number, reply))


def encode_jpeg(image: Callable[[], Image]) -> Encoded:
    """The image as JPEG, not larger than a screen; without a picture if it cannot be decoded."""
    try:
        rgb = image()
    except ValueError:
        return (0, 0), b""
    size_hw = rgb.shape[:2]
    scale = _LONGEST_SIDE / max(size_hw)
    if scale < 1:
        sides = tuple(max(1, round(side * scale)) for side in reversed(size_hw))
        rgb = cv2.resize(rgb, sides, interpolation=cv2.INTER_AREA)
    jpeg = encode_image(rgb, ".jpg", cv2.IMWRITE_JPEG_QUALITY, _QUALITY)
    return (size_hw[0], size_hw[1]), jpeg
