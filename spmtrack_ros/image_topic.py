"""The topic `image` of a node: its subscription, its decoder, and why nothing arrives."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy import get_rmw_implementation_identifier
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage

from spmtrack_core.data.image_messages import check_compressed, compressed_to_array
from spmtrack_core.geometry.lazy_image import AnyImage
from spmtrack_ros.diagnostics import Publisher, Transport, why_lost, why_no_image
from spmtrack_ros.fast_dds import PROFILES_VARIABLE
from spmtrack_ros.images import check_image, lazy_image

_IMAGES = {"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"}


def image_codec(
    transport: str, max_pixels: int
) -> tuple[Callable[[Any], AnyImage], Callable[[Any], Any]]:
    """What decodes a message of `raw` or `compressed` transport, and what only checks it."""
    if transport == "compressed":
        return (
            partial(compressed_to_array, max_pixels=max_pixels),
            partial(check_compressed, max_pixels=max_pixels),
        )
    return lazy_image, check_image


class ImageTopic:
    """A subscription to `image` or to `image/compressed`, or to another ``topic``."""

    def __init__(
        self,
        node: Node,
        callback: Callable[[Any], None],
        transport: str,
        reliability: str,
        topic: str = "",
        depth: int = 1,
    ) -> None:
        """``transport`` is raw or compressed, ``reliability`` best_effort or reliable.

        ``depth`` images wait for the callback; older ones are dropped.
        """
        self._node = node
        compressed = transport == "compressed"
        # Resolved before the suffix is added, so that a remapping of `image` holds for both.
        image = node.resolve_topic_name("image") + ("/compressed" if compressed else "")
        self.subscription = node.create_subscription(
            CompressedImage if compressed else ImageMessage,
            topic or image,
            callback,
            QoSProfile(depth=depth, reliability=ReliabilityPolicy[reliability.upper()]),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def publishers(self) -> list[Publisher]:
        """The publishers of the topic."""
        return [
            Publisher(
                f"{info.node_namespace.rstrip('/')}/{info.node_name}",
                info.topic_type,
                info.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
            )
            for info in self._node.get_publishers_info_by_topic(self.subscription.topic_name)
        ]

    def why_silent(self, publishers: list[Publisher]) -> str:
        """What is known of a silent topic with these publishers, and the cure."""
        own = self._node.get_fully_qualified_name() + "/"
        topics = [
            name
            for name, kinds in self._node.get_topic_names_and_types()
            if _IMAGES & {*kinds} and not name.startswith(own)
        ]
        return why_no_image(
            self.subscription.topic_name,
            f"sensor_msgs/msg/{self.subscription.msg_type.__name__}",
            publishers,
            self._transport(),
            topics,
        )

    def why_lossy(self) -> str:
        """The most likely cause of images that get lost, and the cure."""
        return why_lost(self._transport())

    def _transport(self) -> Transport:
        try:
            shared_memory: float = shutil.disk_usage("/dev/shm").total
        except OSError:  # not on every system
            shared_memory = math.inf
        return Transport(
            self.subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
            shared_memory,
            "fastrtps" in get_rmw_implementation_identifier(),
            bool(os.environ.get(PROFILES_VARIABLE)),
        )
