"""The layout for Foxglove: its panels are laid out, and its topics are the node's."""

from __future__ import annotations

import json
import re
from pathlib import Path

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
