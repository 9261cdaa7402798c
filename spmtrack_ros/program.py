"""Start and end of a node's process: signals, exit codes, one line for a user's mistake."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

import rclpy
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos_overriding_options import InvalidQosOverridesError
from rclpy.signals import SignalHandlerOptions

AnyNode = TypeVar("AnyNode", bound=Node)

# A wrong argument, parameter or file, or no PyTorch; rcl and CUDA raise RuntimeError.
_CANNOT_START = (
    OSError,
    ValueError,
    RuntimeError,
    ImportError,
    ParameterException,
    InvalidQosOverridesError,
    NameValidationException,
)
_LAST_ANSWERS = 0.1  # s for the middleware to send what `close` has answered
_MOST_PATIENCE = 0.9  # s from a signal to the end, whatever hangs


class Parser(argparse.ArgumentParser):
    """Raises ``ValueError`` for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        raise ValueError(message)


class Signals:
    """SIGINT and SIGTERM, handled by a thread: also while C code keeps the main thread busy."""

    def __init__(self, handle: Callable[[], None]) -> None:
        """``handle`` is called at the first signal; it may be replaced until then."""
        self.handle = handle
        self._pipe, end = os.pipe()
        os.set_blocking(end, False)
        signal.set_wakeup_fd(end)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def _wait(self) -> None:
        while os.read(self._pipe, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
            pass
        self.handle()


def run_program(
    name: str,
    make_node: Callable[[], AnyNode],
    work: Callable[[AnyNode], int],
    args: list[str] | None = None,
    close: Callable[[AnyNode], None] = lambda node: None,
) -> int:
    """Make a node, call ``work`` with it, destroy it; return the exit code.

    That is 0 after SIGINT and SIGTERM, 2 with one line on stderr if the node cannot be made, and
    otherwise the result of ``work``. A signal calls ``close``, while the node still spins, and
    ends the process within a second, whatever the node is doing.
    """
    signals = Signals(lambda: os._exit(0))
    node: AnyNode | None = None
    try:
        try:
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        except RuntimeError as error:
            return _report_error(name, error)
        try:
            node = made = make_node()
        except _CANNOT_START as error:
            return _report_error(name, error)

        def end() -> None:
            late = threading.Timer(_MOST_PATIENCE, os._exit, [0])
            late.daemon = True
            late.start()
            close(made)
            time.sleep(_LAST_ANSWERS)
            rclpy.try_shutdown()

        signals.handle = end
        return work(node)
    except ExternalShutdownException:
        return 0
    except RuntimeError:
        if rclpy.ok():
            raise
        return 0  # publishing and waiting fail after a signal has ended ROS
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


def one_line(error: Exception) -> str:
    """The text of an error; ROS marks a place in a name by a line with ^."""
    return " ".join(str(error).rstrip("^ \n").split())


def _report_error(name: str, error: Exception) -> int:
    print(f"{name}: error: {one_line(error)}", file=sys.stderr)
    return 2
