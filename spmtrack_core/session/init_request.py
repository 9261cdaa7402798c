"""Requests for a target: their content, their rules, and the answers."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from enum import IntEnum

from spmtrack_core.geometry.boxes import check_box_xywh, clip_xyxy, misses_image, xywh_to_xyxy
from spmtrack_core.tracking.followed import BoxXywh

_MAX_ID, _MAX_LABEL = 64, 256  # characters
_MAX_SIDES = 2.0  # sides of a box in sides of the image


class Code(IntEnum):
    """Result of a request; the numbers are those of ``srv/InitTarget`` and the other services."""

    OK = 0
    NO_IMAGE = 1
    STAMP_NOT_BUFFERED = 2
    INVALID_BOX = 3
    BOX_OUTSIDE_IMAGE = 4
    INVALID_IMAGE = 5
    DISABLED = 6
    CANCELLED = 7
    UNKNOWN_ID = 8
    BOX_TOO_SMALL = 9
    BOX_TOO_LARGE = 10
    WRONG_FRAME_ID = 11
    TOO_MANY_TARGETS = 12
    NOT_READY = 13
    TIMEOUT = 14
    INVALID_ID = 15
    INTERNAL_ERROR = 255


@dataclass(frozen=True)
class Limits:
    """What is accepted and expected; the parameters of the node have the same names."""

    max_targets: int = 8
    init_min_side: float = 4.0
    """px, the shorter side of a box."""
    init_max_part: float = 0.95
    """Part of the image's area that a box covers."""
    init_overlap: float = 0.5
    """IoU from which on a detection is taken for a target that is followed already."""
    image_timeout: float = 2.0
    """s without an image after which all targets are LOST."""
    processing_timeout: float = 5.0
    """s in one image after which all targets are LOST, unless ``image_timeout`` is longer."""


@dataclass(frozen=True)
class InitRequest:
    """A target, given by its box in one image, or by a point."""

    box_xywh: BoxXywh
    """With ``point``: x and y of the point, and sizes that are ignored."""
    stamp_ns: int = 0
    """Stamp of the image that the box was drawn in; 0 means the newest image."""
    id: str = ""
    """Empty: the session generates one."""
    label: str = ""
    normalized: bool = False
    """The box is in parts of the image (0 to 1) instead of pixels."""
    frame_id: str = ""
    """frame_id of the image; empty: any."""
    point: bool = False
    """The target is given by a point on it; its box is proposed from the image."""
    unless_followed: tuple[BoxXywh, ...] = ()
    """Nothing is started if a visible target overlaps one of these boxes by ``init_overlap``."""


@dataclass(frozen=True)
class Reply:
    """Answer to a request; ``message`` is one sentence, empty if nothing is unusual."""

    code: Code
    message: str = ""
    id: str = ""
    stamp_ns: int = 0
    score: float = 0.0
    frames_caught_up: int = 0
    box_xywh: BoxXywh = (0.0, 0.0, 0.0, 0.0)
    """The box that the target was started with, px."""
    unchanged: bool = False
    """Nothing was started, because a target in this place is followed already."""


def check_request(request: InitRequest) -> Reply | None:
    """Why a request must be rejected, regardless of images and targets; None if it need not."""
    x, y, w, h = request.box_xywh
    if request.point:
        if not (math.isfinite(x) and math.isfinite(y)):
            problem = f"point x={x:g} y={y:g}: expected finite numbers"
            return Reply(Code.INVALID_BOX, problem)
    elif not all(map(math.isfinite, request.box_xywh)) or w <= 0 or h <= 0:
        text = f"box x={x:g} y={y:g} w={w:g} h={h:g}"
        return Reply(Code.INVALID_BOX, f"{text}: expected finite numbers and a positive size")
    for name, text, longest in (
        ("id", request.id, _MAX_ID),
        ("label", request.label, _MAX_LABEL),
    ):
        if len(text) > longest:
            problem = f"{name} has {len(text)} characters: expected at most {longest}"
            return Reply(Code.INVALID_ID, problem)
        if any(unicodedata.category(letter) == "Cc" for letter in text):
            return Reply(Code.INVALID_ID, f"{name} is {text!r}: expected no control characters")
    return None


def normalized_to_pixels(box_xywh: BoxXywh, image_hw: tuple[int, int]) -> BoxXywh:
    """Pixels of a box that is given in parts of the image (0 to 1).

    >>> normalized_to_pixels((0.5, 0.25, 0.1, 0.5), (100, 200))
    (100.0, 25.0, 20.0, 50.0)
    """
    height, width = image_hw
    x, y, w, h = box_xywh
    return x * width, y * height, w * width, h * height


def point_in_image(request: InitRequest, image_hw: tuple[int, int]) -> tuple[float, float] | Reply:
    """The point of a request in pixels of its image, or why the request must be rejected."""
    box = request.box_xywh
    x, y, _, _ = normalized_to_pixels(box, image_hw) if request.normalized else box
    if not (0 <= x < image_hw[1] and 0 <= y < image_hw[0]):
        size = f"{image_hw[1]} x {image_hw[0]}"
        problem = f"point x={x:g} y={y:g} is outside the image of {size} px"
        return Reply(Code.BOX_OUTSIDE_IMAGE, problem)
    return x, y


def box_in_image(
    request: InitRequest, image_hw: tuple[int, int], limits: Limits
) -> BoxXywh | Reply:
    """The box of a request in pixels of its image, or why the request must be rejected."""
    box = request.box_xywh
    if request.normalized:
        box = normalized_to_pixels(box, image_hw)
    x, y, w, h = box
    text = f"box x={x:g} y={y:g} w={w:g} h={h:g}"
    if not all(map(math.isfinite, box)):
        return Reply(Code.INVALID_BOX, f"{text}: expected finite numbers")
    if not request.normalized and max(x + w, y + h) <= 1 and min(x + w, y + h) > 0:
        problem = f"{text} lies within the first pixel"
        return Reply(
            Code.INVALID_BOX, f"{problem}: set normalized for a box in parts of the image"
        )
    if misses_image(box, image_hw):
        size = f"{image_hw[1]} x {image_hw[0]}"
        return Reply(Code.BOX_OUTSIDE_IMAGE, f"{text} is outside the image of {size} px")
    if min(w, h) < limits.init_min_side:
        problem = f"{text} is too small"
        return Reply(
            Code.BOX_TOO_SMALL, f"{problem}: init_min_side is {limits.init_min_side:g} px"
        )
    left, top, right, bottom = clip_xyxy(xywh_to_xyxy(box), image_hw).tolist()
    part = (right - left) * (bottom - top) / (image_hw[0] * image_hw[1])
    if part > limits.init_max_part:
        problem = f"{text} covers {part:.3g} of the image"
        return Reply(Code.BOX_TOO_LARGE, f"{problem}: init_max_part is {limits.init_max_part:g}")
    if w > _MAX_SIDES * image_hw[1] or h > _MAX_SIDES * image_hw[0]:
        size = f"{image_hw[1]} x {image_hw[0]}"
        problem = f"{text} is more than {_MAX_SIDES:g} times as large as the image of {size} px"
        return Reply(Code.BOX_TOO_LARGE, problem)
    try:
        check_box_xywh(box, image_hw)
    except ValueError as error:
        return Reply(Code.INVALID_BOX, str(error))
    return box
