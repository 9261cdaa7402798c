"""The tracker: ``init`` on one frame, ``update`` on each that follows."""

from __future__ import annotations

import logging
import math
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.geometry.boxes import check_box_xywh, clip_xyxy, xywh_to_xyxy, xyxy_to_xywh
from spmtrack_core.geometry.crop import context_crop
from spmtrack_core.geometry.image import Image, check_frame, mean_colour
from spmtrack_core.model.fused import FusedSPMTrack, fuse
from spmtrack_core.model.onnx_model import OnnxSPMTrack
from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.model.weights import PRECISIONS, load_checkpoint
from spmtrack_core.tracking.graph import DeviceStep
from spmtrack_core.tracking.postprocess import box_in_frame, is_good_box
from spmtrack_core.tracking.preprocess import foreground_mask
from spmtrack_core.tracking.references import ReferenceBuffer
from spmtrack_core.tracking.state import Target, TrackResult, TrackState
from spmtrack_core.tracking.step import HostStep

LOG = logging.getLogger(__name__)
BUNDLED_WEIGHTS = Path(__file__).parents[1] / "weights"


class Tracker:
    """Follows targets through a video. Not thread-safe: one caller at a time.

    ``init`` and ``update`` are all that one target needs. For several, ``start`` names each of
    them and ``follow`` finds them all in one pass of the network.

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
        self.model_config = model_config
        self.config = config
        self.target: Target | None = None
        self.model: FusedSPMTrack | OnnxSPMTrack
        self.step: HostStep | DeviceStep
        if isinstance(model, OnnxSPMTrack):
            self.model = model
        else:
            self.model = fuse(model, dtype).to(self.device)
        if self.device.type == "cuda" and isinstance(self.model, FusedSPMTrack):
            self.step = DeviceStep(self.model, model_config, config, self.device)
        else:
            self.step = HostStep(self.model, model_config, config)

    def init(self, frame: Image, box_xywh: Sequence[float]) -> None:
        """Name the target: ``frame`` RGB uint8 (H, W, 3), ``box_xywh`` in its pixels.

        Forgets the previous target, unless ``ValueError`` is raised for a frame of another kind
        or a box that is not finite, has no area or misses the image.
        """
        self.target = self.start(frame, box_xywh)

    def update(self, frame: Image) -> TrackResult:
        """Find the target in the next frame, RGB uint8 (H, W, 3).

        A prediction that is not a box leaves the target where it was, LOST. Raises
        ``RuntimeError`` before ``init`` and ``ValueError`` for a frame of another kind.
        """
        if self.target is None:
            raise RuntimeError("update needs a target: call init first")
        return self.follow(frame, [self.target])[0]

    @torch.inference_mode()
    def start(self, frame: Image, box_xywh: Sequence[float]) -> Target:
        """A target of its own, for ``follow``; raises as ``init`` does."""
        frame = check_frame(frame)
        box_xyxy = xywh_to_xyxy(check_box_xywh(box_xywh, frame.shape[:2]))
        with self.step.place():
            shapes = self.model.reference_shapes
            references = ReferenceBuffer(self.config.buffer_frames, *shapes, device=self.device)
            target = Target(box_xyxy, mean_colour(frame), references, self.model.no_state)
            self.step.show(frame)
            self._remember(target, frame.shape[:2])
        return target

    @torch.inference_mode()
    def follow(self, frame: Image, targets: Sequence[Target]) -> list[TrackResult]:
        """Find each of ``targets`` in the next frame, as ``update`` does for one.

        They are this tracker's own, made by ``start``. Raises ``ValueError`` for one listed twice.
        """
        frame = check_frame(frame)
        if not targets:
            return []
        if len({id(target) for target in targets}) < len(targets):
            raise ValueError(f"one of the {len(targets)} targets is listed twice")
        config, frame_hw = self.config, frame.shape[:2]
        crops = [
            context_crop(
                target.box_xyxy, config.search_area_factor, frame_hw, self.model_config.search_hw,
                config.min_side,
            )
            for target in targets
        ]  # fmt: skip
        with self.step.place():
            self.step.show(frame)
            kept = zip(*(t.references.gather(config.reference_rule) for t in targets), strict=True)
            found, states = self.step.find(
                crops,
                [target.background for target in targets],
                [join(parts) for parts in kept],
                join([target.state_token for target in targets]),
            )
            results = []
            for index, (target, crop) in enumerate(zip(targets, crops, strict=True)):
                *box_in_crop, confidence = found[index]
                box_xyxy = box_in_frame(box_in_crop, crop.transform, frame_hw)
                good = is_good_box(box_xyxy)
                if math.isfinite(confidence):
                    target.state_token = states[index : index + 1]
                else:  # keep what is not a number out of the frames to come
                    confidence, good = 0.0, False
                if good:
                    target.box_xyxy = box_xyxy
                self._remember(target, frame_hw)
                lost = not good or confidence < config.lost_threshold
                # the given box may reach beyond the frame, and so may a frame of another size
                x, y, w, h = xyxy_to_xywh(clip_xyxy(target.box_xyxy, frame_hw)).tolist()
                state = TrackState.LOST if lost else TrackState.TRACKING
                results.append(TrackResult((x, y, w, h), confidence, state))
        return results

    def warm_up(self, targets: int = 1) -> None:
        """Follow so many targets on a blank frame, so that the first real one takes no longer.

        Memory is taken, kernels are chosen, on CUDA the step is recorded. What is tracked stays.
        """
        blank = np.zeros((120, 160, 3), np.uint8)
        self.follow(blank, [self.start(blank, (60, 40, 40, 40)) for _ in range(targets)])

    def _remember(self, target: Target, frame_hw: tuple[int, int]) -> None:
        """Hand the frame that is shown to the target's reference buffer."""
        if not target.references.keeps_next:
            target.references.skip()
            return
        template_hw = self.model_config.template_hw
        factor = self.config.template_area_factor
        crop = context_crop(target.box_xyxy, factor, frame_hw, template_hw)
        mask = foreground_mask(
            crop.transform.to_crop(target.box_xyxy), template_hw,
            self.model_config.template_grid_hw,
        )  # fmt: skip
        target.references.append(*(part[0] for part in self.step.remember(crop, mask)))


def join(parts: Sequence[Tensor]) -> Tensor:
    """(B, ...) of B tensors (1, ...); a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))


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
    dtype = choose_precision(precision)
    model: SPMTrack | OnnxSPMTrack
    if path.suffix == ".onnx":
        if trunk is not None or dtype is not torch.float32:
            raise ValueError(f"{path} has its trunk and precision inside: leave them out")
        model = OnnxSPMTrack(path, device)
        chosen = torch.device("cpu")  # ONNX Runtime uploads by itself, and may have CUDA alone
        model_config, config = model.model_config, model.tracker_config
    else:
        chosen = choose_device(device)
        frozen = find_weights(trunk) if trunk else None
        if emulated(precision, chosen):
            LOG.warning("%s: this CPU has no instructions for it, float32 is faster", precision)
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


def emulated(precision: str, device: torch.device) -> bool:
    """Whether products of ``precision`` are computed without instructions for them.

    That takes up to eighty times as long as float32: x86 CPUs have them with AVX-512 at the
    earliest.
    """
    without = torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT", "NO AVX")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return device.type == "cpu" and precision != "float32" and x86 and without
