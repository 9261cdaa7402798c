"""How a node's process starts and what its log has."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")

pytestmark = pytest.mark.ros

CORE_SAYS = """
import logging
from spmtrack_ros.program import run_program

def make():
    logging.getLogger("spmtrack_core.tracking").warning("frames changed\\nfrom %s", "a to b")
    logging.getLogger("spmtrack_core.tracking").error("no memory")
    logging.getLogger("spmtrack_core.tracking").info("nobody asked")
    raise ValueError("enough")

raise SystemExit(run_program("eyes", make, None))
"""


def test_the_log_of_the_node_has_what_the_core_logs():
    done = subprocess.run([sys.executable, "-c", CORE_SAYS], capture_output=True, text=True)
    warning, error, end = done.stderr.splitlines()
    assert re.fullmatch(r"\[WARN\] \[[\d.]+\] \[eyes\]: frames changed from a to b", warning)
    assert re.fullmatch(r"\[ERROR\] \[[\d.]+\] \[eyes\]: no memory", error)
    assert (end, done.returncode) == ("eyes: error: enough", 2)


NODE_SAYS = """
import logging
from rclpy.node import Node
from spmtrack_ros.program import run_program

def work(node):
    log = logging.getLogger("spmtrack_core.live")
    try:
        raise KeyError("page")
    except KeyError:
        log.exception("no answer")
    log.warning("%d of %d", 1)  # one number is missing
    return 0

raise SystemExit(run_program("eyes", lambda: Node("eyes", namespace="left"), work))
"""


def test_the_log_has_the_namespace_and_the_cause():
    done = subprocess.run([sys.executable, "-c", NODE_SAYS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.match(
        r"\[ERROR\] \[[\d.]+\] \[left\.eyes\]: no answer: KeyError: 'page'\n", done.stderr
    )
    assert "Logging error" in done.stderr  # and nothing ends for it
