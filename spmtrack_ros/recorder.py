"""The demo's client: gives the target to the node and joins images and detections by stamp."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from spmtrack_core.data.recording import SampledFrames, VideoRecorder
from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.geometry.drawing import GREEN, ORANGE, WHITE, draw_box
from spmtrack_core.geometry.image import Image
from spmtrack_ros.conversions import bbox_to_xywh, fill_bbox, stamp_to_ns
from spmtrack_ros.images import image_to_array
from spmtrack_ros.msg import TrackStateArray
from spmtrack_ros.srv import InitTarget

_MAX_REQUESTS = 5  # until the demo gives up
STATE_COLORS = {"tracking": GREEN, "lost": ORANGE}


@dataclass(frozen=True)
class Row:
    """One frame of the video with what the node published for it."""

    stamp_ns: int
    state: str
    """tracking, lost, waiting (no target yet) or skipped (a newer image was processed instead)."""
    box_xywh: tuple[float, ...] = (np.nan,) * 4
    score: float = np.nan
    latency: float = np.nan
    """s from the image's stamp to the arrival of its detection."""


class Recorder(Node):
    """Gives the target in the first image, then joins images and detections by stamp."""

    def __init__(
        self,
        box_xywh: Sequence[float] | Boxes,
        boxes_xywh: Boxes | None,
        label: str,
        video: VideoRecorder,
    ) -> None:
        """``box_xywh`` is the box in the first image, ``boxes_xywh`` those in all, if known."""
        super().__init__("spmtrack_demo")
        self.rows: list[Row] = []
        self.processing: dict[int, float] = {}
        """Processing time in s of the images, by stamp in ns."""
        self.reply: Any = None
        self._box, self._boxes, self._label, self._video = box_xywh, boxes_xywh, label, video
        self._header = Header()
        self._received = 0
        self._requests = 0
        self._images: deque[tuple[int, Image]] = deque()
        self._detections: dict[int, tuple[Sequence[Any], float]] = {}
        self._newest_detection = -1
        self._pictures = SampledFrames()
        self._init = self.create_client(InitTarget, "spmtrack/init_target")
        self._subscribe(Detection2DArray, "spmtrack/detections", self._on_detections)
        self._subscribe(TrackStateArray, "spmtrack/status", self._on_status)

    def node_ready(self) -> bool:
        """Whether the node offers its service and topics."""
        return self._init.service_is_ready() and bool(self.count_publishers("spmtrack/detections"))

    def start(self) -> None:
        """Subscribe to the images, which the publisher waits for."""
        self._subscribe(ImageMessage, "image", self._on_image)

    @property
    def ended(self) -> bool:
        """Whether images arrived and the publisher has gone."""
        return bool(self.rows or self._images) and not self.count_publishers("image")

    def flush(self, all_images: bool = False) -> int:
        """Write the images whose detections are complete; return how many are left."""
        while self._images and (all_images or self._images[0][0] <= self._newest_detection):
            stamp_ns, image = self._images.popleft()
            row = self._row(stamp_ns)
            label = f"{self._label} {row.score:.2f}" if row.state == "tracking" else row.state
            drawn = draw_box(image, row.box_xywh, label, STATE_COLORS.get(row.state, WHITE))
            self._video.write(drawn)
            if row.state in STATE_COLORS:  # a skipped image shows no box
                self._pictures.add(drawn)
            self.rows.append(row)
        return len(self._images)

    def pictures(self) -> list[Image]:
        """At most twelve annotated frames, evenly spaced over the video."""
        return self._pictures.frames()

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> None:
        # Reliable and deep: unlike tracking, a recording must be complete.
        self.create_subscription(kind, topic, callback, QoSProfile(depth=100))

    def request_target(self) -> None:
        """Call ~/init_target with the box in the newest image, if that is known."""
        index = self._received - 1
        box = self._box if index == 0 or self._boxes is None else self._boxes[index]
        if not np.isfinite(box).all():
            return
        x, y, w, h = map(float, box)
        request = InitTarget.Request(header=self._header, label=self._label)
        fill_bbox(request.bbox, (x, y, w, h))
        self.reply = self._init.call_async(request)
        self._requests += 1

    def check_reply(self) -> None:
        """Raise ``ValueError`` if the node has rejected the target.

        A busy node may have missed the image of the box. Where the boxes of all images are known,
        the newest one is requested instead.
        """
        reply = self.reply.result() if self.reply.done() else None
        if reply is None or reply.success:
            return
        missed = reply.code == InitTarget.Response.CODE_STAMP_NOT_BUFFERED
        if not missed or self._boxes is None or self._requests == _MAX_REQUESTS:
            raise ValueError(f"the node rejected the target: {reply.message}")
        self.request_target()

    def _on_image(self, message: ImageMessage) -> None:
        self._header, self._received = message.header, self._received + 1
        self._images.append((stamp_to_ns(message.header.stamp), image_to_array(message)))
        if self.reply is None:
            self.request_target()
        self.flush()

    def _on_detections(self, message: Detection2DArray) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        latency = (self.get_clock().now().nanoseconds - stamp_ns) / 1e9
        self._detections[stamp_ns] = (message.detections, latency)
        self._newest_detection = stamp_ns
        self.flush()

    def _on_status(self, message: TrackStateArray) -> None:
        if message.targets:
            self.processing[stamp_to_ns(message.header.stamp)] = message.processing_time

    def _row(self, stamp_ns: int) -> Row:
        detections, latency = self._detections.pop(stamp_ns, (None, np.nan))
        if detections is None:
            return Row(stamp_ns, "skipped")
        if detections:
            score = detections[0].results[0].hypothesis.score
            box = bbox_to_xywh(detections[0].bbox)
            return Row(stamp_ns, "tracking", box, score, latency)
        answered = self.reply is not None and self.reply.done()
        return Row(stamp_ns, "lost" if answered else "waiting", latency=latency)
