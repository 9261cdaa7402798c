"""How Fast DDS finds the profile without which it loses large images; see docs/ros.md."""

from __future__ import annotations

import os

PROFILE = "fastdds_large_images.xml"
"""File in the folder config."""


def profiles_variable(distribution: str) -> str:
    """The environment variable that names the profile in a ROS 2 distribution.

    Kilted, the first with Fast DDS 3, warns about the old name.
    """
    prefix = "FASTRTPS" if distribution in ("humble", "jazzy") else "FASTDDS"
    return f"{prefix}_DEFAULT_PROFILES_FILE"


PROFILES_VARIABLE = profiles_variable(os.environ.get("ROS_DISTRO", ""))
"""The variable in this distribution."""
