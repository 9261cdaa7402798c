"""The ROS 2 node `nav2_follow`: asks Nav2 to follow the target while it is enabled.

    ros2 run spmtrack_ros nav2_follow --ros-args -r pose:=/target_pose/pose
    ros2 service call /nav2_follow/enable std_srvs/srv/SetBool "{data: true}"

The client of the action FollowObject of Nav2's following server (opennav_following). It sends a
goal when a pose arrives, sends it again after Nav2 has given up or its server was started again
and a new pose has arrived, and cancels it on ~/enable.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

from action_msgs.msg import GoalStatus
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionClient
from rclpy.duration import Duration
from rclpy.node import Node
from std_srvs.srv import SetBool

from spmtrack_ros.parameters import NodeParameters, parameter, read_parameters
from spmtrack_ros.program import run_program, spin
from spmtrack_ros.throttle import Throttle
from spmtrack_ros.topics import subscribe

try:
    from nav2_msgs.action import FollowObject
except ImportError:  # no Nav2, or one without a following server
    FollowObject = None

_ANSWER_TIMEOUT = 3.0  # s after which a goal without an answer is sent again


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
        self._throttle = Throttle(10.0)
        self._asking: Any = None  # the future of Nav2's answer, until that arrives
        self._goal: Any = None  # accepted, and not yet ended
        self._servers: set[bytes] = set()  # those that were there when the goal was sent
        self._asked: Any = None
        # Some distributions remap the name of a service and not that of an action.
        self._action = self.resolve_service_name(self.parameters.action)
        self._client = ActionClient(self, FollowObject, self._action)
        self._topic = self.resolve_topic_name("pose")
        subscribe(self, PoseStamped, "pose", self._on_pose)
        self.create_service(SetBool, "~/enable", self._on_enable)

    def close(self) -> None:
        """Cancel the goal, before the node is destroyed."""
        self._enabled = False
        self._drop()

    def _on_enable(self, request: Any, response: Any) -> Any:
        self._enabled = request.data
        if not self._enabled:
            self._drop()
        response.success = True
        response.message = "enabled" if self._enabled else "disabled"
        return response

    def _drop(self) -> None:
        """Cancel the goal without waiting for Nav2, whose server may be gone."""
        if self._goal is not None:
            self._goal.cancel_goal_async()
        self._goal = self._asking = None

    def _on_pose(self, message: PoseStamped) -> None:
        if not self._enabled:
            return
        now, servers = self.get_clock().now(), self._find_servers()
        if self._goal is not None and servers != self._servers:
            self.get_logger().warning("Nav2's following server has ended or was started again")
            self._drop()
        elif self._asking is not None and not self._within(_ANSWER_TIMEOUT, now):
            self.get_logger().warning(f"no answer to the goal within {_ANSWER_TIMEOUT:g} s")
            self._drop()
        busy = self._asking is not None or self._goal is not None
        if busy or self._within(self.parameters.retry_period, now):
            return
        if not servers:
            self._warn(f"no action server {self._action}: start Nav2's following server")
            return
        goal = FollowObject.Goal()
        if self.parameters.follow_by == "topic":
            goal.pose_topic = self._topic
        else:
            goal.tracked_frame = self.parameters.tf_frame
        goal.max_duration = Duration(seconds=self.parameters.max_duration).to_msg()
        self._asked, self._servers = now, servers
        self._asking = self._client.send_goal_async(goal)
        self._asking.add_done_callback(self._on_answer)

    def _find_servers(self) -> set[bytes]:
        """The action servers, each by what no other has, not even itself started again.

        One that was killed is in the set until its lease has run out: 20 s with Fast DDS.
        """
        if not self._client.server_is_ready():
            return set()
        publishers = self.get_publishers_info_by_topic(f"{self._action}/_action/status")
        return {bytes(each.endpoint_gid) for each in publishers}

    def _warn(self, problem: str) -> None:
        if self._throttle.is_due(problem):
            self.get_logger().warning(problem)

    def _within(self, seconds: float, now: Any) -> bool:
        """Whether the last goal was sent so shortly ago; false if the clock was set back."""
        asked = self._asked
        return asked is not None and asked <= now < asked + Duration(seconds=seconds)

    def _on_answer(self, future: Any) -> None:
        goal = future.result()
        if future is not self._asking:  # given up meanwhile
            if goal.accepted:
                goal.cancel_goal_async()
            return
        self._asking = None
        if not goal.accepted:
            self._warn("Nav2 rejected the goal")
            return
        self._goal = goal
        self.get_logger().info("Nav2 follows the target")
        goal.get_result_async().add_done_callback(partial(self._on_result, goal))

    def _on_result(self, goal: Any, future: Any) -> None:
        if goal is not self._goal:  # given up meanwhile
            return
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


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM: exit code 0, or 2 without Nav2's action."""
    return run_program("nav2_follow", Nav2Follow, spin, args, Nav2Follow.close)


if __name__ == "__main__":
    sys.exit(main())
