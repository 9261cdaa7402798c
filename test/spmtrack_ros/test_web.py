"""The node `web` in another process beside a tracker, over real DDS, seen from a page."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import threading
from concurrent.futures import Future
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")
aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is absent: pip install '.[live]'")

from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from spmtrack_core.session.frame_buffer import Frame, FrameBuffer
from spmtrack_core.session.init_request import Code, Reply
from spmtrack_ros import web
from spmtrack_ros.conversions import fill_compressed, fill_stamp
from spmtrack_ros.msg import TrackState, TrackStateArray
from spmtrack_ros.srv import InitTarget, RemoveTarget
from test.spmtrack_ros.peer import (
    BOX,
    MS,
    RELIABLE,
    STARTUP,
    Peer,
    output_of,
    picture,
    start_node,
    start_process,
    stop_node,
)
from test.spmtrack_ros.wrong_parameters import assert_refused

pytestmark = pytest.mark.ros


def start_web(*parameters, image="image"):
    command = [sys.executable, "-m", "spmtrack_ros.web", "--ros-args", "-p", "port:=0"]
    command += ["-r", f"image:={image}"]
    for parameter in (RELIABLE, *parameters):
        command += ["-p", parameter]
    return start_process(command)


def address_of(process, peer):
    def found():
        assert process.poll() is None, output_of(process)
        return re.search(r"open (http://\S+)", output_of(process))

    assert peer.until(found, STARTUP), output_of(process)
    return found().group(1)


class Page:
    """A page that draws whatever it gets, in a thread of its own."""

    def __init__(self, peer, address):
        self.peer, self.view, self.jpeg, self.answers = peer, None, b"", {}
        self._loop = asyncio.new_event_loop()
        self._opened = threading.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._live(address.rstrip("/")),)
        )
        self._thread.start()
        assert self._opened.wait(STARTUP)

    async def _live(self, address):
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{address}/live", headers={"Origin": address}) as self.socket,
        ):
            self._opened.set()
            async for message in self.socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    answer = json.loads(message.data)
                    self.answers[answer["request"]] = answer
                else:
                    length = int.from_bytes(message.data[:4], "big")
                    self.jpeg = message.data[4 + length :] or self.jpeg
                    self.view = json.loads(message.data[4 : 4 + length])
                    await self.socket.send_str('{"type": "shown"}')

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(STARTUP)

    def until(self, condition, timeout=60.0):
        reached = self.peer.until(lambda: self.view is not None and condition(self), timeout)
        assert reached, self.view

    def ask(self, meanwhile=lambda: None, **fields):
        number = len(self.answers) + 1
        self._run(self.socket.send_str(json.dumps(fields | {"request": number})))
        meanwhile()
        self.until(lambda page: number in page.answers)
        return self.answers[number]

    def send(self, number, stamp_ms):
        """An image through the tracker; returns when the page shows it."""
        self.peer.send(picture(number), stamp_ms)
        self.until(lambda page: page.view["stamp"] == str(stamp_ms * MS))

    def close(self):
        self._run(self.socket.close())
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def running(tiny_checkpoint):
    tracker = start_node(RELIABLE, "init_timeout:=1.5", weights=tiny_checkpoint)
    process = start_web()
    peer = Peer()
    try:
        address = address_of(process, peer)
        peer.wait_for_node(tracker)
        page = Page(peer, address)
        assert peer.until(lambda: peer.camera.get_subscription_count() == 2, STARTUP)
        yield SimpleNamespace(peer=peer, page=page, process=process, tracker=tracker)
        page.close()
    finally:
        peer.close()
        code, output = stop_node(process)
        stop_node(tracker)
    assert code == 0 and "Traceback" not in output, output


@pytest.fixture
def page(running):
    running.peer.start_over()
    running.page.until(lambda page: page.view["targets"] == [])
    return running.page


def test_each_image_is_shown_with_the_state_that_belongs_to_it(page):
    page.send(0, 10)
    assert (page.view["width"], page.view["height"], page.view["targets"]) == (240, 180, [])
    assert page.jpeg.startswith(b"\xff\xd8") and page.view["playback"] is None
    x, y, w, h = BOX
    answer = page.ask(type="start", stamp=page.view["stamp"], box=[x, y, w, h])
    assert (answer["code"], answer["message"]) == ("OK", "")
    name = answer["id"]
    page.until(lambda page: page.view["targets"])
    for stamp in (20, 30):
        page.send(0, stamp)
        (target,) = page.view["targets"]
        assert target["id"] == name and target["primary"] and len(target["box"]) == 4
        assert target["label"] == "object" and target["state"] in ("tracking", "uncertain")
    assert page.view["seconds"] > 0


def test_the_image_that_was_on_the_screen_is_the_one_the_target_starts_in(page, running):
    for stamp in (110, 120, 130, 140):
        page.send(0, stamp)
    answer = page.ask(type="start", stamp=str(120 * MS), box=list(BOX))
    assert answer["code"] == "OK"
    assert running.peer.until(lambda: running.peer.status[-1].targets)
    answer = page.ask(type="start", stamp=str(1 * MS), box=list(BOX))
    assert answer["code"] == "STAMP_NOT_BUFFERED" and "0.110000000 to 0.14" in answer["message"]


def test_targets_are_added_removed_and_made_primary(page):
    page.send(0, 210)
    stamp = page.view["stamp"]
    first = page.ask(type="start", stamp=stamp, box=list(BOX))["id"]
    second = page.ask(type="start", stamp=stamp, box=[10, 10, 50, 50])["id"]
    assert first != second
    page.until(lambda page: [each["id"] for each in page.view["targets"]] == [first, second])
    assert page.ask(type="primary", id=second)["code"] == "OK"
    page.until(lambda page: [each["primary"] for each in page.view["targets"]] == [False, True])
    assert page.ask(type="remove", id=second)["code"] == "OK"
    page.until(lambda page: [each["id"] for each in page.view["targets"]] == [first])
    answer = page.ask(type="remove", id=second)
    assert answer["code"] == "UNKNOWN_ID" and first in answer["message"]
    assert page.ask(type="start", stamp=stamp, box=[1, 1, 2, 2])["code"] == "BOX_TOO_SMALL"
    assert "cannot be paused" in page.ask(type="pause")["message"]


def test_a_disabled_tracker_is_said_and_images_go_on(page, running):
    running.peer.call(SetBool, "enable", data=False)

    def shown(page):
        running.peer.send(picture(1), 5000, wait=False)
        return "tracking is disabled" in page.view["hint"] and page.view["stamp"] == "5000000000"

    try:
        page.until(shown)
    finally:
        running.peer.call(SetBool, "enable", data=True)


def test_it_needs_no_torch(running):
    libraries = Path(f"/proc/{running.process.pid}/maps").read_text()
    assert "libtorch" not in libraries


def test_silence_and_a_tracker_that_ends_are_explained(page, running):
    page.send(0, 310)
    page.until(lambda page: "image" in page.view["hint"])  # no more images come
    stop_node(running.tracker)

    def told(page):
        running.peer.send(picture(2), 400, wait=False)
        return "no node spmtrack" in page.view["hint"]

    page.until(told, 60)
    answer = page.ask(type="start", stamp="0", box=list(BOX))
    assert answer["code"] == "NOT_READY" and "is the tracker running" in answer["message"]


def test_compressed_images_without_a_tracker_and_a_request_just_before_it_starts():
    process = start_web("image_transport:=compressed", "tracker:=nobody/")
    peer = Peer("nobody", CompressedImage, "image/compressed")
    try:
        page = Page(peer, address_of(process, peer))
        assert peer.until(peer.camera.get_subscription_count, STARTUP)

        def shown(page):
            header = Header()
            fill_stamp(header.stamp, 7 * MS)
            peer.camera.publish(fill_compressed(CompressedImage(), picture(3), header))
            return page.jpeg and "no node nobody" in page.view["hint"]

        page.until(shown)
        assert (page.view["width"], page.view["stamp"]) == (240, "7000000")

        def start_tracker():
            peer.until(lambda: False, 0.3)
            name = "/nobody/remove_target"
            peer.node.create_service(RemoveTarget, name, lambda _, answer: answer)

        assert page.ask(start_tracker, type="remove", id="a")["code"] == "OK"
        page.close()
    finally:
        peer.close()
        code, output = stop_node(process, signal.SIGTERM)
    assert code == 0 and "Traceback" not in output, output


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("host:=203.0.113.1", "cannot listen on 203.0.113.1"),
        ("tracker:=my-robot", "contain characters other than alphanumerics"),
        ("image_transport:=theora", "parameter 'image_transport' is 'theora'"),
    ],
)
def test_a_wrong_parameter_is_one_line_and_exit_code_2(parameter, words):
    assert_refused("web", start_web(parameter), words)


def test_another_computer_needs_the_token_that_is_logged():
    process = start_web("host:=0.0.0.0")
    peer = Peer("nobody")
    try:
        address = address_of(process, peer)
        assert re.fullmatch(r"http://(?!0\.0\.0\.0)[\w.:\[\]-]+:\d+/\?token=\S{20,}", address)
    finally:
        peer.close()
        stop_node(process)


def test_without_aiohttp_the_cure_is_named():
    code = "import sys; sys.modules['aiohttp'] = None; from spmtrack_ros.web import main; "
    process = start_process([sys.executable, "-c", f"{code}sys.exit(main([]))"])
    process.wait(STARTUP)
    code, output = stop_node(process)
    assert code == 2 and "Traceback" not in output
    assert "aiohttp is not installed: pip install 'spmtrack_ros[live]'" in output


def test_images_are_taken_only_while_a_page_is_open():
    process = start_web("tracker:=nobody", image="other")
    peer = Peer("nobody", topic="other")
    try:
        address = address_of(process, peer)
        for _ in range(2):
            assert not peer.camera.get_subscription_count()
            page = Page(peer, address)
            page.until(lambda page: True)
            assert page.view["width"] == 0  # not the last image of the page before
            assert peer.until(peer.camera.get_subscription_count)

            def shown(page):
                peer.send(picture(1), 10, wait=False)
                return page.view["width"]

            page.until(shown)
            page.close()
            assert peer.until(lambda: not peer.camera.get_subscription_count())
    finally:
        peer.close()
        code, output = stop_node(process)
    assert code == 0 and "Traceback" not in output, output


def test_a_camera_whose_stamps_stand_still_is_followed_without_a_hint():
    node = SimpleNamespace(_lock=threading.Lock(), _buffer=FrameBuffer(), _last_word=0.0)
    node._status, node._show = TrackStateArray(), lambda frame: None
    web.Web._on_status(node, TrackStateArray())
    assert not node._last_word  # of no image
    node._buffer.add(Frame(1, 0, None))
    web.Web._on_status(node, TrackStateArray())
    assert node._last_word


def test_its_parameters_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "live.md").read_text(encoding="utf-8")
    shown = {
        name
        for row in re.findall(r"^\| (`\w+`.*?) \|", text, re.M)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert shown == {row.name for row in fields(web.WebParameters)}


def test_numbers_of_a_newer_tracker_are_shown():
    shown = web._shown(TrackState(id="a", state=77, reason=88), 5)
    assert (shown.state, shown.reason) == ("unknown (77)", "unknown (88)")
    for success, code in ((True, Code.OK), (False, Code.INTERNAL_ERROR)):
        answer, done = (
            InitTarget.Response(success=success, code=99, message="no", id="a"),
            Future(),
        )
        web._answer(done, SimpleNamespace(result=lambda answer=answer: answer))
        assert done.result(0) == Reply(code, "code 99: no", "a")


def test_a_lost_target_keeps_its_last_box_and_its_reason():
    state = TrackState(id="a", state=TrackState.LOST, reason=TrackState.REASON_LEFT_IMAGE)
    state.bbox.size_x = state.bbox.size_y = 10.0
    shown = web._shown(state, 5)
    assert (shown.state, shown.reason) == ("lost", "left image")
    assert shown.box_xywh == (-5.0, -5.0, 10.0, 10.0)
    state.state = TrackState.TRACKING
    assert web._shown(state, 5).box_xywh is None  # of another image
