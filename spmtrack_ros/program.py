"""How a node's process starts and ends: signals, exit codes, one line on a user's mistake."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos_overriding_options import InvalidQosOverridesError

AnyNode = TypeVar("AnyNode", bound=Node)

# A wrong argument, parameter or file, or no PyTorch; RuntimeError is what rcl and CUDA raise.
_CANNOT_START = (
    OSError, ValueError, RuntimeError, ImportError, ParameterException, InvalidQosOverridesError,
)  # fmt: skip


def run_program(
    name: str,
    make_node: Callable[[], AnyNode],
    work: Callable[[AnyNode], int],
    args: list[str] | None = None,
) -> int:
    """Make a node, let it work, destroy it; the exit code.

    0 after SIGINT and SIGTERM, 2 with one line on stderr where the node cannot be made, otherwise
    what ``work`` returns.
    """
    starting = True

    def interrupt(*_: object) -> None:
        # While the node works, rclpy ends it: an exception inside rclpy's own C++ code would come
        # out as another one.
        if starting:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    node = None
    try:
        try:
            rclpy.init(args=args)
        except RuntimeError as error:
            return _complain(name, error)
        try:
            node = make_node()
        except _CANNOT_START as error:
            return _complain(name, error) if rclpy.ok() else 0  # not ok: SIGTERM came meanwhile
        starting = False
        return work(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except RuntimeError:
        if rclpy.ok():
            raise
        return 0  # publishing and waiting fail when a signal has ended ROS in the middle of it
    finally:
        starting = False
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


def _complain(name: str, error: Exception) -> int:
    print(f"{name}: error: {error}", file=sys.stderr)
    return 2
