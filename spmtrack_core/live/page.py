"""The page that a browser gets, with the headers that keep it to itself."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

PAGE = Path(__file__).with_name("page.html")


def page_handler() -> Callable[[web.Request], Any]:
    """Answers with the page, which may load nothing and run no script but its own."""
    page = PAGE.read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = hashlib.sha256(text.group(1).encode() if text else b"").digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": (
            f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        ),
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",  # the address has the token
        "X-Content-Type-Options": "nosniff",
    }

    async def send_page(request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html", headers=headers)

    return send_page
