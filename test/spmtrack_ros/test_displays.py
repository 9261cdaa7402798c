"""The layout for Foxglove and the file for RViz: their topics and types are those of the nodes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

CONFIG = Path(__file__).parents[2] / "config"
LAYOUT = json.loads((CONFIG / "foxglove_layout.json").read_text())


def leaves(node):
    """All texts in a tree of dictionaries and lists; keys of a dictionary count as well."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for each in node:
            yield from leaves(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from leaves(value)


def test_every_panel_has_a_place_and_a_configuration():
    placed = [text for text in leaves(LAYOUT["layout"]) if "!" in text]
    assert sorted(placed) == sorted(LAYOUT["configById"])


def test_every_topic_is_one_of_the_node():
    policy = re.findall(r"<topic>(.*)</topic>", (CONFIG / "spmtrack.policy.xml").read_text())
    known = {f"/{topic}".replace("/~", "/spmtrack") for topic in policy}
    shown = {text.partition(".")[0] for text in leaves(LAYOUT["configById"]) if text[0:1] == "/"}
    assert shown <= known
    assert {"/image", "/spmtrack/annotations", "/spmtrack/status", "/diagnostics"} <= shown


def test_rviz_shows_topics_of_the_types_that_its_displays_draw():
    docs = (CONFIG.parent / "docs" / "ros.md").read_text()
    source = (CONFIG.parent / "spmtrack_ros" / "target_pose.py").read_text()
    published = {
        f"/{name}".replace("/~", "/spmtrack"): kind.rpartition("/")[2]
        for name, kind in re.findall(r"^\| `(\S+)` \| (\w+/\w+) \|", docs, re.MULTILINE)
    }
    published |= {
        f"/target_pose{name}": kind
        for kind, name in re.findall(r'publisher\((\w+), "~(/\w+)"', source)
    }
    drawn = {
        "Image": "Image",
        "MarkerArray": "MarkerArray",
        "Marker": "Marker",
        "PoseWithCovariance": "PoseWithCovarianceStamped",
        "CameraInfo": "CameraInfo",
    }
    config = yaml.safe_load((CONFIG / "tracker.rviz").read_text())
    displays = [each for each in config["Visualization Manager"]["Displays"] if "Topic" in each]
    assert len(displays) == len(drawn)
    for each in displays:
        kind = drawn[each["Class"].removeprefix("rviz_default_plugins/")]
        assert published[each["Topic"]["Value"]] == kind, each["Name"]
