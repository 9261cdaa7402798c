"""A target as ROS reports it: its state in one image, and why. Without torch and ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Protocol

from spmtrack_core.geometry.drawing import GREEN, ORANGE, WHITE, draw_box
from spmtrack_core.geometry.image import Image

BoxXywh = tuple[float, float, float, float]

_BORDER = 1.0  # px; a box that ends so near the border of the image is at the border


class Frame(Protocol):
    """An image as it arrived or was recorded."""

    @property
    def number(self) -> int:
        """Position in the order of the images."""

    @property
    def stamp_ns(self) -> int:
        """Stamp of its header."""

    @property
    def message(self) -> Any:
        """The image message, with its header."""


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
    """Time of the initialization in s: of the monotonic clock, or of a replay the stamp."""
    first_ns: int = 0
    """Stamp of the image of the initialization."""
    image_hw: tuple[int, int] | None = None
    """Size of the image that ``box_xywh`` is in; None: of all images."""
    handle: Any = field(default=None, repr=False, compare=False)
    """The tracker's own object for this target."""

    @classmethod
    def started_in(
        cls,
        frame: Frame,
        image_hw: tuple[int, int],
        target_id: str,
        label: str,
        box_xywh: BoxXywh,
        handle: Any,
        now: float,
    ) -> Target:
        """A new target whose box in ``frame`` was given; ``now`` as ``started``."""
        return cls(
            target_id,
            label,
            State.TRACKING,
            1.0,
            box_xywh,
            frame,
            frame.stamp_ns,
            started=now,
            first_ns=frame.stamp_ns,
            image_hw=image_hw,
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
            if getattr(self.handle, "lost_reason", ""):  # the tracker cannot look for it
                return self.lost(frame, Reason.IMAGE_SIZE_CHANGED, score)
            scaled = self._scaled_to(image_hw)
            left = _at_border(scaled.box_xywh, image_hw)
            return scaled.lost(frame, Reason.LEFT_IMAGE if left else Reason.LOW_CONFIDENCE, score)
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
            image_hw=image_hw,
        )

    def _scaled_to(self, image_hw: tuple[int, int]) -> Target:
        """The target with its box in pixels of an image of this size, which has its aspect."""
        (height, width), (old_height, old_width) = image_hw, self.image_hw or image_hw
        x, y, w, h = self.box_xywh
        right, down = width / old_width, height / old_height
        box_xywh = (x * right, y * down, w * right, h * down)
        return replace(self, box_xywh=box_xywh, image_hw=image_hw)

    def lost(self, frame: Frame, reason: Reason, score: float = 0.0) -> Target:
        """The target after an image in which it was not found."""
        count = self.frames_lost + 1
        return replace(
            self, state=State.LOST, score=score, frame=frame, reason=reason, frames_lost=count
        )

    def without_image(self) -> Target:
        """The target when no more images arrive or the tracker hangs in one."""
        return replace(self, state=State.LOST, score=0.0, reason=Reason.NO_IMAGE)


def draw_targets(image: Image, targets: Sequence[Target]) -> Image:
    """A copy of the image with the boxes of the visible targets and a caption for each."""
    if not targets:
        return draw_box(image, None, "no target", WHITE)
    if lost := [_caption(target) for target in targets if not target.visible]:
        image = draw_box(image, None, ", ".join(lost), ORANGE)
    for target in targets:
        if target.visible:
            color = GREEN if target.state is State.TRACKING else ORANGE
            image = draw_box(image, target.box_xywh, _caption(target), color)
    return image


def _caption(target: Target) -> str:
    return f"{target.id} {target.label} {target.state.name.lower()} {target.score:.2f}"


def _at_border(box_xywh: BoxXywh, image_hw: tuple[int, int]) -> bool:
    """Whether a box that was seen last touches the border of the image."""
    x, y, w, h = box_xywh
    height, width = image_hw
    return min(x, y, width - x - w, height - y - h) <= _BORDER
