"""The ROS 2 node `nav2_follow`: asks Nav2 to follow the target while it is enabled.

    ros2 run spmtrack_ros nav2_follow --ros-args -r pose:=/target_pose/pose
    ros2 service call /nav2_follow/enable std_srvs/srv/SetBool "{data: true}"

The client of the action FollowObject of Nav2's following server (opennav_following). It sends a
goal when a pose arrives, sends it again after Nav2 has given up and a new pose has arrived, and
cancels it on ~/enable.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionClient
from rclpy.duration import Duration
from rclpy.node import Node
from std_srvs.srv import SetBool

from spmtrack_ros.parameters import NodeParameters, parameter, read_parameters
from spmtrack_ros.program import run_program
from spmtrack_ros.range_sources import subscribe
from spmtrack_ros.throttle import at_most_every

try:
    from nav2_msgs.action import FollowObject
except ImportError:  # no Nav2, or one without a following server
    FollowObject = None


@dataclass(frozen=True)
class Nav2FollowParameters(NodeParameters):
    """The parameters of the node `nav2_follow`."""

    action: str = parameter("follow_object", "Name of Nav2's action.")
    follow_by: str = parameter(
        "topic",
        "What Nav2 is given: topic (`pose`) or frame (tf_frame of target_pose, by TF).",
        choices=("topic", "frame"),
    )
    tf_frame: str = parameter("target", "Name of that frame.")
    max_duration: float = parameter(0.0, "Longest time in s of one goal; 0: no end.", (0.0, 1e6))
    retry_period: float = parameter(
        2.0, "Shortest time in s from one goal to the next.", (0.1, 600.0)
    )
    enabled: bool = parameter(False, "Follow from the start; false: after ~/enable.")


class Nav2Follow(Node):
    """Keeps one goal alive while it is enabled and the target has a pose."""

    def __init__(self) -> None:
        """Raises ``ValueError`` for a wrong parameter, ``ImportError`` without the action."""
        super().__init__("nav2_follow")
        if FollowObject is None:
            raise ImportError(
                "there is no nav2_msgs/action/FollowObject: install Nav2 with opennav_following"
            )
        self.parameters = read_parameters(self, Nav2FollowParameters)
        self._enabled = self.parameters.enabled
        self._goal: Any = None
        self._asking = False
        self._asked: Any = None
        self._client = ActionClient(self, FollowObject, self.parameters.action)
        self._topic = self.resolve_topic_name("pose")
        subscribe(self, PoseStamped, "pose", self._on_pose)
        self.create_service(SetBool, "~/enable", self._on_enable)

    def close(self) -> None:
        """Cancel the goal, before the node is destroyed."""
        self._enabled = False
        self._cancel()

    def _on_enable(self, request: Any, response: Any) -> Any:
        self._enabled = request.data
        if not self._enabled:
            self._cancel()
        response.success = True
        response.message = "enabled" if self._enabled else "disabled"
        return response

    def _cancel(self) -> None:
        if self._goal is not None:
            self._goal.cancel_goal_async()

    def _on_pose(self, message: PoseStamped) -> None:
        if not self._enabled or self._asking or self._goal is not None:
            return
        now, pause = self.get_clock().now(), Duration(seconds=self.parameters.retry_period)
        if self._asked is not None and self._asked <= now < self._asked + pause:
            return
        if not self._client.server_is_ready():
            name = self.resolve_service_name(self.parameters.action)
            self.get_logger().warning(
                f"no action server {name}: start Nav2's following server",
                **at_most_every(10.0),
            )
            return
        goal = FollowObject.Goal()
        if self.parameters.follow_by == "topic":
            goal.pose_topic = self._topic
        else:
            goal.tracked_frame = self.parameters.tf_frame
        goal.max_duration = Duration(seconds=self.parameters.max_duration).to_msg()
        self._asking, self._asked = True, now
        self._client.send_goal_async(goal).add_done_callback(self._on_answer)

    def _on_answer(self, future: Any) -> None:
        self._asking = False
        goal = future.result()
        if not goal.accepted:
            self.get_logger().warning("Nav2 rejected the goal", **at_most_every(10.0))
            return
        self._goal = goal
        self.get_logger().info("Nav2 follows the target")
        goal.get_result_async().add_done_callback(self._on_result)
        if not self._enabled:  # while it was asked
            self._cancel()

    def _on_result(self, future: Any) -> None:
        self._goal = None
        answer = future.result()
        if answer.status == GoalStatus.STATUS_SUCCEEDED:
            self.get_logger().info("Nav2 has ended the goal")
        elif answer.status == GoalStatus.STATUS_CANCELED:
            self.get_logger().info("the goal is cancelled")
        else:
            result = answer.result
            self.get_logger().warning(
                f"Nav2 gave up with error {result.error_code}: {result.error_msg}"
            )


def work(node: Node) -> int:
    """Spin until a signal arrives."""
    rclpy.spin(node)
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM: exit code 0, or 2 without Nav2's action."""
    return run_program("nav2_follow", Nav2Follow, work, args, Nav2Follow.close)


if __name__ == "__main__":
    sys.exit(main())
