"""Settings that Fast DDS reads when its first participant is made, so before any test runs."""

from __future__ import annotations

import os
import random
from pathlib import Path

# Nobody else's topics in these tests, and theirs on nobody else's machine.
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
_PROFILE = Path(__file__).parents[2] / "config" / "fastdds_large_images.xml"
os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(_PROFILE))
