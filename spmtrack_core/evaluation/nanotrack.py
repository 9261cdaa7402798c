"""NanoTrack from its two ONNX files, through OpenCV's networks.

OpenCV's own ``TrackerNano`` takes heads with a map of 16 x 16 (version 2) alone. This one takes
any square map, such as the 15 x 15 of version 3, with the settings published for version 3. It is
a siamese tracker: the target of the first frame is correlated with a search region around the last
box (Chu, SiamTrackers; Guo et al., "SiamBAN").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.result import TrackResult, TrackState

TEMPLATE, SEARCH, STRIDE = 127, 255, 16
"""Sides of the two crops and of a cell of the map, px."""
CONTEXT = 0.5
"""Share of the sides' sum that is added to each side of the template."""
PENALTY, WINDOW, RATE = 0.138, 0.455, 0.348
"""Against changes of size and shape; share of the Hann window; how fast the size follows."""
SMALLEST = 10.0
"""Smallest side of a box, px."""


class NanoTrack:
    """NanoTrack as a ``VideoTracker``; ``files`` are backbone and head.

    Raises ``FileNotFoundError`` for a file that does not exist and ``ValueError`` for other
    networks.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        for path in files:
            if not Path(path).is_file():
                raise FileNotFoundError(f"no ONNX file at {path}")
        try:
            self.backbone, self.head = (cv2.dnn.readNetFromONNX(str(path)) for path in files)
            blank = np.zeros((SEARCH, SEARCH, 3), np.uint8)
            self.target = self._features(blank[:TEMPLATE, :TEMPLATE])
            scores, _ = self._maps(blank)
        except (cv2.error, ValueError) as error:
            reason = " ".join(str(error).split())[-120:]
            raise ValueError(
                f"{files[0]} and {files[1]} are not backbone and head of NanoTrack: {reason}"
            ) from None
        self.side = scores.shape[-1]
        hann = np.hanning(self.side)
        self.window = np.outer(hann, hann).ravel()
        steps = (np.arange(self.side) - self.side // 2) * STRIDE
        self.points = np.stack(np.meshgrid(steps, steps)).reshape(2, -1).astype(float)

    def init(self, frame: Image, box_xywh: Sequence[float]) -> None:
        """Start on ``frame``, RGB uint8 (H, W, 3), with the target's box in its pixels."""
        x, y, w, h = (float(value) for value in box_xywh)
        self.center, self.size = np.array([x + (w - 1) / 2, y + (h - 1) / 2]), np.array([w, h])
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        self.background = bgr.mean((0, 1))
        self.target = self._features(self._crop(bgr, round(self._context()), TEMPLATE))

    def update(self, frame: Image) -> TrackResult:
        """Find the target in the next frame."""
        context = self._context()
        scale = TEMPLATE / context
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        logits, sides = self._maps(self._crop(bgr, round(context * SEARCH / TEMPLATE), SEARCH))
        logits, sides = logits.reshape(2, -1), sides.reshape(4, -1).astype(float)
        score = 1 / (1 + np.exp(logits[0] - logits[1]))
        low, high = self.points - sides[:2], self.points + sides[2:]
        centers, sizes = (low + high) / 2, np.maximum(high - low, 1e-3)
        change = _ratio(_extent(sizes) / _extent(self.size * scale))
        change *= _ratio((self.size[0] / self.size[1]) / (sizes[0] / sizes[1]))
        penalty = np.exp(-(change - 1) * PENALTY)
        best = int((penalty * score * (1 - WINDOW) + self.window * WINDOW).argmax())
        rate = penalty[best] * score[best] * RATE
        limits = np.array(frame.shape[1::-1], float)
        self.center = np.clip(self.center + centers[:, best] / scale, 0, limits)
        size = self.size * (1 - rate) + sizes[:, best] / scale * rate
        self.size = np.clip(size, SMALLEST, np.maximum(limits, SMALLEST))
        (x, y), (w, h) = (self.center - self.size / 2).tolist(), self.size.tolist()
        return TrackResult((x, y, w, h), float(score[best]), TrackState.TRACKING)

    def _context(self) -> float:
        """Side of the square of the template in the frame, px."""
        return math.sqrt(float((self.size + CONTEXT * self.size.sum()).prod()))

    def _features(self, crop: Image) -> NDArray[np.float32]:
        self.backbone.setInput(cv2.dnn.blobFromImage(crop))
        features: Any = self.backbone.forward()
        return features.copy()

    def _maps(self, crop: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits of background and target (1, 2, S, S), distances of the sides (1, 4, S, S)."""
        self.head.setInput(self.target, "input1")
        self.head.setInput(self._features(crop), "input2")
        scores, sides = self.head.forward(["output1", "output2"])
        if scores.ndim != 4 or scores.shape[1] != 2 or sides.shape[1] != 4:
            raise ValueError(f"maps of shapes {scores.shape} and {sides.shape}")
        return scores, sides

    def _crop(self, bgr: Image, side: int, output: int) -> Image:
        """A square of ``side`` px about the center, filled up with the mean color, resized."""
        side = max(side, 1)
        left, top = np.floor(self.center - (side + 1) / 2 + 0.5).astype(int).tolist()
        inside = bgr[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
        if not inside.size:
            inside = np.tile(self.background, (side, side, 1)).astype(np.uint8)
        else:
            above, before = max(-top, 0), max(-left, 0)
            below, after = side - above - inside.shape[0], side - before - inside.shape[1]
            borders = above, below, before, after
            inside = cv2.copyMakeBorder(
                inside, *borders, cv2.BORDER_CONSTANT, value=self.background.tolist()
            )
        return cv2.resize(inside, (output, output))


def _ratio(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far from 1, as a factor of at least 1."""
    return np.maximum(value, 1 / value)


def _extent(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Side of the square of a box (2, ...) with its context."""
    pad = sizes.sum(0) / 2
    extent: NDArray[np.float64] = np.sqrt((sizes[0] + pad) * (sizes[1] + pad))
    return extent
