"""Settings that Fast DDS reads when its first participant is made, and a node for many tests."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from spmtrack_ros.fast_dds import PROFILE, PROFILES_VARIABLE

# Tests hear no topics but their own: neither those of the machine nor those of another worker of
# pytest-xdist. 101 is prime, so workers have different domains.
_domain = int(os.environ.get("ROS_DOMAIN_ID") or random.SystemRandom().randint(1, 100))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ["ROS_DOMAIN_ID"] = str(1 + (_domain - 1 + 13 * _worker) % 101)
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
_CONFIG = Path(__file__).parents[2] / "config"
os.environ.setdefault(PROFILES_VARIABLE, str(_CONFIG / PROFILE))


@pytest.fixture(scope="module")
def running(tiny_checkpoint):
    """A node with a peer. What needs ROS 2 is imported here: tests of the folder run without."""
    from diagnostic_msgs.msg import DiagnosticArray

    from test.spmtrack_ros.peer import RELIABLE, Peer, connected, start_node

    parameters = ("diagnostics_period:=0.2", "init_timeout:=1.5", RELIABLE)
    process = start_node(*parameters, weights=tiny_checkpoint)
    peer = Peer()
    peer.collect(DiagnosticArray, "/diagnostics")
    with connected(peer, process, absent=("Traceback", "publishing failed")):
        yield peer


@pytest.fixture
def peer(running):
    """The node without a target, its topics drained."""
    running.start_over()
    return running
