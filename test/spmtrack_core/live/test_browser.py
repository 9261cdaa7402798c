"""The page in a real browser: a headless Chromium that drags, clicks, types and touches."""

from __future__ import annotations

import re
from concurrent.futures import Future
from dataclasses import replace

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")

from spmtrack_core.live.access import Access
from spmtrack_core.live.messages import ShownTarget
from spmtrack_core.live.tracking import LiveTracking
from test.spmtrack_core.live.chromium import chromium, drag, place, playwright
from test.spmtrack_core.live.squares import HIDDEN, ColorTracker, blue, red, squares

SECOND = 1_000_000_000
PATIENCE = 20_000  # ms
COLORS = [(86, 180, 233), (230, 159, 0)]  # of the first two targets
expect = playwright.expect
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


class Live:
    """What ``spmtrack live`` serves, and a page of it."""

    def __init__(self, browser, sequence, port=0, **context):
        self.tracking = LiveTracking(sequence, ColorTracker(), port=port)
        self.context = browser.new_context(viewport={"width": 1000, "height": 600}, **context)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.faults = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self.note)
        self.page.goto(self.tracking.server.url)
        self.tracking.start()
        self.until("bitmap !== null")

    def note(self, message):
        # the connection is lost on purpose in one test
        if message.type == "error" and "ERR_CONNECTION" not in message.text:
            self.faults.append(message.text)

    def until(self, condition):
        self.page.wait_for_function(f"() => {condition}")

    def place(self, x, y):
        return place(self.page, x, y)

    def drag(self, box, release=True):
        drag(self.page, box, release)

    def follow(self, box, name):
        self.drag(box)
        self.until(f"view.targets.some((each) => each.id === '{name}' && each.box)")
        expect(self.row(name)).to_be_visible()

    def row(self, name):
        return self.page.locator(f"#targets li[data-id='{name}']")

    def target(self, name):
        return self.page.evaluate(f"view.targets.find((each) => each.id === '{name}')")

    def index(self):
        return round((int(self.page.evaluate("view.stamp")) - SECOND) * 30 / SECOND)

    def colors(self, box):
        """The colors on the canvas along the upper edge of a box."""
        x, y, w, _ = box
        return {
            tuple(color)
            for color in self.page.evaluate(
                """([x, y, w]) => {
                    draw();
                    const at = frame(), ratio = devicePixelRatio;
                    const left = (at.x + x * at.scale) * ratio;
                    const top = (at.y + y * at.scale) * ratio;
                    const row = pen.getImageData(left, top, w * at.scale * ratio, 1).data;
                    return Array.from({ length: row.length / 4 }, (_, i) =>
                        Array.from(row.slice(4 * i, 4 * i + 3)));
                }""",
                [x, y, w],
            )
        }

    def close(self):
        self.context.close()
        self.tracking.close()


@pytest.fixture
def open_live(browser):
    opened = []

    def start(sequence=None, **options):
        opened.append(Live(browser, sequence or squares(), **options))
        return opened[-1]

    yield start
    for each in opened:
        each.close()
    for each in opened:
        assert each.faults == []


def test_drag_follow_lose_find_and_remove(open_live):
    live = open_live()
    page = live.page
    expect(page.locator("#prompt")).to_have_text(re.compile("Drag a rectangle .* press Play"))
    live.follow(red(0), "target-1")
    expect(page.locator("#prompt")).to_be_hidden()
    x, y, w, h = live.target("target-1")["box"]
    assert (x, y, w, h) == pytest.approx(red(0), abs=0.6)  # a pixel of the screen is half of one
    assert live.index() == 0
    page.keyboard.press(".")
    live.until("view.stamp !== '1000000000'")
    assert live.index() == 1 and live.target("target-1")["box"] == list(red(1))
    assert COLORS[0] in live.colors(red(1))
    page.locator("#place").fill("2")  # the red square is hidden in this image
    expect(live.row("target-1")).to_contain_text("LOST")
    expect(live.row("target-1")).to_contain_text("low confidence")
    expect(page.locator("#spoken")).to_have_text(re.compile("target-1 is lost"))
    assert live.index() in HIDDEN
    dotted = live.colors(live.target("target-1")["box"])
    assert COLORS[0] in dotted and len(dotted) > 2  # the image between the dots
    page.get_by_role("button", name="Play").click()
    expect(live.row("target-1")).to_contain_text("tracking")
    page.get_by_role("button", name="Remove target-1").click()
    expect(live.row("target-1")).to_have_count(0)
    expect(page.locator("#spoken")).to_have_text("target-1 is removed")


def test_the_image_stays_while_a_rectangle_is_drawn_in_it(open_live):
    live = open_live(squares(fps=2.0))
    page = live.page
    page.keyboard.press(" ")
    live.until("view.playback.playing && Number(view.stamp) > 1.2e9")
    live.drag((10, 10, 20, 20), release=False)
    stamp = page.evaluate("held.view.stamp")
    picture = page.evaluate("(draw(), stage.toDataURL())")
    live.until(f"Number(view.stamp) > {stamp} + 4e8")  # other images came
    assert page.evaluate("(draw(), stage.toDataURL())") == picture
    page.keyboard.press("Escape")
    page.mouse.up()
    assert page.evaluate("view.targets.length") == 0

    page.mouse.move(*live.place(*blue(60)[:2]))
    page.mouse.down()
    stamp = int(page.evaluate("held.view.stamp"))
    index = round((stamp - SECOND) * 2 / SECOND)
    x, y, w, h = blue(index)
    page.mouse.move(*live.place(x + w, y + h))
    page.evaluate(f"[corner[0], corner[1]] = [{x}, {y}]")
    live.until(f"Number(view.stamp) > {stamp} + 2e8")
    page.mouse.up()
    expect(page.locator("#note")).to_contain_text("Following target-1")
    started = live.tracking._session.snapshot().targets[0]
    assert started.first_ns == stamp  # the image that the rectangle was drawn in
    live.until("view.targets.length && view.targets[0].box")
    assert live.target("target-1")["box"][2:] == list(blue(0)[2:])


def test_several_targets_by_mouse_and_keys(open_live):
    live = open_live()
    page = live.page
    live.follow(red(0), "target-1")
    live.follow(blue(0), "target-2")
    page.keyboard.press(".")
    live.until("view.stamp !== '1000000000'")
    assert COLORS[0] in live.colors(red(1)) and COLORS[1] in live.colors(blue(1))
    assert COLORS[1] not in live.colors(red(1))
    x, y, w, h = blue(1)
    live.until("selected === 'target-2'")
    page.mouse.click(*live.place(x + w / 2, y + h / 2))  # the selected one: let go
    live.until("selected === ''")
    page.mouse.click(*live.place(x + w / 2, y + h / 2))
    live.until("selected === 'target-2'")
    expect(live.row("target-2")).to_have_class("selected")
    page.keyboard.press("p")
    live.until("view.targets[1].primary && !view.targets[0].primary")
    expect(live.row("target-2")).to_contain_text("★")
    page.keyboard.press("Delete")
    expect(live.row("target-2")).to_have_count(0)
    page.get_by_role("button", name="target-1 tracking").click()
    page.keyboard.press("Delete")
    expect(live.page.get_by_text("None yet.")).to_be_visible()


def test_a_target_is_named_with_the_keyboard_alone(open_live):
    live = open_live()
    page = live.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "stage"
    for _ in range(17):  # from the middle, 160 90, by 6.4 px
        page.keyboard.press("ArrowLeft")
    for _ in range(6):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator("#spoken")).to_have_text(re.compile("First corner"))
    for key in ("ArrowLeft",) * 4 + ("ArrowUp",) * 2:
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    live.until("view.targets.length === 1 && view.targets[0].box")
    box = live.target("target-1")["box"]
    assert box == pytest.approx([24.6, 38.8, 25.6, 12.8], abs=0.1)


def test_a_rejected_box_is_explained(open_live):
    live = open_live()
    live.drag((5, 5, 200, 3))
    expect(live.page.locator("#note")).to_contain_text(
        re.compile("box too small: .*init_min_side")
    )
    live.page.evaluate("remove('nobody')")
    expect(live.page.locator("#note")).to_contain_text("nobody")
    expect(live.page.locator("#spoken")).to_be_empty()  # nothing is removed


def test_reload_and_a_server_that_comes_back(open_live, browser):
    live = open_live()
    page, port = live.page, live.tracking.server.port
    live.follow(red(0), "target-1")
    page.reload()
    expect(live.row("target-1")).to_contain_text("tracking")
    live.until("bitmap !== null")
    page.evaluate("socket.onmessage = null; socket.old = true; heard = -30_000")  # silence
    live.until("!socket.old && socket.readyState === WebSocket.OPEN")
    live.tracking.server._handle = lambda request: Future()  # which nobody answers
    page.evaluate("request('play')")
    live.tracking.close()
    expect(page.locator("#state")).to_have_text("connection lost")
    expect(page.locator("#note")).to_have_text(re.compile("lost before the answer"))
    expect(page.locator("#why")).to_contain_text("Trying again")
    live.tracking = LiveTracking(squares(), ColorTracker(), port=port)
    live.tracking.start()
    expect(page.locator("#state")).to_have_text("connected")
    expect(page.locator("#cover")).to_be_hidden()
    expect(live.row("target-1")).to_have_count(0)
    live.follow(red(0), "target-1")


def test_a_phone_with_a_finger(open_live):
    live = open_live(squares(fps=2.0), has_touch=True, is_mobile=True, device_scale_factor=2)
    page = live.page
    live.tracking._recording = f"{'a' * 80}.mp4"
    live.tracking._refresh()
    expect(page.locator("#rec")).to_be_visible()
    for size in ((390, 780), (780, 390), (1200, 700), (320, 560)):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], size
        width, height = page.evaluate("[frame().w, frame().h]")
        assert width / height == pytest.approx(320 / 180, rel=0.01)
        assert width > 0.4 * min(size[0], 600), size
    page.set_viewport_size({"width": 390, "height": 780})
    live.until("Math.abs(frame().w - stage.getBoundingClientRect().width) < 2")
    touch = live.context.new_cdp_session(page)
    x, y, w, h = red(0)
    points = [live.place(x + part * w, y + part * h) for part in (0.0, 0.3, 0.7, 1.0)]

    def finger(kind, *points):
        given = [{"x": px, "y": py} for px, py in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

    finger("touchStart", points[0])
    for each in points[1:]:
        finger("touchMove", each)
    finger("touchEnd")
    live.until("view.targets.length === 1 && view.targets[0].box")
    assert live.target("target-1")["box"] == pytest.approx(red(0), abs=1.0)
    live.until("selected === 'target-1'")
    page.touchscreen.tap(*live.place(x + w / 2, y + h / 2))
    live.until("selected === ''")
    page.keyboard.press(" ")
    slider = page.locator("#place").bounding_box()
    x, y, w = slider["x"], slider["y"] + slider["height"] / 2, slider["width"]
    finger("touchStart", (x + 0.1 * w, y))
    for part in (0.3, 0.6, 0.9):
        finger("touchMove", (x + part * w, y))
    shown = page.evaluate("view.playback.position")
    live.until(f"view.playback.position > {shown + 0.1}")  # images come meanwhile
    assert page.evaluate("Number($('place').value)") > 40
    finger("touchEnd")
    live.until("view.playback.position > 40")


def test_the_place_in_a_video(open_live):
    live = open_live()
    live.page.locator("#place").fill("2")
    live.until("view.playback.position === 2")
    assert live.index() == 60
    expect(live.page.locator("#time")).to_have_text("0:02.0 of 0:04.0")
    live.page.keyboard.press("End")  # of the slider, which has the focus
    live.page.get_by_role("button", name="Again").click()
    live.until("view.playback.playing && view.playback.position < 2")


def test_every_control_has_a_name_and_an_image_that_stops_is_said(open_live):
    live = open_live(squares(live=True, length=3))
    live.drag(red(2))
    expect(live.row("target-1")).to_be_visible()
    nameless = live.page.evaluate(
        "[...document.querySelectorAll('button, input, canvas')].filter((each) =>"
        " !(each.getAttribute('aria-label') || each.textContent.trim())).length"
    )
    assert nameless == 0
    roles = live.page.evaluate("[...document.querySelectorAll('[aria-live], [role]')].length")
    assert roles >= 5


def test_a_state_of_a_newer_tracker_is_shown_as_it_is(open_live):
    live = open_live()
    view = replace(live.tracking.server._view, number=99)
    live.tracking.server.show(
        replace(view, targets=(ShownTarget("a", "unknown (7)", 0.5, red(0)),))
    )
    expect(live.row("a")).to_contain_text("unknown (7)")
    assert COLORS[0] in live.colors(red(0))


def test_a_page_that_waits_for_images_says_so(browser):
    tracking = LiveTracking(squares(), ColorTracker())  # is not started
    page = browser.new_page()
    page.goto(tracking.server.url)
    expect(page.locator("#why")).to_have_text("Waiting for the first image.")
    page.close()
    tracking.close()


def test_the_token_of_the_address_reaches_the_websocket(browser):
    tracking = LiveTracking(squares(), ColorTracker())
    server = tracking.server
    server.access = access = Access("0.0.0.0")
    tracking.start()
    page = browser.new_page()
    assert page.goto(f"http://127.0.0.1:{server.port}/").status == 403
    page.goto(access.url(server.port, "127.0.0.1"))
    expect(page.locator("#state")).to_have_text("connected")
    server.access = Access("0.0.0.0")  # of a program that was started again
    page.evaluate("socket.close()")
    expect(page.locator("#why")).to_contain_text("the token is missing or wrong: open")
    page.close()
    tracking.close()
