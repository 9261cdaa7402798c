"""Start and end of a node's process: signals, exit codes, one line for a user's mistake."""

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

from spmtrack_ros.parameters import warn_of_unknown

AnyNode = TypeVar("AnyNode", bound=Node)

# A wrong argument, parameter or file, or no PyTorch; rcl and CUDA raise RuntimeError.
_CANNOT_START = (
    OSError,
    ValueError,
    RuntimeError,
    ImportError,
    ParameterException,
    InvalidQosOverridesError,
)


def run_program(
    name: str,
    make_node: Callable[[], AnyNode],
    work: Callable[[AnyNode], int],
    args: list[str] | None = None,
) -> int:
    """Make a node, call ``work`` with it, destroy it; return the exit code.

    That is 0 after SIGINT and SIGTERM, 2 with one line on stderr if the node cannot be made, and
    otherwise the result of ``work``.
    """
    starting = True

    def interrupt(*_: object) -> None:
        # Later, rclpy ends the node: an exception raised inside rclpy's C++ code would arrive as
        # another one.
        if starting:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    node = None
    try:
        try:
            rclpy.init(args=args)
        except RuntimeError as error:
            return _report_error(name, error)
        try:
            node = make_node()
            warn_of_unknown(node)
        except _CANNOT_START as error:
            return _report_error(name, error) if rclpy.ok() else 0  # not ok: ended by SIGTERM
        starting = False
        return work(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except RuntimeError:
        if rclpy.ok():
            raise
        return 0  # publishing and waiting fail after a signal has ended ROS
    finally:
        starting = False
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


def _report_error(name: str, error: Exception) -> int:
    print(f"{name}: error: {error}", file=sys.stderr)
    return 2
