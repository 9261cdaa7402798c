"""The parameters of the node `spmtrack`: named, described, checked and read in this place only.

``config/tracker.yaml`` repeats the names and defaults; a test compares the two.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node


def _parameter(
    default: Any,
    description: str,
    bounds: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    notes = {"description": description, "bounds": bounds, "choices": choices, "live": live}
    return field(default=default, metadata=notes)


@dataclass(frozen=True)
class Parameters:
    """All parameters. Those that are ``live`` can be set at any time, the others at the start."""

    weights: str = _parameter("nano", "Name of bundled weights or path of a checkpoint.")
    device: str = _parameter(
        "auto", "Where inference runs: auto (the GPU if there is one), cpu, cuda or cuda:N."
    )
    precision: str = _parameter(
        "float32",
        "Precision of the network's products; half needs half the memory.",
        choices=("float32", "bfloat16", "float16"),
    )
    lost_threshold: float = _parameter(
        -1.0,
        "Confidence below which the target counts as lost; -1: the value stored in the weights.",
        bounds=(-1.0, 1.0),
        live=True,
    )
    label: str = _parameter(
        "object", "class_id of a target that is given without a label.", live=True
    )
    init_box: tuple[float, ...] = _parameter(
        (0.0, 0.0, 0.0, 0.0),
        "Box [x, y, w, h] in px to follow from the first image on; all zero: wait for a request.",
    )
    autostart: bool = _parameter(
        True, "Process images from the start; false: not before ~/enable is called."
    )
    image_transport: str = _parameter(
        "raw",
        "raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image/compressed`.",
        choices=("raw", "compressed"),
    )
    image_reliability: str = _parameter(
        "best_effort",
        "QoS of the image subscription; reliable needs a publisher that is reliable as well.",
        choices=("best_effort", "reliable"),
    )
    rectified: bool = _parameter(
        False, "The images are rectified: P of camera_info is theirs, instead of K and D."
    )
    frame_buffer: int = _parameter(
        30, "How many of the last images are kept for a target in an earlier image.", (1, 300)
    )
    init_timeout: float = _parameter(
        5.0, "Longest time in s that ~/init_target waits for its image.", (0.1, 60.0), live=True
    )
    debug_image: bool = _parameter(
        True,
        "Offer ~/debug_image and its /compressed, drawn only while someone subscribes.",
    )
    diagnostics_period: float = _parameter(
        1.0, "Time in s between messages on /diagnostics; 0: none.", (0.0, 60.0)
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value, bounds = getattr(self, each.name), each.metadata["bounds"]
            choices = each.metadata["choices"]
            what = f"parameter '{each.name}' is {value!r}: expected"
            if bounds and not bounds[0] <= value <= bounds[1]:
                raise ValueError(f"{what} {bounds[0]:g} to {bounds[1]:g}")
            if choices and value not in choices:
                raise ValueError(f"{what} {' or '.join(choices)}")
        box, what = self.init_box, f"parameter 'init_box' is {list(self.init_box)}: expected"
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise ValueError(f"{what} four finite numbers")
        if self.has_init_box and min(box[2:]) <= 0:
            raise ValueError(f"{what} a positive width and height")

    @property
    def has_init_box(self) -> bool:
        """Whether a target is to be followed from the first image on."""
        return any(self.init_box)

    def changed(self, values: Mapping[str, Any]) -> Parameters:
        """These with other ``values``; ``ValueError`` as from ``read_parameters``."""
        converted = {
            name: _convert(name, value, getattr(type(self), name))
            for name, value in values.items()
        }
        return replace(self, **converted)


def read_parameters(node: Node) -> Parameters:
    """Declare all parameters on a node and read them.

    Raises ``ValueError`` for a value of the wrong type, out of range or not among the choices.
    """
    return Parameters(**{each.name: _read(node, each) for each in fields(Parameters)})


def _read(node: Node, each: Any) -> Any:
    notes = each.metadata
    descriptor = ParameterDescriptor(description=notes["description"], read_only=not notes["live"])
    # A static type would end the node for 5 instead of 5.0, with a traceback; see _convert.
    descriptor.dynamic_typing = True
    if notes["choices"]:
        descriptor.additional_constraints = "one of " + ", ".join(notes["choices"])
    if bounds := notes["bounds"]:
        low, high = bounds
        if isinstance(each.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    default = list(each.default) if isinstance(each.default, tuple) else each.default
    try:
        value = node.declare_parameter(each.name, default, descriptor).value
    except InvalidParameterValueException:
        raise ValueError(f"parameter '{each.name}': expected {low:g} to {high:g}") from None
    return _convert(each.name, value, each.default)


def _convert(name: str, value: Any, default: Any) -> Any:
    """A parameter's value in the type of its default; whole numbers do for real ones."""
    if isinstance(default, tuple):
        if not isinstance(value, str):
            with contextlib.suppress(TypeError):
                return tuple(_convert(name, number, 0.0) for number in value)
    elif isinstance(default, float) and type(value) in (int, float):
        return float(value)
    elif type(value) is type(default):
        return value
    kinds = {tuple: "a list of numbers", float: "a number", int: "a whole number"}
    kinds |= {bool: "true or false", str: "a text"}
    raise ValueError(f"parameter '{name}' is {value!r}: expected {kinds[type(default)]}")
