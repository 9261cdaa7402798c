"""What the nodes of this package have in common: sensor data in, their status on /diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

STEADY = Clock(clock_type=ClockType.STEADY_TIME)
"""Nobody sets it, and simulated time does not stop it."""


def subscribe(node: Node, kind: Any, topic: str, callback: Callable[[Any], None]) -> Any:
    """Hear a topic as sensor data is heard: best effort, the newest message."""
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    options = {"qos_overriding_options": QoSOverridingOptions.with_default_policies()}
    return node.create_subscription(kind, topic, callback, qos, **options)


def publish_diagnostics(
    node: Node,
    name: str,
    period: float,
    report: Callable[[], tuple[int, str, Mapping[str, str]]],
    hardware_id: str = "",
) -> Callable[[], None]:
    """Publish what ``report`` returns on /diagnostics, every ``period`` s; never if that is 0.

    That is level, message and values; ``name`` follows that of the node. Returns what ends it.
    """
    if not period:
        return lambda: None
    publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def publish() -> None:
        level, text, values = report()
        status = DiagnosticStatus(level=bytes([level]), message=text, hardware_id=hardware_id)
        status.name = f"{node.get_fully_qualified_name()}: {name}"
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    # a simulated clock that stands still is worth a report
    timer = node.create_timer(period, publish, clock=STEADY)

    def close() -> None:
        node.destroy_timer(timer)
        node.destroy_publisher(publisher)

    return close
