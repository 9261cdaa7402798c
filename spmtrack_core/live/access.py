"""Who may open the page: the names it is reached under, the origin of a request, and the token."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from urllib.parse import urlsplit


class Access:
    """Decides about requests by their headers.

    On the loopback address everybody on this computer may open the page, and nothing but the names
    of that address leads to it. On any other address the token in the URL is required.
    """

    def __init__(self, host: str) -> None:
        """``host`` is the address that the server listens on."""
        self.host = host
        self.local = _is_loopback(host)
        self.token = "" if self.local else secrets.token_urlsafe(16)
        own = socket.gethostname().lower()
        others = set() if self.local else {own, f"{own}.local", host.lower()}
        self._names = {"localhost", *others}

    def url(self, port: int, host: str | None = None) -> str:
        """Address of the page; ``host`` replaces the one that the server listens on."""
        name = host or (_own_address() if self.host in ("0.0.0.0", "::") else self.host)
        query = f"?token={self.token}" if self.token else ""
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/{query}"

    def reject_reason(
        self, host: str, origin: str | None, token: str, is_websocket: bool
    ) -> str | None:
        """Why a request must be rejected; None if it need not.

        ``host`` and ``origin`` are its headers. A page of another site can name this server by a
        name of its own (DNS rebinding): only known names and plain addresses are accepted.
        Browsers send the origin with every WebSocket: it must be the page of this server.
        """
        if not self._knows(host):
            known = ", ".join(sorted(self._names))
            return f"unknown Host {host[:80]!r}: open the page by its address, or as {known}"
        if origin is None:
            if is_websocket:
                return "a WebSocket needs the header Origin"
        elif _netloc(origin) != host.lower():
            return f"Origin {origin[:80]!r} is not this server, {host!r}"
        given = token.encode(errors="replace")
        if self.token and not hmac.compare_digest(given, self.token.encode()):
            return "the token is missing or wrong: open the address that the server printed"
        return None

    def _knows(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # a plain address cannot be rebound; the loopback server is reached under no other one
        return address.is_loopback or not self.local


def _netloc(url: str) -> str:
    """Name and port of a URL, in small letters; empty for what is none."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _own_address() -> str:
    """The address under which other computers see this one, or its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses a route, and sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
