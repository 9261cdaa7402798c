"""The name of the variable agrees in Python and in tools/ros-env."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from spmtrack_ros.fast_dds import profiles_variable

ROS_ENV = Path(__file__).parents[2] / "tools" / "ros-env"


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [
        ("humble", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),  # warns about the other name
        ("lyrical", "FASTDDS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_variable_of_a_distribution(distribution, variable):
    assert profiles_variable(distribution) == variable
    choice = re.search(r"^case \$ROS_DISTRO in.*?^esac$", ROS_ENV.read_text(), re.M | re.S)[0]
    shell = f'ROS_DISTRO={distribution}\n{choice}\necho "$profiles"'
    found = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == variable
