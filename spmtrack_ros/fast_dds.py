"""How Fast DDS finds the profile without which it loses large images; see docs/ros.md."""

from __future__ import annotations

import os

PROFILE = "fastdds_large_images.xml"
"""File in the folder config."""

_OLD = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")  # Fast DDS 2
PROFILES_VARIABLE = f"{'FASTRTPS' if _OLD else 'FASTDDS'}_DEFAULT_PROFILES_FILE"
"""The environment variable that names the profile."""
