"""A camera in a process of its own, to be killed: 30 images a second with the time as stamp."""

from __future__ import annotations

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image


def main():
    rclpy.init()
    node = Node("camera_process")
    images = node.create_publisher(Image, "image", 1)
    message = Image(encoding="rgb8", width=240, height=180, step=720, data=bytes(720 * 180))

    def publish():
        message.header.stamp = node.get_clock().now().to_msg()
        images.publish(message)

    node.create_timer(1 / 30, publish)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
