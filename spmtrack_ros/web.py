"""The live page of a tracker node: its images and targets in a browser, named with the mouse.

ros2 run spmtrack_ros web --ros-args -r image:=/camera/image_raw -p tracker:=/spmtrack
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from spmtrack_core.live.messages import MakePrimary, Request, ShownTarget, StartTarget, View
from spmtrack_core.live.messages import RemoveTarget as RemoveRequest
from spmtrack_core.session.frame_buffer import Frame, FrameBuffer
from spmtrack_core.session.init_request import Code, Reply
from spmtrack_core.tracking.followed import Reason, State
from spmtrack_ros.conversions import bbox_to_xywh, fill_bbox, fill_stamp, stamp_to_ns
from spmtrack_ros.image_topic import ImageTopic, image_codec
from spmtrack_ros.msg import TrackState, TrackStateArray
from spmtrack_ros.parameters import (
    NodeParameters,
    TrackerParameters,
    parameter,
    read_parameters,
    same_row,
)
from spmtrack_ros.program import run_program, spin
from spmtrack_ros.srv import InitTarget, RemoveTarget, SetPrimary
from spmtrack_ros.topics import STEADY

try:
    from spmtrack_core.live.server import LiveServer
except ModuleNotFoundError as error:  # aiohttp, which only this node needs
    LiveServer = None  # type: ignore[assignment, misc]
    _MISSING = f"{error.name} is not installed: pip install 'spmtrack_ros[live]'"

_BUFFER = 30, 100e6  # images, bytes: they wait here for the tracker's word on them
_PATIENCE = 1.0  # s after which an image is shown without that word
_LINGER = 2.0  # s without a page after which no images are taken any more
_SILENCE = 2.0  # s without an image or a word after which the page says why
_DISCOVERY = 2.0  # s that a request waits for the service of a tracker that has just started


@dataclass(frozen=True)
class WebParameters(NodeParameters):
    """The parameters of the node `web`."""

    tracker: str = parameter("spmtrack", "Name of the tracker node, in this namespace or with /.")
    host: str = parameter(
        "127.0.0.1", "Address to serve the page on; 0.0.0.0 for other computers: with a token."
    )
    port: int = parameter(8642, "Port of the page; 0: any that is free.", (0, 65535))
    image_transport: str = same_row(TrackerParameters, "image_transport")
    image_reliability: str = same_row(TrackerParameters, "image_reliability")
    max_pixels: int = same_row(TrackerParameters, "max_pixels")


class Web(Node):
    """Shows each image with the state that the tracker publishes for it, by the stamp of both.

    Subscribes to the images only while a page is open.
    """

    def __init__(self) -> None:
        """Open the page.

        Raises ``ValueError`` for a parameter that is unusable, ``OSError`` for an address that
        cannot be listened on and ``ImportError`` without aiohttp.
        """
        if LiveServer is None:
            raise ImportError(_MISSING)
        super().__init__("web")
        self.parameters = settings = read_parameters(self, WebParameters)
        self._lock = threading.Lock()  # guards the view and the names
        self._view, self._names = View(), 0
        self._buffer = FrameBuffer(*_BUFFER)
        self._received = 0
        self._status = TrackStateArray(enabled=True)
        self._last_image = self._last_word = self._last_page = time.monotonic()
        self._decode, _ = image_codec(settings.image_transport, settings.max_pixels)
        self._tracker = name = settings.tracker.rstrip("/")
        clients = {
            StartTarget: (InitTarget, "init_target"),
            RemoveRequest: (RemoveTarget, "remove_target"),
            MakePrimary: (SetPrimary, "set_primary"),
        }
        self._callers: dict[type, Any] = {
            request: self.create_client(kind, f"{name}/{service}")
            for request, (kind, service) in clients.items()
        }
        self.server = LiveServer(self.call_service, settings.host, settings.port)
        self._images: ImageTopic | None = None
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(TrackStateArray, f"{name}/status", self._on_status, latched)
        self.create_timer(0.5, self._on_timer, clock=STEADY)
        # not by the logger: whoever records /rosout would have the token
        print(f"{self.get_name()}: open {self.server.url}", flush=True)

    def close(self) -> None:
        """Close the page."""
        self.server.close()

    # Requests of the page, in threads of the server

    def call_service(self, request: Request) -> Future[Reply]:
        """Call the service of the tracker; its answer comes later."""
        done: Future[Reply] = Future()
        client = self._callers.get(type(request))
        if client is None:
            done.set_result(Reply(Code.INTERNAL_ERROR, "a camera cannot be paused from here"))
        elif not client.wait_for_service(_DISCOVERY):
            text = f"no node offers {client.srv_name}: is the tracker running?"
            done.set_result(Reply(Code.NOT_READY, text))
        else:
            call = client.call_async(self._message(request))
            call.add_done_callback(lambda call: _answer(done, call))
            # a page that gives up cancels its request
            done.add_done_callback(lambda _: client.remove_pending_request(call))
        return done

    def _message(self, request: Any) -> Any:
        if isinstance(request, RemoveRequest):
            return RemoveTarget.Request(id=request.id)
        if isinstance(request, MakePrimary):
            return SetPrimary.Request(id=request.id)
        message = InitTarget.Request(id=self._new_name())
        fill_stamp(message.header.stamp, request.stamp_ns)
        fill_bbox(message.bbox, request.box_xywh)
        return message

    def _new_name(self) -> str:
        """A name that no target has: each one that is drawn is added to the others."""
        with self._lock:
            taken = {state.id for state in self._status.targets}
            self._names += 1
            while f"target-{self._names}" in taken:
                self._names += 1
            return f"target-{self._names}"

    # Images and states, in the thread that spins

    def _on_image(self, message: Any) -> None:
        self._last_image = now = time.monotonic()
        self._received += 1
        stamp_ns, size = stamp_to_ns(message.header.stamp), len(message.data)
        frame = Frame(self._received, stamp_ns, message, message.header.frame_id, size, now)
        self._buffer.add(frame)
        if now - self._last_word > _PATIENCE or stamp_ns == stamp_to_ns(self._status.header.stamp):
            self._show(frame)

    def _on_status(self, message: TrackStateArray) -> None:
        same = message.header.stamp == self._status.header.stamp
        with self._lock:
            self._status = message
        stamp_ns, newest = stamp_to_ns(message.header.stamp), self._buffer.newest
        frames = self._buffer.since(stamp_ns)
        if not same or (newest and newest.stamp_ns == stamp_ns):  # stamps may stand still
            self._last_word = time.monotonic()
        self._show(frames[0] if frames and not same else None)

    def _on_timer(self) -> None:
        now, settings = time.monotonic(), self.parameters
        if self.server.pages:
            self._last_page = now
            if self._images is None:
                self._last_image = self._last_word = now
                self._images = ImageTopic(
                    self, self._on_image, settings.image_transport, settings.image_reliability
                )
        elif self._images is not None and now - self._last_page > _LINGER:
            self.destroy_subscription(self._images.subscription)
            self._images = None
            self._buffer.clear()
            with self._lock:
                self._view = View(self._view.number)  # the next page begins with a new image
        self._show(None)

    def _show(self, frame: Frame | None) -> None:
        """Show an image, or with None the one that is shown, with the present state."""
        with self._lock:
            view = self._view
            if frame is not None and frame.number > view.number:
                message = frame.message
                view = replace(
                    view,
                    number=frame.number,
                    stamp_ns=frame.stamp_ns,
                    image=lambda: np.asarray(self._decode(message)),
                    arrived=frame.arrival,
                )
            self._view = replace(
                view,
                targets=tuple(_shown(each, view.stamp_ns) for each in self._status.targets),
                seconds=self._status.processing_time,
                hint=self._hint(),
            )
            self.server.show(self._view)

    def _hint(self) -> str:
        """What keeps the page from showing something, and the cure; empty if nothing does."""
        now = time.monotonic()
        if self._images is None:  # nobody looks
            return ""
        if now - self._last_image > _SILENCE:
            return self._images.why_silent(self._images.publishers())
        if not self._status.enabled:
            return f"tracking is disabled: call {self._tracker}/enable"
        if now - self._last_word > _SILENCE:
            name = self._tracker
            if not self.count_publishers(f"{name}/status"):
                return f"no node {name}: is the tracker running, and under this name?"
            return f"{name} says nothing of these images: does it get them, and is it active?"
        return self._status.message


def _shown(state: TrackState, stamp_ns: int) -> ShownTarget:
    """A target as the page draws it over the image of ``stamp_ns``."""
    lost = state.state == State.LOST
    known = lost or stamp_to_ns(state.header.stamp) == stamp_ns
    return ShownTarget(
        state.id,
        _word(State, state.state),
        state.score,
        bbox_to_xywh(state.bbox) if known else None,
        state.label,
        state.primary,
        _word(Reason, state.reason) if state.reason else "",
    )


def _word(kind: type[IntEnum], number: int) -> str:
    """The name of a constant; a newer tracker may have others."""
    try:
        return kind(number).name.lower().replace("_", " ")
    except ValueError:
        return f"unknown ({number})"


def _answer(done: Future[Reply], call: Any) -> None:
    """Pass on what the service answered."""
    response = call.result()
    if response is not None:  # None: the call was given up
        code, text = response.code, response.message
        if code not in list(Code):  # of a newer tracker
            text = f"code {code}: {text}"
            code = Code.OK if response.success else Code.INTERNAL_ERROR
        reply = Reply(Code(code), text, getattr(response, "id", ""))
        with contextlib.suppress(InvalidStateError):  # the page has gone meanwhile
            done.set_result(reply)


def main(args: list[str] | None = None) -> int:
    """Serve the page until SIGINT or SIGTERM; 2 if it cannot be served."""
    return run_program("web", Web, spin, args, Web.close)


if __name__ == "__main__":
    sys.exit(main())
