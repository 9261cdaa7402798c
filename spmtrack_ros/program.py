"""Start, work and end of a node's process: signals, exit codes, one line for what went wrong."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

import rclpy
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos_overriding_options import InvalidQosOverridesError
from rclpy.signals import SignalHandlerOptions

from spmtrack_ros.throttle import Throttle

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

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


class _NodeLog(logging.Handler):
    """What the core logs, in the log of the node: with its severity, time and name."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self.logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        try:
            text = one_line(record.getMessage())
            if record.exc_info and isinstance(record.exc_info[1], Exception):
                text += f": {_unexpected(record.exc_info[1])}"
                self.logger.debug("".join(traceback.format_exception(record.exc_info[1])))
            if record.levelno >= logging.ERROR:
                self.logger.error(text)  # rclpy has one severity for each line of code
            else:
                self.logger.warning(text)
        except Exception:
            self.handleError(record)


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

    That is 0 after SIGINT and SIGTERM, 2 with one line on stderr if the node cannot be made, 1
    with one line after any other error, and otherwise the result of ``work``. ``close`` is called
    before the node is destroyed, whatever the reason; for a signal while the node still spins,
    and the process ends within a second then, whatever the node is doing.
    """
    signals = Signals(lambda: os._exit(0))
    log = _NodeLog(get_logger(name))
    logging.getLogger("spmtrack_core").addHandler(log)
    node: AnyNode | None = None
    try:
        try:
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        except RuntimeError as error:
            return _report_error(name, one_line(error), 2)
        try:
            node = made = make_node()
        except _CANNOT_START as error:
            return _report_error(name, one_line(error), 2)
        log.logger = made.get_logger()  # which knows its namespace

        def end() -> None:
            late = threading.Timer(_MOST_PATIENCE, os._exit, [0])
            late.daemon = True
            late.start()
            _close(name, made, close)
            rclpy.try_shutdown()

        signals.handle = end
        return work(node)
    except ExternalShutdownException:
        return 0
    except Exception as error:
        if isinstance(error, RuntimeError) and not rclpy.ok():
            return 0  # publishing and waiting fail after a signal has ended ROS
        return _report_error(name, _unexpected(error), 1)
    finally:
        if node is not None:
            if rclpy.ok():  # no signal has closed it
                _close(name, node, close)
            node.destroy_node()
        rclpy.try_shutdown()


def spin(node: AnyNode, after_failure: Callable[[AnyNode], None] = lambda node: None) -> int:
    """Spin until a signal arrives. A callback that fails ends neither the node nor the others.

    It is logged in one line, with its traceback at the level debug; ``after_failure`` is called.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    throttle = Throttle(1.0)
    while node.context.ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            break
        except Exception as error:
            if node.context.ok():  # waiting fails once the process is shutting down
                text = f"a message or request failed: {type(error).__name__}: {error}"
                if throttle.is_due(text):
                    node.get_logger().error(text)
                node.get_logger().debug(traceback.format_exc())
                after_failure(node)
                time.sleep(0.02)  # a fault that persists leaves the processor to others
    return 0


def _close(name: str, node: AnyNode, close: Callable[[AnyNode], None]) -> None:
    try:
        close(node)
    except Exception as error:  # the process ends all the same
        _report_error(name, f"at the end: {_unexpected(error)}", 1)
    time.sleep(_LAST_ANSWERS)


def _unexpected(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def one_line(error: Exception | str) -> str:
    """The text of an error; ROS marks a place in a name by a line with ^."""
    return " ".join(str(error).rstrip("^ \n").split())


def _report_error(name: str, text: str, code: int) -> int:
    print(f"{name}: error: {text}", file=sys.stderr)
    return code
