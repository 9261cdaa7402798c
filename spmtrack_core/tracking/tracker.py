"""The tracker: ``init`` on one frame, ``update`` on each that follows."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.geometry.boxes import (
    Boxes,
    check_box_xywh,
    clip_xyxy,
    xywh_to_xyxy,
    xyxy_to_xywh,
)
from spmtrack_core.geometry.image import Image, check_frame, mean_colour
from spmtrack_core.model.fused import FusedSPMTrack, fuse
from spmtrack_core.model.onnx_model import OnnxSPMTrack
from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.model.weights import PRECISIONS, load_checkpoint
from spmtrack_core.tracking.graph import GraphedStep
from spmtrack_core.tracking.postprocess import (
    box_in_frame,
    hann_window,
    is_good_box,
    select_box,
)
from spmtrack_core.tracking.preprocess import foreground_mask, search_crop, template_crop
from spmtrack_core.tracking.references import ReferenceBuffer
from spmtrack_core.tracking.state import Target, TrackResult, TrackState

LOG = logging.getLogger(__name__)
BUNDLED_WEIGHTS = Path(__file__).parents[1] / "weights"


class Tracker:
    """Follows one target. Not thread-safe: one caller at a time.

    Tracks with the inference layout of ``model``, which it leaves alone. ``precision`` is that of
    the network's products, as under autocast in the published evaluation; what lies around the
    network is float32 and float64.
    """

    def __init__(
        self,
        model: SPMTrack | OnnxSPMTrack,
        model_config: ModelConfig,
        config: TrackerConfig,
        device: torch.device | str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.device = torch.device(device)
        dtype = choose_precision(precision)
        self.model: FusedSPMTrack | OnnxSPMTrack
        if isinstance(model, SPMTrack):
            self.model = fuse(model, dtype).to(self.device)
        else:
            self.model = model
        self.model_config = model_config
        self.config = config
        self.window = hann_window(model_config.search_grid_hw).to(self.device)
        self.target: Target | None = None
        self._graph: GraphedStep | None = None
        self._may_graph = self.device.type == "cuda"

    @torch.inference_mode()
    def init(self, frame: Image, box_xywh: Sequence[float]) -> None:
        """Name the target: ``frame`` RGB uint8 (H, W, 3), ``box_xywh`` in its pixels.

        Forgets the previous target, unless ``ValueError`` is raised for a frame of another kind
        or a box that is not finite, has no area or misses the image.
        """
        frame = check_frame(frame)
        box_xyxy = xywh_to_xyxy(check_box_xywh(box_xywh, frame.shape[:2]))
        shapes = self.model.reference_shapes
        references = ReferenceBuffer(self.config.buffer_frames, *shapes, device=self.device)
        target = Target(box_xyxy, mean_colour(frame), references, self.model.no_state)
        self._remember(target, frame, box_xyxy)
        self.target = target

    @torch.inference_mode()
    def update(self, frame: Image) -> TrackResult:
        """Find the target in the next frame, RGB uint8 (H, W, 3).

        A prediction that is not a box leaves the target where it was, LOST. Raises
        ``RuntimeError`` before ``init`` and ``ValueError`` for a frame of another kind.
        """
        target = self.target
        if target is None:
            raise RuntimeError("update needs a target: call init first")
        frame = check_frame(frame)
        config, search_hw = self.config, self.model_config.search_hw
        search, transform = search_crop(
            frame, target.box_xyxy, config.search_area_factor, search_hw, config.min_side,
            target.background,
        )  # fmt: skip
        answer, state_token = self._step(
            torch.from_numpy(search).unsqueeze(0),  # (1, 3, H, W)
            *target.references.gather(config.reference_rule),
            target.state_token,
        )
        *box_in_crop, confidence = answer.tolist()  # the only read-back
        box_xyxy = box_in_frame(box_in_crop, transform, frame.shape[:2])
        good = is_good_box(box_xyxy)
        if math.isfinite(confidence):
            target.state_token = state_token
        else:  # keep what is not a number out of the frames to come
            confidence, good = 0.0, False
        if good:
            target.box_xyxy = box_xyxy
        self._remember(target, frame, target.box_xyxy)
        lost = not good or confidence < config.lost_threshold
        # the given box may reach beyond the frame, and so may a frame of another size
        x, y, w, h = xyxy_to_xywh(clip_xyxy(target.box_xyxy, frame.shape[:2])).tolist()
        return TrackResult(
            (x, y, w, h), confidence, TrackState.LOST if lost else TrackState.TRACKING
        )

    def warm_up(self) -> None:
        """Follow a blank image for one frame, so that the first real one takes no longer.

        Memory is taken, kernels are chosen, on CUDA the network is recorded. The target stays.
        """
        target, blank = self.target, np.zeros((120, 160, 3), np.uint8)
        try:
            self.init(blank, (60.0, 40.0, 40.0, 40.0))
            self.update(blank)
        finally:
            self.target = target

    def _step(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """``_predict`` for a search region on the host; replayed on CUDA, if it can be."""
        if self._may_graph and self._graph is None:
            try:
                self._graph = GraphedStep(self._predict, inputs, self.device)
            except RuntimeError as error:
                self._may_graph = False
                reason = str(error).partition("\n")[0]
                LOG.warning("tracking without a CUDA graph, which is slower: %s", reason)
        if self._graph is not None:
            return self._graph(*inputs)
        return self._predict(inputs[0].to(self.device), *inputs[1:])

    def _predict(self, search: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """What one frame needs: box in the crop and confidence (5,), and state token (1, 1, C)."""
        prediction = self.model(search, *others)
        boxes, scores, _ = select_box(
            prediction, self.window, self.config.window_weight, self.model_config.search_hw
        )
        return torch.cat((boxes[0], scores)), prediction.state_token

    def _remember(self, target: Target, frame: Image, box_xyxy: Boxes) -> None:
        """Hand the frame to the target's reference buffer."""
        if not target.references.keeps_next:
            target.references.skip()
            return
        template_hw = self.model_config.template_hw
        crop, transform = template_crop(
            frame, box_xyxy, self.config.template_area_factor, template_hw
        )
        mask = foreground_mask(
            transform.to_crop(box_xyxy), template_hw, self.model_config.template_grid_hw
        )
        crops, masks = (torch.from_numpy(part)[None].to(self.device) for part in (crop, mask))
        target.references.append(*(part[0] for part in self.model.remember(crops, masks)))


def load_tracker(
    weights: str | Path = "nano",
    device: str = "auto",
    lost_threshold: float | None = None,
    precision: str = "float32",
    trunk: str | Path | None = None,
) -> Tracker:
    """A tracker with ``weights``: the name of bundled ones, or the path of a checkpoint or .onnx.

    ``device`` is ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``;
    ``lost_threshold`` replaces the one that came with the weights; ``precision`` is ``float32``,
    ``bfloat16`` or ``float16`` (half the memory); ``trunk`` is the file of the DINOv2 trunk for
    weights without one (published or adapters-only), which is else taken from timm's hub. A
    .onnx file has its precision and its trunk inside. Raises ``FileNotFoundError`` for weights
    that are nowhere and ``ValueError`` for a file, a device or a precision that cannot be used.
    """
    path = find_weights(weights)
    chosen = choose_device(device)
    dtype = choose_precision(precision)
    model: SPMTrack | OnnxSPMTrack
    if path.suffix == ".onnx":
        if trunk is not None or dtype is not torch.float32:
            raise ValueError(f"{path} has its trunk and precision inside: leave them out")
        model = OnnxSPMTrack(path, device)
        chosen = torch.device("cpu")  # ONNX Runtime uploads by itself
        model_config, config = model.model_config, model.tracker_config
    else:
        frozen = find_weights(trunk) if trunk else None
        model, model_config, config, *_ = load_checkpoint(path, frozen, dtype)
    if lost_threshold is not None:
        config = replace(config, lost_threshold=lost_threshold)
    return Tracker(model, model_config, config, chosen, precision)


def find_weights(weights: str | Path) -> Path:
    """The file of ``weights``: a path, or a bundled name; ``FileNotFoundError`` if neither."""
    path, bundled = Path(weights), BUNDLED_WEIGHTS / f"{weights}.safetensors"
    if path.is_file():
        return path
    if bundled.is_file():
        return bundled
    names = sorted(file.stem for file in BUNDLED_WEIGHTS.glob("*.safetensors"))
    raise FileNotFoundError(
        f"no weights {str(weights)!r}: neither a file nor bundled ({', '.join(names)})"
    )


def choose_device(name: str) -> torch.device:
    """The torch device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; else ``ValueError``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name} is not there: {torch.cuda.device_count()} CUDA devices")
    return device


def choose_precision(name: str) -> torch.dtype:
    """The torch type of ``float32``, ``bfloat16`` or ``float16``; else ``ValueError``."""
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {name!r}")
    return PRECISIONS[name]
