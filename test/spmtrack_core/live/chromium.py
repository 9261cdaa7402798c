"""Chromium without a window, and a mouse on the live page; skips tests that import it without."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is absent: pip install playwright"
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
if CHROMIUM is None:
    pytest.skip("Chromium is absent: apt install chromium", allow_module_level=True)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@contextmanager
def chromium():
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


def place(page, x, y):
    """A pixel of the image in pixels of the page."""
    left, top, scale = page.evaluate(
        "() => { const at = frame(), box = stage.getBoundingClientRect();"
        " return [box.left + at.x, box.top + at.y, at.scale]; }"
    )
    return left + x * scale, top + y * scale


def drag(page, box, release=True):
    """A rectangle, xywh in pixels of the image."""
    x, y, w, h = box
    page.mouse.move(*place(page, x, y))
    page.mouse.down()
    page.mouse.move(*place(page, x + w, y + h), steps=4)
    if release:
        page.mouse.up()
