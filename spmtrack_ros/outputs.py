"""What the node publishes for each image: detections, status, bearing and debug image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Vector3Stamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import MarkerArray

from spmtrack_core.geometry.lazy_image import AnyImage
from spmtrack_core.session.snapshot import FrameReport, Snapshot
from spmtrack_core.tracking.followed import Target, draw_targets
from spmtrack_ros.annotations import ImageAnnotations, image_annotations
from spmtrack_ros.camera import direction, frame_problem
from spmtrack_ros.conversions import (
    fill_compressed,
    fill_detection,
    fill_image,
    fill_track_state,
)
from spmtrack_ros.markers import target_markers
from spmtrack_ros.msg import TrackState, TrackStateArray
from spmtrack_ros.parameters import TrackerParameters
from spmtrack_ros.throttle import Throttle


class Outputs:
    """The publishers of a node. Called by one thread at a time, as the session does."""

    def __init__(
        self, node: Node, decode: Callable[[Any], AnyImage], parameters: TrackerParameters
    ) -> None:
        """``decode`` converts a message to an image."""
        self._decode, self._parameters = decode, parameters
        self._logger = node.get_logger()
        self.camera_info: CameraInfo | None = None
        self._no_bearing, self._other_frame = Throttle(10.0), Throttle(600.0)
        self._header = Header()  # of the newest report
        self._visible: dict[str, bool] = {}  # targets by id, as they were logged last
        overridable = QoSOverridingOptions.with_default_policies()

        self._node = node
        self._publishers: list[Any] = []

        def publisher(kind: Any, name: str, qos: QoSProfile) -> Any:
            options = {"qos_overriding_options": overridable}
            self._publishers.append(node.create_publisher(kind, name, qos, **options))
            return self._publishers[-1]

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._detection = publisher(Detection2D, "~/detection", QoSProfile(depth=10))
        self._detections = publisher(Detection2DArray, "~/detections", QoSProfile(depth=10))
        self._status = publisher(TrackStateArray, "~/status", latched)
        self._bearing = publisher(Vector3Stamped, "~/bearing", QoSProfile(depth=10))
        self._debug_images = []
        self._markers = publisher(MarkerArray, "~/markers", QoSProfile(depth=1))
        self._annotations = None
        if ImageAnnotations is not None:
            self._annotations = publisher(ImageAnnotations, "~/annotations", QoSProfile(depth=1))
        if parameters.debug_image:
            self._debug_images = [
                (publisher(kind, f"~/debug_image{suffix}", QoSProfile(depth=1)), kind, fill)
                for kind, suffix, fill in (
                    (ImageMessage, "", fill_image),
                    (CompressedImage, "/compressed", fill_compressed),
                )
            ]

    def close(self) -> None:
        """Destroy the publishers."""
        for each in self._publishers:
            self._node.destroy_publisher(each)

    def publish_report(self, report: FrameReport, now: Snapshot) -> None:
        """Publish the result of one image, and the state."""
        header = report.frame.message.header
        self._header = header
        detections = {
            target.id: fill_detection(
                Detection2D(),
                ObjectHypothesisWithPose(),
                header,
                target.box_xywh,
                target.id,
                target.label,
                target.score,
            )
            for target in report.targets
            if target.visible
        }
        primary = report.primary
        if primary is not None and primary.visible:
            if self._detection.get_subscription_count():  # 0.3 ms, before the others
                self._detection.publish(detections[primary.id])
            self._publish_bearing(report, primary)
        self._publish_markers(report)
        if self._annotations is not None and self._annotations.get_subscription_count():
            self._annotations.publish(image_annotations(header.stamp, report.targets))
        self._detections.publish(
            Detection2DArray(header=header, detections=list(detections.values()))
        )
        self.publish_status(now)
        self._publish_debug_images(report)

    def _publish_bearing(self, report: FrameReport, target: Target) -> None:
        info, image = self.camera_info, report.image
        if info is None or image is None:
            return
        x, y, w, h = target.box_xywh
        center = (x + w / 2, y + h / 2)
        try:
            ray = direction(info, image.shape[:2], center, self._parameters.rectified)
        except ValueError as error:
            if self._no_bearing.is_due(str(error)):
                self._logger.warning(f"no bearing: {error}")
            return
        header = report.frame.message.header
        problem = frame_problem(info, header.frame_id)
        if problem and self._other_frame.is_due(problem):
            self._logger.warning(f"bearing: {problem}")
        message = Vector3Stamped(header=header)
        message.vector.x, message.vector.y, message.vector.z = ray
        self._bearing.publish(message)

    def _publish_markers(self, report: FrameReport) -> None:
        info, image, settings = self.camera_info, report.image, self._parameters
        if info is None or not self._markers.get_subscription_count():
            return
        hw = (info.height, info.width) if image is None else image.shape[:2]
        self._markers.publish(
            target_markers(
                report.frame.message.header,
                report.targets,
                lambda point: direction(info, hw, point, settings.rectified),
                settings.marker_depth,
            )
        )

    def _publish_debug_images(self, report: FrameReport) -> None:
        watched = [each for each in self._debug_images if each[0].get_subscription_count()]
        if not watched:
            return
        with contextlib.suppress(ValueError):  # an unreadable image is not drawn
            message = report.frame.message
            image = self._decode(message) if report.image is None else report.image
            drawn = draw_targets(np.asarray(image), report.targets)
            for topic, kind, fill in watched:
                topic.publish(fill(kind(), drawn, message.header))

    def publish_status(self, now: Snapshot) -> None:
        """Publish the present state with the header of the newest image."""
        message = TrackStateArray(header=self._header, enabled=now.enabled)
        message.targets = [
            fill_track_state(TrackState(), each, each is now.primary, now.time)
            for each in now.targets
        ]
        if now.report is not None:
            message.message = now.report.error
            message.processing_time = now.report.seconds if now.targets else 0.0
        self._status.publish(message)
        self._log_changes(now.targets)

    def _log_changes(self, targets: Sequence[Target]) -> None:
        before, self._visible = self._visible, {each.id: each.visible for each in targets}
        for each in targets:
            if before.get(each.id, each.visible) != each.visible:
                reason = each.reason.name.lower().replace("_", " ")
                change = "found again" if each.visible else f"lost, {reason}"
                self._logger.info(f"'{each.id}' {change} (score {each.score:.2f})")
