"""One image: start a target in it, or find targets in it. Free of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from spmtrack_core.geometry.lazy_image import AnyImage
from spmtrack_core.session.frame_buffer import Frame
from spmtrack_core.session.init_request import (
    BoxXywh,
    Code,
    InitRequest,
    Limits,
    Reply,
    box_in_image,
    point_in_image,
)
from spmtrack_core.tracking.followed import Reason, Target
from spmtrack_core.tracking.propose import propose_box
from spmtrack_core.tracking.result import SeveralTargetTracker


class Tracker(SeveralTargetTracker, Protocol):
    """The methods that the node uses of ``spmtrack_core.load_tracker``'s tracker."""

    def forget_motion(self, targets: Sequence[Any]) -> None: ...


class ImageStep:
    """Applies a tracker to images as they arrive.

    ``decode`` converts a message to an RGB image or raises ``ValueError``; ``check`` only raises,
    for images that need not be decoded.
    """

    def __init__(
        self,
        tracker: Tracker,
        decode: Callable[[Any], AnyImage],
        check: Callable[[Any], Any] = lambda message: None,
    ) -> None:
        self.tracker, self.decode, self._check = tracker, decode, check

    def place(
        self, request: InitRequest, frame: Frame, image: AnyImage, limits: Limits
    ) -> BoxXywh | Reply:
        """The box of a request in pixels of its image, or why the request must be rejected.

        The box of a point is proposed from the image.
        """
        if request.frame_id and frame.frame_id and request.frame_id != frame.frame_id:
            problem = f"frame_id is '{request.frame_id}', but that of the image '{frame.frame_id}'"
            return Reply(Code.WRONG_FRAME_ID, problem)
        image_hw = image.shape[:2]
        if request.point:
            point = point_in_image(request, image_hw)
            if isinstance(point, Reply):
                return point
            try:
                box = propose_box(self.tracker, np.asarray(image), point)
            except Exception as error:
                text = f"no box was proposed: {type(error).__name__}: {error}"
                return Reply(Code.INTERNAL_ERROR, text)
            request = replace(request, box_xywh=box, normalized=False, point=False)
        return box_in_image(request, image_hw, limits)

    def start(
        self, frame: Frame, image: AnyImage, request: InitRequest, box_xywh: BoxXywh
    ) -> Target | Reply:
        """A new target, or why there is none; ``Code.INTERNAL_ERROR`` if the tracker failed."""
        try:
            handle = self.tracker.start(image, box_xywh)
        except ValueError as error:
            return Reply(Code.INVALID_BOX, str(error))
        except Exception as error:
            text = f"the tracker did not start: {type(error).__name__}: {error}"
            return Reply(Code.INTERNAL_ERROR, text)
        hw, now = image.shape[:2], time.monotonic()
        return Target.started_in(frame, hw, request.id, request.label, box_xywh, handle, now)

    def follow(
        self,
        frame: Frame,
        image: AnyImage | None,
        targets: Sequence[Target],
        jumped: Sequence[Target] = (),
    ) -> tuple[AnyImage | None, list[Target], float, str]:
        """The image, the targets after it, the tracker's time in s, and why it failed if so.

        ``image`` is decoded if it is None and there are ``targets``; for those of them that are
        ``jumped`` too it is no successor of the image before.
        """
        reason = Reason.INTERNAL_ERROR
        try:
            if jumped:  # also if this image is unreadable: the next one is no successor either
                self.tracker.forget_motion([each.handle for each in jumped])
            reason = Reason.INVALID_IMAGE
            if not targets:
                self._check(frame.message)
                return image, [], 0.0, ""
            image = self.decode(frame.message) if image is None else image
            reason = Reason.INTERNAL_ERROR
            handles = [each.handle for each in targets]
            begun = time.perf_counter()
            results = self.tracker.follow(image, handles)
            seconds = time.perf_counter() - begun
            pairs = zip(targets, results, strict=True)
            after = [each.found(frame, new, image.shape[:2]) for each, new in pairs]
            return image, after, seconds, ""
        except Exception as failure:
            unreadable = reason is Reason.INVALID_IMAGE and isinstance(failure, ValueError)
            error = str(failure) if unreadable else f"{type(failure).__name__}: {failure}"
            return image, [each.lost(frame, reason) for each in targets], 0.0, error
