"""Settings that Fast DDS reads when its first participant is made, so before any test runs."""

from __future__ import annotations

import os
import random
from pathlib import Path

from spmtrack_ros.fast_dds import PROFILE, PROFILES_VARIABLE

# Tests hear no topics but their own: neither those of the machine nor those of another worker of
# pytest-xdist. 101 is prime, so workers have different domains.
_domain = int(os.environ.get("ROS_DOMAIN_ID") or random.SystemRandom().randint(1, 100))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ["ROS_DOMAIN_ID"] = str(1 + (_domain - 1 + 13 * _worker) % 101)
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
_CONFIG = Path(__file__).parents[2] / "config"
os.environ.setdefault(PROFILES_VARIABLE, str(_CONFIG / PROFILE))
