"""Targets, and the requests for them with their rules and answers. Free of ROS and of threads."""

from __future__ import annotations

import math
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from spmtrack_core.geometry.boxes import (
    check_box_xywh,
    clip_xyxy,
    iou_xyxy,
    misses_image,
    xywh_to_xyxy,
)
from spmtrack_ros.conversions import normalized_to_pixels
from spmtrack_ros.frame_buffer import Frame

BoxXywh = tuple[float, float, float, float]

_MAX_ID, _MAX_LABEL = 64, 256  # characters
_MAX_SIDES = 2.0  # sides of a box in sides of the image
_BORDER = 1.0  # px; a box that ends so near the border of the image is at the border


class State(IntEnum):
    """State of a target; the numbers are those of ``msg/TrackState``."""

    IDLE = 0
    TRACKING = 1
    LOST = 2
    UNCERTAIN = 3


class Reason(IntEnum):
    """Why a target is not TRACKING; the numbers are those of ``msg/TrackState``."""

    NONE = 0
    LOW_CONFIDENCE = 1
    LEFT_IMAGE = 2
    NO_IMAGE = 3
    IMAGE_SIZE_CHANGED = 4
    INVALID_IMAGE = 5
    INTERNAL_ERROR = 255


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


@dataclass(frozen=True)
class Target:
    """A target with its state in the newest processed image."""

    id: str
    label: str
    state: State
    score: float
    """Confidence, 0 to 1; 1 right after initialization."""
    box_xywh: BoxXywh
    """The box in ``frame``, or the last one seen while ``state`` is LOST."""
    frame: Frame
    """The image that this state was measured in."""
    last_seen_ns: int
    """Stamp of the last image in which the target was not LOST."""
    reason: Reason = Reason.NONE
    frames_lost: int = 0
    """Consecutive images in which the target is LOST."""
    started: float = 0.0
    """Time of the initialization, s of the monotonic clock."""
    first_ns: int = 0
    """Stamp of the image of the initialization."""
    handle: Any = field(default=None, repr=False, compare=False)
    """The tracker's own object for this target."""

    @classmethod
    def started_in(
        cls, frame: Frame, request: InitRequest, box_xywh: BoxXywh, handle: Any
    ) -> Target:
        """A new target whose box in ``frame`` was given."""
        return cls(
            request.id,
            request.label,
            State.TRACKING,
            1.0,
            box_xywh,
            frame,
            frame.stamp_ns,
            started=time.monotonic(),
            first_ns=frame.stamp_ns,
            handle=handle,
        )

    @property
    def visible(self) -> bool:
        """Whether the target has a box in its image."""
        return self.state is not State.LOST

    def found(self, frame: Frame, result: Any, image_hw: tuple[int, int]) -> Target:
        """The target after the tracker's ``result`` for this image."""
        state, score = State[result.state.name], float(result.confidence)
        if state is State.LOST:
            reason = Reason.LOW_CONFIDENCE
            if getattr(self.handle, "lost_reason", ""):  # the tracker cannot look for it
                reason = Reason.IMAGE_SIZE_CHANGED
            elif _at_border(self.box_xywh, image_hw):
                reason = Reason.LEFT_IMAGE
            return self.lost(frame, reason, score)
        reason = Reason.NONE if state is State.TRACKING else Reason.LOW_CONFIDENCE
        return replace(
            self,
            state=state,
            score=score,
            box_xywh=result.box_xywh,
            frame=frame,
            last_seen_ns=frame.stamp_ns,
            reason=reason,
            frames_lost=0,
        )

    def lost(self, frame: Frame, reason: Reason, score: float = 0.0) -> Target:
        """The target after an image in which it was not found."""
        count = self.frames_lost + 1
        return replace(
            self, state=State.LOST, score=score, frame=frame, reason=reason, frames_lost=count
        )

    def without_image(self) -> Target:
        """The target when no more images arrive."""
        return replace(self, state=State.LOST, score=0.0, reason=Reason.NO_IMAGE)


@dataclass(frozen=True)
class InitRequest:
    """A target, given by its box in one image."""

    box_xywh: BoxXywh
    stamp_ns: int = 0
    """Stamp of the image that the box was drawn in; 0 means the newest image."""
    id: str = ""
    """Empty: the session generates one."""
    label: str = ""
    normalized: bool = False
    """The box is in parts of the image (0 to 1) instead of pixels."""
    frame_id: str = ""
    """frame_id of the image; empty: any."""
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
    unchanged: bool = False
    """Nothing was started, because a target in this place is followed already."""


class TargetList:
    """The targets in the order given, one of them the primary. Not thread-safe."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}
        self._primary = ""
        self._ids_made = 0

    def __iter__(self) -> Iterator[Target]:
        return iter(list(self._targets.values()))

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, target_id: str) -> bool:
        return target_id in self._targets

    @property
    def primary(self) -> Target | None:
        """The target chosen by :meth:`set_primary`, otherwise the first one."""
        return self._targets.get(self._primary) or next(iter(self), None)

    def set_primary(self, target_id: str) -> Reply:
        """Choose the primary target; an empty id means the first one."""
        if target_id not in self and (target_id or not self._targets):
            return self.unknown(target_id)
        self._primary = target_id
        return Reply(Code.OK, id=target_id)

    def replaced_by(self, target_id: str) -> Target | None:
        """The target that a new one of this id replaces, None if it is added."""
        return self._targets.get(target_id) if target_id else self.primary

    def add(self, target: Target, replaced: Target | None = None) -> Target:
        """Add a target, in the place of ``replaced``; with a generated id if it has none."""
        if not target.id:
            target = replace(target, id=self._new_id())
        targets = list(self._targets.values())
        if replaced is None or replaced.id not in self:
            targets.append(target)
        else:
            targets[list(self._targets).index(replaced.id)] = target
            if self._primary == replaced.id:
                self._primary = target.id
        self._targets = {each.id: each for each in targets}
        return target

    def update(self, target: Target) -> None:
        """Set the new state of a target, unless that was removed or replaced meanwhile."""
        if self.latest(target):
            self._targets[target.id] = target

    def latest(self, target: Target | None) -> Target | None:
        """The present state of a target; None if it was removed or replaced."""
        now = self._targets.get(target.id) if target else None
        return now if now and target and now.handle is target.handle else None

    def remove(self, target_id: str = "") -> Reply:
        """Remove the target of this id; an empty id means all."""
        if not target_id:
            self._targets.clear()
        elif self._targets.pop(target_id, None) is None:
            return self.unknown(target_id)
        if self._primary not in self:
            self._primary = ""
        return Reply(Code.OK, id=target_id)

    def unknown(self, target_id: str) -> Reply:
        """The answer to a request for a target that is not in the list."""
        present = ", ".join(f"'{each}'" for each in self._targets) or "there is none"
        return Reply(Code.UNKNOWN_ID, f"no target has the id '{target_id}'; targets: {present}")

    def reject_reason(self, request: InitRequest, limits: Limits) -> Reply | None:
        """Why a request must be rejected, regardless of its image; None if it need not."""
        x, y, w, h = request.box_xywh
        if not all(map(math.isfinite, request.box_xywh)) or w <= 0 or h <= 0:
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
                return Reply(
                    Code.INVALID_ID, f"{name} is {text!r}: expected no control characters"
                )
        if self.replaced_by(request.id) is None and len(self) >= limits.max_targets:
            problem = f"{len(self)} targets are followed, max_targets is {limits.max_targets}"
            return Reply(Code.TOO_MANY_TARGETS, f"{problem}: remove one with ~/remove_target")
        for target in self if request.unless_followed else ():
            boxes = xywh_to_xyxy([target.box_xywh, *request.unless_followed])
            if target.visible and iou_xyxy(boxes[:1], boxes[1:]).max() >= limits.init_overlap:
                return Reply(Code.OK, "followed already", target.id, unchanged=True)
        return None

    def _new_id(self) -> str:
        while True:
            self._ids_made += 1
            made = f"target-{self._ids_made}"
            if made not in self:  # a client may have given such an id
                return made


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
    if not request.normalized and max(x + w, y + h) <= 1:
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


def _at_border(box_xywh: BoxXywh, image_hw: tuple[int, int]) -> bool:
    """Whether a box that was seen last touches the border of the image."""
    x, y, w, h = box_xywh
    height, width = image_hw
    return min(x, y, width - x - w, height - y - h) <= _BORDER
