"""Limits of a connection, whatever it sends: its bytes, its time to open a page, its number.

They stand below HTTP, because headers that never end, frames without content and connections
without a request reach no handler.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

MAX_WAITING = 64
"""Connections that have not opened a page; one more drops the one that waits for longest."""
_PATIENCE = 10.0  # s until a connection has opened a page
_PER_SECOND = 32_000.0  # bytes; a page that acknowledges 60 images a second sends 1500
_BURST = 64_000.0


class Allowance:
    """So much per second, and up to ``burst`` at once."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._counted = burst, time.monotonic()

    def take(self, amount: float = 1.0) -> bool:
        """Whether ``amount`` more is within the allowance."""
        now = time.monotonic()
        earned = (now - self._counted) * self._per_second
        self._left, self._counted = min(self._burst, self._left + earned) - amount, now
        return self._left >= 0


class Connections:
    """Makes a protocol for each new connection, as ``loop.create_server`` asks for."""

    def __init__(self, make: Callable[[], asyncio.Protocol]) -> None:
        """``make`` gives the protocol that speaks HTTP."""
        self._make = make
        self.waiting: dict[Connection, None] = {}  # ordered: the oldest first

    def __call__(self) -> Connection:
        """A new connection."""
        if len(self.waiting) >= MAX_WAITING:
            next(iter(self.waiting)).abort()
        connection = Connection(self._make(), self.waiting)
        self.waiting[connection] = None
        return connection


class Connection(asyncio.Protocol):
    """Passes on to another protocol what is within the limits."""

    def __init__(self, inner: asyncio.Protocol, waiting: dict[Connection, None]) -> None:
        self._inner, self._waiting = inner, waiting
        self._allowance = Allowance(_PER_SECOND, _BURST)
        self._transport: asyncio.Transport | None = None
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self.abort)

    def keep(self) -> None:
        """The connection has become an open page: its time is no longer limited."""
        self._timer.cancel()
        self._waiting.pop(self, None)

    def abort(self) -> None:
        """Drop the connection without waiting for the other side."""
        self.keep()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless the connection was dropped before."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._inner.connection_made(transport)
        if self not in self._waiting:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass on the data, or drop who sends too much."""
        if self._allowance.take(len(data)):
            self._inner.data_received(data)
        else:
            self.abort()

    def eof_received(self) -> bool | None:
        """Pass on the end of the data."""
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self.keep()
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        """Pass on that the other side does not read."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it reads again."""
        self._inner.resume_writing()
