"""Targets and the list of them. Free of threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy
from spmtrack_core.session.frame_buffer import Frame
from spmtrack_core.session.init_request import (
    BoxXywh,
    Code,
    InitRequest,
    Limits,
    Reply,
    check_request,
)

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
        if rejection := check_request(request):
            return rejection
        if self.replaced_by(request.id) is None and len(self) >= limits.max_targets:
            problem = f"{len(self)} targets are followed, max_targets is {limits.max_targets}"
            return Reply(Code.TOO_MANY_TARGETS, f"{problem}: remove one first")
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


def _at_border(box_xywh: BoxXywh, image_hw: tuple[int, int]) -> bool:
    """Whether a box that was seen last touches the border of the image."""
    x, y, w, h = box_xywh
    height, width = image_hw
    return min(x, y, width - x - w, height - y - h) <= _BORDER
