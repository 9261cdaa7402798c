"""A following server that stands in for Nav2, in a test's own process or in another one."""

from __future__ import annotations

import rclpy
from nav2_msgs.action import FollowObject
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node
from rclpy.task import Future


class FollowingServer:
    """Follows until it is cancelled or told how to end."""

    def __init__(self, node, name="follow_object"):
        self.goals, self.active, self.accept, self.cancelled = [], None, True, 0
        self.server = ActionServer(
            node,
            FollowObject,
            name,
            self.execute,
            goal_callback=self.on_goal,
            cancel_callback=self.on_cancel,
        )

    def on_goal(self, goal):
        self.goals.append(goal)
        print("goal", flush=True)
        return GoalResponse.ACCEPT if self.accept else GoalResponse.REJECT

    def on_cancel(self, handle):
        self.cancelled += 1
        self.active.set_result("cancel")
        return CancelResponse.ACCEPT

    async def execute(self, handle):
        self.active = Future()
        how = await self.active
        self.active = None
        {"cancel": handle.canceled, "abort": handle.abort, "succeed": handle.succeed}[how]()
        return FollowObject.Result(error_code=902, error_msg="no object")


if __name__ == "__main__":
    rclpy.init()
    node = Node("following_server")
    FollowingServer(node)
    rclpy.spin(node)
