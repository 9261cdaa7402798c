"""Plays a video on the topic `image`, as a camera would.

ros2 run spmtrack_ros video_publisher --ros-args -p source:=walk.mp4 -r image:=/camera/image
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from spmtrack_core.data.video import open_frames
from spmtrack_core.geometry.image import Image
from spmtrack_ros.conversions import fill_image
from spmtrack_ros.parameters import NodeParameters, parameter, read_parameters
from spmtrack_ros.program import run_program

_DEFAULT_RATE = 30.0  # frames per second of a source without a rate, such as a folder of images
_MAX_WAIT = 120.0  # s for subscribers; a node that loads PyTorch needs long
_SETTLE = 0.5  # s
_MAX_INT = 2**31 - 1


@dataclass(frozen=True)
class PublisherParameters(NodeParameters):
    """The parameters of the node `video_publisher`."""

    source: str = parameter(
        "synthetic", "Video file, folder, camera index or synthetic.", number_as_text=True
    )
    rate: float = parameter(0.0, "Frames per second; 0: the rate of the source.", (0.0, 1000.0))
    loop: bool = parameter(False, "Start again at the end.")
    frame_id: str = parameter("camera", "frame_id of the images.")
    max_frames: int = parameter(0, "End after this many frames; 0: never.", (0, _MAX_INT))
    wait_for_subscribers: int = parameter(
        1, "How many subscribers to wait for before the first frame.", (0, 1000)
    )


class VideoPublisher(Node):
    """Publishes the frames of a source at its own or a given rate, once or in a loop."""

    def __init__(self) -> None:
        """Open the source.

        Raises ``FileNotFoundError`` or ``ValueError`` for a source or parameter that is unusable.
        """
        super().__init__("video_publisher")
        self.parameters = read_parameters(self, PublisherParameters)
        frames = open_frames(self.parameters.source, with_boxes=False)
        self._period = 1 / (self.parameters.rate or frames.fps or _DEFAULT_RATE)
        self._frames = self._repeat(frames)
        self._publisher = self.create_publisher(
            ImageMessage,
            "image",
            QoSProfile(depth=10),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # rclpy.spin_once would make an executor anew after a signal, which fails
        self._spinning = SingleThreadedExecutor()
        self._spinning.add_node(self)

    def wait_for_subscribers(self) -> None:
        """Wait until `wait_for_subscribers` are connected, two minutes at most."""
        deadline, expected = time.monotonic() + _MAX_WAIT, self.parameters.wait_for_subscribers
        topic = self._publisher.topic_name
        if expected:
            self.get_logger().info(f"waiting for subscribers of {topic}: {expected}")
        while (count := self._publisher.get_subscription_count()) < expected:
            if time.monotonic() > deadline:
                self.get_logger().warning(f"{count} subscribers of {topic}, starting anyway")
                break
            self.spin_for(0.05)
        if expected:
            self.spin_for(_SETTLE)  # discovery is not yet complete on their side

    def spin_for(self, seconds: float) -> None:
        """Spin for a time in s; return at once if it is not positive.

        Raises ``ExternalShutdownException`` after a signal.
        """
        end = time.monotonic() + seconds
        while (wait := end - time.monotonic()) > 0:
            self._spinning.spin_once(timeout_sec=wait)

    def play(self) -> int:
        """Publish every frame at its time; return how many there were.

        A source that is slower than the rate, a camera for instance, sets the pace itself.
        """
        count, due = 0, 0.0
        for frame in islice(self._frames, self.parameters.max_frames or None):
            self.spin_for(due - time.monotonic())
            # Lost time is not made up for: of a burst of images, receivers see only the last.
            due = max(due, time.monotonic()) + self._period
            header = Header(frame_id=self.parameters.frame_id)
            header.stamp = self.get_clock().now().to_msg()
            self._publisher.publish(fill_image(ImageMessage(), frame, header))
            count += 1
        return count

    def _repeat(self, frames: Iterable[Image]) -> Iterator[Image]:
        again = True
        while again:
            again = False  # an empty source is not read for ever
            for frame in frames:
                again = self.parameters.loop
                yield frame


def work(node: VideoPublisher) -> int:
    """Play the source; exit code 2 if it cannot be read to its end."""
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
    """Run the publisher to the end of its source; 2 if a parameter is wrong."""
    return run_program("video_publisher", VideoPublisher, work, args)


if __name__ == "__main__":
    sys.exit(main())
