"""Plays a video on the topic `image`, as a camera would.

    ros2 run spmtrack_ros video_publisher --ros-args -p source:=walk.mp4 -r image:=/camera/image
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from spmtrack_core.data.video import open_frames
from spmtrack_ros.conversions import Image, fill_image
from spmtrack_ros.program import run_program

_DEFAULT_RATE = 30.0  # frames per second of a source that knows none: a folder of images
_LONGEST_WAIT = 120.0  # s for subscribers; a node that loads PyTorch takes its time
_SETTLE = 0.5  # s


class VideoPublisher(Node):
    """Publishes the frames of a source at its own or a given rate, once or in a loop."""

    def __init__(self) -> None:
        """Open the source.

        Raises ``FileNotFoundError`` or ``ValueError`` for a source or parameter that is unusable.
        """
        super().__init__("video_publisher")

        def parameter(name: str, default: str | float | int | bool, description: str):
            descriptor = ParameterDescriptor(description=description, read_only=True)
            descriptor.dynamic_typing = isinstance(default, float | str)  # 30 for 30.0, camera 0
            value = self.declare_parameter(name, default, descriptor).value
            if not isinstance(default, str) and not (
                isinstance(value, int | float) and value >= 0
            ):
                raise ValueError(f"parameter '{name}' is {value!r}: expected 0 or more")
            return type(default)(value)

        source = parameter("source", "synthetic", "Video file, folder, camera index or synthetic.")
        rate = parameter("rate", 0.0, "Frames per second; 0: as the source says.")
        self._loop = parameter("loop", False, "Start again at the end.")
        self._frame_id = parameter("frame_id", "camera", "frame_id of the images.")
        self._max_frames = parameter("max_frames", 0, "End after this many frames; 0: never.")
        self._subscribers = parameter(
            "wait_for_subscribers", 1, "How many subscribers to wait for before the first frame."
        )
        if not rate <= 1000:
            raise ValueError(f"parameter 'rate' is {rate:g}: expected 0 to 1000")
        frames = open_frames(source)
        self._period = 1 / (rate or frames.fps or _DEFAULT_RATE)
        self._frames = self._repeat(frames)
        self._publisher = self.create_publisher(
            ImageMessage,
            "image",
            QoSProfile(depth=10),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def wait_for_subscribers(self) -> None:
        """Return when as many subscribe as the parameter asks for, or after two minutes."""
        deadline = time.monotonic() + _LONGEST_WAIT
        while (count := self._publisher.get_subscription_count()) < self._subscribers:
            if time.monotonic() > deadline:
                topic = self._publisher.topic_name
                self.get_logger().warning(f"{count} subscribers of {topic}, starting anyway")
                break
            self.spin_for(0.05)
        if self._subscribers:
            self.spin_for(_SETTLE)  # they are known here, but we not yet to all of them

    def spin_for(self, seconds: float) -> None:
        """Spin, and so wait; not at all for a time that is over."""
        end = time.monotonic() + seconds
        while (wait := end - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=wait)

    def play(self) -> int:
        """Publish every frame when its time has come; how many there were.

        A source that is slower than the rate, a camera for instance, sets the pace itself.
        """
        count, due = 0, 0.0
        for frame in islice(self._frames, self._max_frames or None):
            self.spin_for(due - time.monotonic())
            # Lost time is not made up for: of images in a burst, receivers see only the last.
            due = max(due, time.monotonic()) + self._period
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
            self._publisher.publish(fill_image(ImageMessage(), frame, header))
            count += 1
        return count

    def _repeat(self, frames: Iterable[Image]) -> Iterator[Image]:
        there = True
        while there:
            there = False
            for frame in frames:
                there = self._loop
                yield frame


def work(node: VideoPublisher) -> int:
    """Play the source; 2 if it turns out to be broken."""
    node.wait_for_subscribers()
    try:
        count = node.play()
    except (OSError, ValueError) as error:
        print(f"video_publisher: error: {error}", file=sys.stderr)
        return 2
    node.get_logger().info(f"{count} frames published")
    node.spin_for(_SETTLE)  # reliable delivery goes on after publish() has returned
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the publisher to the end of its source; 2 if a parameter cannot be used."""
    return run_program("video_publisher", VideoPublisher, work, args)


if __name__ == "__main__":
    sys.exit(main())
