"""The tracker: ``init`` on one frame, ``update`` on each that follows."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spmtrack_core.config import TrackerConfig
from spmtrack_core.geometry.boxes import check_box_xywh, clip_xyxy, xywh_to_xyxy, xyxy_to_xywh
from spmtrack_core.geometry.crop import context_crop
from spmtrack_core.geometry.image import Image, check_frame, mean_color
from spmtrack_core.geometry.lazy_image import AnyImage
from spmtrack_core.tracking.postprocess import box_in_frame, is_good_box
from spmtrack_core.tracking.preprocess import foreground_mask
from spmtrack_core.tracking.recovery import Recovery
from spmtrack_core.tracking.references import ExactReferences, ReferenceBuffer
from spmtrack_core.tracking.result import TrackResult, TrackState
from spmtrack_core.tracking.target import Target

if TYPE_CHECKING:  # one of the engines needs torch
    from spmtrack_core.tracking.cuda_engine import CudaEngine
    from spmtrack_core.tracking.host_engine import HostEngine

LOG = logging.getLogger(__name__)


class Tracker:
    """Follows targets through a video. Not thread-safe: one caller at a time.

    ``init`` and ``update`` serve one target. For several, ``start`` begins each of them, and
    ``follow`` finds all those of one video in one pass of the network, ``follow_each`` those of
    several videos.

    ``engine`` computes crops and network; it comes from ``load_tracker`` or ``torch_engine``.
    """

    def __init__(self, engine: HostEngine | CudaEngine, config: TrackerConfig) -> None:
        self.engine = engine
        self.config = config
        self.device = str(engine.device)
        self.model_config = engine.model_config
        self.target: Target | None = None
        self._told: set[str] = set()  # changes of size; frames of two cameras alternate for ever

    @property
    def runtime(self) -> str:
        """What computes the network, as ``load_tracker`` calls it."""
        return self.engine.runtime

    @property
    def threads(self) -> int:
        """See ``HostEngine``."""
        return self.engine.threads

    @property
    def config(self) -> TrackerConfig:
        """The settings in force, see ``TrackerConfig``; may be replaced between two calls."""
        return self._config

    @config.setter
    def config(self, config: TrackerConfig) -> None:
        self._config = config.in_force()

    def init(self, frame: Image, box_xywh: Sequence[float]) -> None:
        """Start on ``frame``, RGB uint8 (H, W, 3), with the target's box in its pixels.

        Replaces the previous target. Raises ``ValueError``, and keeps the previous target, for a
        frame of another kind or a box that is not finite, has no area or misses the frame.
        """
        self.target = self.start(frame, box_xywh)

    def update(self, frame: Image) -> TrackResult:
        """Find the target in the next frame, RGB uint8 (H, W, 3).

        A prediction that is no box leaves the target where it was, LOST. Raises ``RuntimeError``
        before ``init`` and ``ValueError`` for a frame of another kind.
        """
        if self.target is None:
            raise RuntimeError("update needs a target: call init first")
        return self.follow(frame, [self.target])[0]

    def start(self, frame: AnyImage, box_xywh: Sequence[float]) -> Target:
        """A new target for ``follow``; raises as ``init`` does."""
        frame = check_frame(frame)
        box_xyxy = xywh_to_xyxy(check_box_xywh(box_xywh, frame.shape[:2]))
        with self.engine.stream():
            shapes = self.engine.model.reference_shapes
            config = self.config
            references = (
                ExactReferences(config.exact_frames, config.reference_rule)
                if config.exact_frames
                else ReferenceBuffer(
                    config.buffer_frames,
                    *shapes,
                    stride=config.reference_stride,
                    empty=self.engine.empty,
                )
            )
            target = Target(
                box_xyxy,
                mean_color(frame),
                references,
                self.engine.model.no_state,
                frame.shape[:2],
            )
            self.engine.set_frames([frame])
            self._add_references([frame], {0: target})
        return target

    def follow(self, frame: AnyImage, targets: Sequence[Target]) -> list[TrackResult]:
        """Find each of ``targets`` in the next frame, as ``update`` does for one.

        The targets come from ``start`` of this tracker. In a frame of another size, a target's box
        is scaled along with the frame; where the aspect changed as well, the target is LOST, and
        ``lost_reason`` and, the first time, a warning give the cause. Raises ``ValueError`` for a
        target that is listed twice.
        """
        frame = check_frame(frame)
        return self.follow_each([frame] * len(targets), targets)

    def follow_each(
        self, frames: Sequence[AnyImage], targets: Sequence[Target]
    ) -> list[TrackResult]:
        """As ``follow``, each target in a frame of its own: ``frames`` has one for each.

        The frames may be those of different videos, of any sizes. Raises ``ValueError`` also for
        another number of frames, and for one of another kind.
        """
        images = [check_frame(frame) for frame in frames]
        if len(images) != len(targets):
            raise ValueError(
                f"expected a frame for each target; got {len(images)} frames for "
                f"{len(targets)} targets"
            )
        if len({id(target) for target in targets}) < len(targets):
            raise ValueError(f"one of the {len(targets)} targets is listed twice")
        sizes = [image.shape[:2] for image in images]
        changes = [target.rescale(hw) for target, hw in zip(targets, sizes, strict=True)]
        for change in set(changes) - {""} - self._told:
            LOG.warning("%s", change)
        self._told.update(changes)
        fitting = [index for index, target in enumerate(targets) if not target.lost_reason]
        found: Iterator[TrackResult] = iter(())
        if fitting:
            found = iter(self._locate([images[i] for i in fitting], [targets[i] for i in fitting]))
        return [
            TrackResult(_box_in(target, frame_hw), 0.0, TrackState.LOST)
            if target.lost_reason
            else next(found)
            for target, frame_hw in zip(targets, sizes, strict=True)
        ]

    def _locate(self, frames: Sequence[Image], targets: Sequence[Target]) -> list[TrackResult]:
        """One pass of the network for targets whose boxes are in the scale of their frames."""
        config, sizes = self.config, [frame.shape[:2] for frame in frames]
        # a lost target has a second search, anywhere in the frame
        scans = config.recovery == "scan"
        second = {i: t.recovery for i, t in enumerate(targets) if scans and t.recovery is not None}
        lost = [targets[index] for index in second]
        places = [*range(len(targets)), *second]
        boxes = [target.box_xyxy for target in targets] + [
            each.next_box() for each in second.values()
        ]
        crops = [
            context_crop(
                box,
                config.search_area_factor,
                sizes[place],
                self.model_config.search_hw,
                config.min_side,
            )
            for place, box in zip(places, boxes, strict=True)
        ]
        with self.engine.stream():
            self.engine.set_frames(frames)
            # the template alone must find a lost target elsewhere
            kept = [target.references.gather(config.reference_rule) for target in targets]
            kept += [target.references.template() for target in lost]
            tokens = [target.state_token for target in targets]
            tokens += [self.engine.model.no_state for _ in lost]
            found, states = self.engine.locate(
                places,
                crops,
                [target.background for target in (*targets, *lost)],
                kept,
                tokens,
                # a lost target can be anywhere in its second region
                [config.window_weight] * len(targets) + [0.0] * len(lost),
                config.box_overlap,
            )
            results, adding = [], {}
            for index, (target, crop) in enumerate(zip(targets, crops, strict=False)):
                *box_in_crop, confidence = found[index]
                box_xyxy = box_in_frame(box_in_crop, crop.transform, sizes[index])
                good = is_good_box(box_xyxy)
                if math.isfinite(confidence):
                    target.state_token = states[index : index + 1]
                else:  # a state token that is no number would spoil all later frames
                    confidence, good = 0.0, False
                if good:
                    target.box_xyxy = box_xyxy
                certain = confidence >= config.reference_min_confidence
                if certain and (not scans or target.seen):
                    adding[index] = target
                state = target.judge(confidence, good, config)
                results.append(TrackResult(_box_in(target, sizes[index]), confidence, state))
                self._recover(target, confidence, sizes[index])
            self._add_references(frames, adding)
            for index, first in enumerate(second, len(targets)):
                target, (*box_in_crop, confidence) = targets[first], found[index]
                box_xyxy = box_in_frame(box_in_crop, crops[index].transform, sizes[first])
                if target.recovery is None or not is_good_box(box_xyxy):
                    continue
                if confidence >= max(config.recovery_threshold, results[first].confidence):
                    target.box_xyxy, target.state_token = box_xyxy, states[index : index + 1]
                else:
                    target.recovery.doubted(box_xyxy, confidence)
        return results

    def forget_motion(self, targets: Sequence[Target]) -> None:
        """Reset the target state tokens after a break in the video, such as a cut."""
        for target in targets:
            target.state_token = self.engine.model.no_state

    def _recover(self, target: Target, confidence: float, frame_hw: tuple[int, int]) -> None:
        """Begin to search elsewhere for a target that is lost; end it for one that is seen."""
        config = self.config
        if target.seen and confidence >= config.lost_threshold:
            target.certain_xyxy = target.box_xyxy
        if target.seen or config.recovery == "none":  # may have been switched off meanwhile
            target.recovery = None
        elif target.recovery is None:
            factor, search_hw = config.search_area_factor, self.model_config.search_hw
            target.recovery = Recovery(
                target.certain_xyxy, factor, frame_hw, search_hw, config.min_side
            )

    def warm_up(self, targets: int = 1) -> None:
        """Follow ``targets`` targets on a blank frame, so that the first real frame is not slow.

        Takes memory, chooses kernels and, on the CPU, how many threads are worth their cores; on
        CUDA, captures the graphs, that of the search for lost targets too. Keeps what is tracked.
        """
        blank = np.zeros((120, 160, 3), np.uint8)
        self.engine.choose_threads()
        followed = [self.start(blank, (60, 40, 40, 40)) for _ in range(targets)]
        self.follow(blank, followed)
        if self.config.recovery == "scan":
            search_hw = self.model_config.search_hw
            for target in followed:
                target.recovery = Recovery(target.box_xyxy, 1.0, target.frame_hw, search_hw)
            self.follow(blank, followed)

    def _add_references(self, frames: Sequence[Image], targets: Mapping[int, Target]) -> None:
        """Offer the set ``frames`` to the reference buffers of ``targets``, by their indices."""
        template_hw, grid_hw = self.model_config.template_hw, self.model_config.template_grid_hw
        places, crops, masks = [], [], []
        for place, target in targets.items():
            if not target.references.keeps_next:
                target.references.skip()
                continue
            factor, box = self.config.template_area_factor, target.box_xyxy
            crop = context_crop(box, factor, frames[place].shape[:2], template_hw)
            masks.append(foreground_mask(crop.transform.to_crop(box), template_hw, grid_hw))
            crops.append(crop)
            places.append(place)
        if places:
            encoded = self.engine.encode_references(places, crops, masks)
            for place, parts in zip(places, encoded, strict=True):
                targets[place].references.append(*parts)


def _box_in(target: Target, frame_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """The last good box as x, y, w, h in the frame; the given box may reach beyond it."""
    x, y, w, h = xyxy_to_xywh(clip_xyxy(target.box_xyxy, frame_hw)).tolist()
    return x, y, w, h
