"""The parameters of a node: one row each, with description, range and type, read only here.

A node's parameters are a subclass of :class:`NodeParameters`; :func:`read_parameters` declares and
reads them. Those of the node `spmtrack` are :class:`TrackerParameters`: ``config/tracker.yaml``
repeats their names and defaults and the launch file takes descriptions and choices from them.
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node

from spmtrack_core.data.image_messages import MAX_PIXELS, READABLE_PIXELS
from spmtrack_core.session.init_request import InitRequest, Limits, check_request


def parameter(
    default: Any,
    description: str,
    bounds: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
    number_as_text: bool = False,
) -> Any:
    """One row of a :class:`NodeParameters`.

    ``bounds`` are the smallest and the largest value; ``live`` parameters can be set while the
    node runs; ``number_as_text`` accepts a whole number for a text, such as a camera's index.
    """
    notes = {"description": description, "bounds": bounds, "choices": choices}
    return field(default=default, metadata=notes | {"live": live, "as_text": number_as_text})


def same_row(kind: type[NodeParameters], name: str) -> Any:
    """The row ``name`` of another node, to be repeated in a :class:`NodeParameters`."""
    row = next(row for row in fields(kind) if row.name == name)
    return field(default=row.default, metadata=row.metadata)


@dataclass(frozen=True)
class NodeParameters:
    """Checked values: ``ValueError`` for one out of its range or not among its choices."""

    def __post_init__(self) -> None:
        for row in fields(self):
            value, bounds = getattr(self, row.name), row.metadata["bounds"]
            choices = row.metadata["choices"]
            problem = f"parameter '{row.name}' is {value!r}: expected"
            if bounds and not bounds[0] <= value <= bounds[1]:
                raise ValueError(f"{problem} {bounds[0]:g} to {bounds[1]:g}")
            if choices and value not in choices:
                raise ValueError(f"{problem} {' or '.join(choices)}")

    def changed(self: Values, values: Mapping[str, Any]) -> Values:
        """A copy with other ``values``; raises ``ValueError`` as :func:`read_parameters` does."""
        rows = {row.name: row for row in fields(self)}
        return replace(self, **{name: _convert(rows[name], new) for name, new in values.items()})


Values = TypeVar("Values", bound=NodeParameters)


@dataclass(frozen=True)
class TrackerParameters(NodeParameters):
    """The parameters of the node `spmtrack`."""

    weights: str = parameter(
        "nano", "Name of bundled weights, or path of a checkpoint or an exported file."
    )
    device: str = parameter(
        "auto", "Where inference runs: auto (the GPU if there is one), cpu, cuda or cuda:N."
    )
    precision: str = parameter(
        "float32",
        "Compute dtype of the network; the half ones need half the memory.",
        choices=("float32", "bfloat16", "float16"),
    )
    runtime: str = parameter(
        "auto",
        "What computes the network: torch; openvino, faster on CPUs; auto: OpenVINO where it is "
        "installed and the device is the CPU, else torch. Of an .onnx file: onnxruntime or "
        "openvino; of an .engine file: tensorrt.",
        choices=("auto", "torch", "openvino", "onnxruntime", "tensorrt"),
    )
    threads: int = parameter(
        0, "CPU threads of the network; 0: as many as are worth their cores here.", (0, 256)
    )
    lost_threshold: float = parameter(
        -1.0,
        "Average confidence below which a target is lost; -1: the value stored in the weights.",
        bounds=(-1.0, 1.0),
        live=True,
    )
    found_margin: float = parameter(
        -1.0,
        "Part of the way from lost_threshold to 1 that the average confidence of a lost target "
        "must reach to count as found again; -1: the value stored in the weights.",
        bounds=(-1.0, 1.0),
        live=True,
    )
    confidence_weight: float = parameter(
        -1.0,
        "Weight of the newest image in the average confidence, from 0.01; 1: no average; -1: the "
        "value stored in the weights.",
        bounds=(-1.0, 1.0),
        live=True,
    )
    recovery: str = parameter(
        "weights",
        "Search for a lost target: none (around its last box), scan (the whole image as well, at "
        "about twice the time an image), weights (the setting stored in the weights).",
        choices=("weights", "none", "scan"),
        live=True,
    )
    policy: str = parameter(
        "weights",
        "Window, boxes, reference frames and recovery: weights (the settings stored in the "
        "weights and the parameters here) or published (those of the published tracker instead).",
        choices=("weights", "published"),
        live=True,
    )
    reference_min_confidence: float = parameter(
        -1.0,
        "Confidence from which on an image may become a reference frame; -1: the value stored in "
        "the weights.",
        bounds=(-1.0, 1.0),
        live=True,
    )
    label: str = parameter(
        "object", "class_id of a target that is given without a label.", live=True
    )
    init_box: tuple[float, ...] = parameter(
        (0.0, 0.0, 0.0, 0.0),
        "Box [x, y, w, h] in px to follow from the first image on; all zero: wait for a request.",
    )
    max_targets: int = parameter(
        8, "How many targets can be followed at a time.", (1, 32), live=True
    )
    lifecycle_autostart: bool = parameter(
        True, "Configure and activate at the start; false: wait for a lifecycle manager."
    )
    autostart: bool = parameter(
        True, "Process images from the start; false: after ~/enable is called."
    )
    image_transport: str = parameter(
        "raw",
        "raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image/compressed`.",
        choices=("raw", "compressed"),
    )
    image_reliability: str = parameter(
        "best_effort",
        "QoS of the image subscription; reliable needs a publisher that is reliable as well.",
        choices=("best_effort", "reliable"),
    )
    rectified: bool = parameter(
        False, "The images are rectified: P of camera_info describes them, instead of K and D."
    )
    frame_buffer: int = parameter(
        30, "How many of the last images are kept for a target in an earlier image.", (1, 300)
    )
    frame_buffer_mb: float = parameter(
        256.0, "Most memory in MB for these images; the newest is always kept.", (1.0, 16384.0)
    )
    max_pixels: int = parameter(
        MAX_PIXELS,
        "Largest compressed image in px; larger ones are not decoded.",
        (1, READABLE_PIXELS),
    )
    image_timeout: float = parameter(
        2.0,
        "Time in s without an image after which all targets count as lost.",
        (0.05, 60.0),
        live=True,
    )
    init_timeout: float = parameter(
        5.0, "Longest time in s until ~/init_target answers.", (0.1, 60.0), live=True
    )
    init_min_side: float = parameter(
        4.0, "Shortest side in px of a target's first box.", (0.001, 1000.0), live=True
    )
    init_max_part: float = parameter(
        0.95, "Largest part of the image that a target's first box covers.", (0.01, 1.0), live=True
    )
    init_overlap: float = parameter(
        0.5,
        "IoU from which on a message on ~/init_detection or ~/init_detections is about a target "
        "that is followed already.",
        (0.0, 1.0),
        live=True,
    )
    init_classes: tuple[str, ...] = parameter(
        ("",), "Classes that ~/init_detections starts; one empty text: any.", live=True
    )
    init_min_score: float = parameter(
        0.5, "Lowest score of a detection that ~/init_detections starts.", (0.0, 1.0), live=True
    )
    debug_image: bool = parameter(
        True,
        "Offer ~/debug_image and its /compressed, drawn only while someone subscribes.",
    )
    marker_depth: float = parameter(
        2.0, "Depth in m at which ~/markers draws the boxes; no measured distance.", (0.1, 1000.0)
    )
    processing_timeout: float = parameter(
        5.0,
        "Time in s in one image after which /diagnostics reports an error and all targets are "
        "lost (not before image_timeout).",
        (0.1, 600.0),
    )
    latency_warning: float = parameter(
        0.0, "p95 of the latency in s from which on /diagnostics warns; 0: never.", (0.0, 600.0)
    )
    latency_error: float = parameter(
        0.0, "p95 of the latency in s from which on it reports an error; 0: never.", (0.0, 600.0)
    )
    diagnostics_period: float = parameter(
        1.0, "Time in s between messages on /diagnostics; 0: none.", (0.0, 60.0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"lost_threshold": 0, "found_margin": 0, "reference_min_confidence": 0}
        for name, lowest in (least | {"confidence_weight": 0.01}).items():
            value = getattr(self, name)
            if value != -1 and value < lowest:
                raise ValueError(f"parameter '{name}' is {value}: expected {lowest} to 1, or -1")
        if wrong := check_request(InitRequest((0.0, 0.0, 1.0, 1.0), label=self.label)):
            raise ValueError(f"parameter 'label': {wrong.message}")
        box, problem = self.init_box, f"parameter 'init_box' is {list(self.init_box)}: expected"
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise ValueError(f"{problem} four finite numbers")
        if self.has_init_box and min(box[2:]) <= 0:
            raise ValueError(f"{problem} a positive width and height")

    @property
    def limits(self) -> Limits:
        """Those of the parameters that the session needs."""
        return Limits(**{row.name: getattr(self, row.name) for row in fields(Limits)})

    @property
    def has_init_box(self) -> bool:
        """Whether a target is followed from the first image on."""
        return any(self.init_box)


def read_parameters(node: Node, kind: type[Values]) -> Values:
    """Declare the parameters of ``kind`` on a node and read them.

    Warns of parameters that were given but do not exist. Raises ``ValueError`` for a value of the
    wrong type, out of range or not among the choices.
    """
    names = [row.name for row in fields(kind)]
    # rclpy has no public way; names with a dot, such as qos_overrides, are declared by rclpy later
    for given in sorted(node._parameter_overrides):
        if given not in names and not node.has_parameter(given) and "." not in given:
            near = difflib.get_close_matches(given, names, 1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            node.get_logger().warning(f"there is no parameter '{given}'{meant}")
    return kind(**{row.name: _read(node, row) for row in fields(kind)})


def _read(node: Node, row: Any) -> Any:
    notes, bounds = row.metadata, row.metadata["bounds"]
    descriptor = ParameterDescriptor(description=notes["description"], read_only=not notes["live"])
    # A static type would end the node for 5 instead of 5.0, with a traceback; see _convert.
    descriptor.dynamic_typing = True
    if notes["choices"]:
        descriptor.additional_constraints = "one of " + ", ".join(notes["choices"])
    if bounds and isinstance(row.default, float):
        limits = FloatingPointRange(from_value=bounds[0], to_value=bounds[1])
        descriptor.floating_point_range = [limits]
    elif bounds:
        descriptor.integer_range = [IntegerRange(from_value=bounds[0], to_value=bounds[1], step=1)]
    default = list(row.default) if isinstance(row.default, tuple) else row.default
    try:
        value = node.declare_parameter(row.name, default, descriptor).value
    except InvalidParameterValueException as error:
        if not bounds:
            raise ValueError(f"parameter '{row.name}': {error}") from None
        given = node._parameter_overrides[row.name].value
        expected = f"expected {bounds[0]:g} to {bounds[1]:g}"
        raise ValueError(f"parameter '{row.name}' is {given!r}: {expected}") from None
    return _convert(row, value)


def _convert(row: Any, value: Any) -> Any:
    """A parameter's value in the type of its default; whole numbers are accepted as real ones."""
    default = row.default
    of_texts = isinstance(default, tuple) and isinstance(default[0], str)
    if of_texts:
        if isinstance(value, Sequence) and all(isinstance(each, str) for each in value):
            return (value,) if isinstance(value, str) else tuple(value)
    elif isinstance(default, tuple):
        if not isinstance(value, str):
            with contextlib.suppress(TypeError, ValueError):
                return tuple(map(_to_float, value))
    elif isinstance(default, float):
        with contextlib.suppress(ValueError):
            return _to_float(value)
    elif type(value) is type(default):
        return value
    elif row.metadata["as_text"] and type(value) is int:
        return str(value)
    kinds = {
        tuple: "a list of texts" if of_texts else "a list of numbers",
        float: "a number",
        int: "a whole number",
    }
    kinds |= {bool: "true or false", str: "a text"}
    raise ValueError(f"parameter '{row.name}' is {value!r}: expected {kinds[type(default)]}")


def _to_float(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError
    return float(value)
