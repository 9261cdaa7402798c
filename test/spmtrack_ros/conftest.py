"""Settings that Fast DDS reads when its first participant is made, so before any test runs."""

from __future__ import annotations

import os
import random
from pathlib import Path

# Tests hear no topics but their own: neither those of the machine nor those of another worker of
# pytest-xdist. 101 is prime, so workers have different domains.
_domain = int(os.environ.get("ROS_DOMAIN_ID") or random.SystemRandom().randint(1, 100))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ["ROS_DOMAIN_ID"] = str(1 + (_domain - 1 + 13 * _worker) % 101)
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
_PROFILE = Path(__file__).parents[2] / "config" / "fastdds_large_images.xml"
_OLD = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")  # Fast DDS 2
os.environ.setdefault(f"{'FASTRTPS' if _OLD else 'FASTDDS'}_DEFAULT_PROFILES_FILE", str(_PROFILE))
