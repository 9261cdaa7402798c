"""The parameters of a node as arguments of a launch file."""

from __future__ import annotations

import contextlib
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.parameter_descriptions import ParameterValue

from spmtrack_ros.parameters import NodeParameters

BOOLEAN = ("true", "false")
_ANY = {"*": "/[^/]+", "**": "(/[^/]+)*"}  # in names of nodes in a parameter file


def declare(arguments: dict[str, tuple[str, str, tuple[str, ...]]]) -> list[DeclareLaunchArgument]:
    """Arguments by name with default, description and choices, as far as there are any."""
    return [
        DeclareLaunchArgument(
            name,
            default_value=default,
            description=description,
            choices=choices if len(choices) > 1 else None,
        )
        for name, (default, description, choices) in arguments.items()
    ]


def describe(kind: type[NodeParameters]) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Every parameter as an argument; an empty one keeps the value from params_file."""
    return {
        row.name: (
            "",
            row.metadata["description"],
            ("", *(BOOLEAN if isinstance(row.default, bool) else row.metadata["choices"])),
        )
        for row in fields(kind)
    }


def given(context: LaunchContext, kind: type[NodeParameters]) -> dict[str, Any]:
    """The values of the parameters that were given, and of use_sim_time.

    Raises ``RuntimeError`` for a text that is not of the parameter's type. An argument that is not
    declared yet counts as empty.
    """
    defaults = {row.name: row.default for row in fields(kind)} | {"use_sim_time": False}
    texts = {name: LaunchConfiguration(name, default="").perform(context) for name in defaults}
    return {name: _convert(name, defaults[name], text) for name, text in texts.items() if text}


def in_file(path: str, node: str) -> dict[str, Any]:
    """The parameters in a file for the node of this full name, such as ``/robot/spmtrack``.

    Empty for a file that the node cannot read: the node says what is wrong with it.
    """
    found: dict[str, Any] = {}

    def read(pattern: str, section: Any) -> None:
        for key, value in section.items() if isinstance(section, dict) else ():
            if key != "ros__parameters":  # such as /** or robot
                names = filter(None, str(key).split("/"))
                read(
                    pattern + "".join(_ANY.get(each, f"/{re.escape(each)}") for each in names),
                    value,
                )
            elif isinstance(value, dict) and re.fullmatch(pattern, node):
                found.update(value)

    with contextlib.suppress(yaml.YAMLError, UnicodeError):
        read("", yaml.safe_load(Path(path).read_text()))
    return found


def _convert(name: str, default: Any, text: str) -> Any:
    """The value of a parameter that was given as text."""
    kind = type(default)
    if kind is bool:
        return text == "true"
    if kind is str:
        return ParameterValue(text, value_type=str)  # a name may look like a number
    texts = kind is tuple and isinstance(default[0], str)
    try:
        if texts:
            return _texts(text)
        if kind is tuple:
            return [float(number) for number in re.findall(r"[^\s,\[\]]+", text)]
        return kind(text)
    except (ValueError, yaml.YAMLError):
        expected = {float: "a number", int: "a whole number"}.get(kind, "numbers")
        expected = "texts, such as [one, two]" if texts else expected
        raise RuntimeError(f"{name} is '{text}': expected {expected}") from None


def _texts(text: str) -> list[str]:
    """A list in YAML, of which the brackets may be absent; plain words need no commas either."""
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]
    if re.search(r"[\[\]{},\"']", inner):
        found = yaml.load(f"[{inner}]", yaml.BaseLoader)  # each value stays a text
    else:
        found = inner.split()
    if not found or not all(isinstance(each, str) for each in found):
        raise ValueError
    return found
