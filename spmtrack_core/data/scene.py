"""The built-in scene: a video with known boxes, made of photographs that scikit-image ships.

An astronaut's head drifts through a garage. The camera pans and zooms, the light changes and a cup
of coffee passes by. Every frame is a function of its index, so all runs see the same video.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.geometry.boxes import Boxes, cxcywh_to_xywh
from spmtrack_core.geometry.image import Image

FRAMES = 240
FRAME_HW = (360, 640)
FPS = 30.0

_CUT = 128  # px, side of a cut-out; its ellipse, with a feathered edge, fills the square
_HEAD_CXCYWH = (227, 98, 150, 172)  # in the photograph of the astronaut
_CUP_CXCYWH = (296, 150, 250, 230)  # in the photograph of the coffee


def scene() -> FrameSequence:
    """The scene as a sequence with a box for every frame.

    Reading it raises ``ModuleNotFoundError`` without scikit-image (the extra ``demo``).
    """
    return FrameSequence("synthetic", _frames, FRAMES, FPS, scene_boxes_xywh())


def scene_boxes_xywh() -> Boxes:
    """(N, 4) xywh in pixels: the tight box of the target's ellipse in every frame."""
    boxes = []
    for index in range(FRAMES):
        x, y, half_w, half_h, angle = _head_pose(index)
        cos, sin = math.cos(angle), math.sin(angle)
        boxes.append(
            (
                x,
                y,
                2 * math.hypot(half_w * cos, half_h * sin),
                2 * math.hypot(half_w * sin, half_h * cos),
            )
        )
    return cxcywh_to_xywh(boxes)


def _head_pose(index: int) -> tuple[float, float, float, float, float]:
    """Center x, y, half width, half height in pixels and angle in radians."""
    turn = 2 * math.pi * index / FRAMES
    scale = 1 + 0.3 * math.sin(turn + 0.6)
    x = 320 - 190 * math.cos(turn) + 20 * math.sin(3 * turn)
    y = 180 + 75 * math.sin(2 * turn)
    return x, y, 38 * scale, 44 * scale, 0.3 * math.sin(2 * turn + 1)


def _cup_pose(index: int) -> tuple[float, float, float, float, float]:
    """The same for the cup, which crosses the frame once."""
    part = index / FRAMES
    return 720 - 800 * part, 120 + 90 * math.sin(4 * part), 46.0, 42.0, 1.2 * part


def _frames() -> Iterator[Image]:
    garage, astronaut, coffee = _photographs()
    head, cup = _cut_out(astronaut, _HEAD_CXCYWH), _cut_out(coffee, _CUP_CXCYWH)
    noise = np.random.default_rng(0).normal(0, 4, (*FRAME_HW, 3)).astype(np.int16)
    for index in range(FRAMES):
        turn = 2 * math.pi * index / FRAMES
        zoom = 1.25 + 0.15 * math.sin(turn)
        center = (370 + 70 * math.sin(turn), 250 + 45 * math.cos(turn))
        view = _affine(center, (zoom, zoom), 0.03 * math.sin(2 * turn))
        frame = cv2.warpAffine(
            garage, view, FRAME_HW[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        _paste(frame, cup, _cup_pose(index))
        _paste(frame, head, _head_pose(index))
        light = 1 + 0.12 * math.sin(3 * turn)
        grain = np.roll(noise, (37 * index, 53 * index), (0, 1))
        lit = cv2.convertScaleAbs(frame, alpha=light).astype(np.int16) + grain
        yield np.clip(lit, 0, 255).astype(np.uint8)


def _photographs() -> tuple[Image, Image, Image]:
    """A garage, an astronaut and a cup of coffee."""
    import skimage.data  # only the scene needs it: a robot does without

    return (
        skimage.data.stereo_motorcycle()[0],
        skimage.data.astronaut(),
        skimage.data.coffee(),
    )


def _affine(center: tuple[float, float], scale: tuple[float, float], angle: float) -> NDArray:
    """(2, 3) that brings ``center`` of a photograph to the middle of the frame."""
    cos, sin = math.cos(angle), math.sin(angle)
    linear = np.array([[cos * scale[0], -sin * scale[1]], [sin * scale[0], cos * scale[1]]])
    middle = np.array([FRAME_HW[1], FRAME_HW[0]]) / 2
    return np.column_stack([linear, middle - linear @ np.array(center)])


def _cut_out(photograph: Image, box_cxcywh: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """(S, S, 4) an ellipse of the photograph, colors times alpha, alpha feathered in 0..1."""
    x, y, w, h = box_cxcywh
    region = photograph[y - h // 2 : y + h // 2, x - w // 2 : x + w // 2]
    color = cv2.resize(region, (_CUT, _CUT), interpolation=cv2.INTER_AREA).astype(np.float32)
    line = (np.arange(_CUT) + 0.5) * 2 / _CUT - 1
    radius = np.hypot(*np.meshgrid(line, line))
    alpha = np.clip((1 - radius) * _CUT / 6, 0, 1).astype(np.float32)[..., None]
    return np.concatenate([color * alpha, alpha], -1)


def _paste(
    frame: Image, cut_out: NDArray[np.float32], pose: tuple[float, float, float, float, float]
) -> None:
    """Draw the cut-out into ``frame`` at ``pose``; touches only the pixels around it."""
    x, y, half_w, half_h, angle = pose
    reach = math.ceil(math.hypot(half_w, half_h))
    left, top = max(0, int(x) - reach), max(0, int(y) - reach)
    right, bottom = min(FRAME_HW[1], int(x) + reach + 1), min(FRAME_HW[0], int(y) + reach + 1)
    if right <= left or bottom <= top:
        return
    cos, sin = math.cos(angle), math.sin(angle)
    scale_x, scale_y = 2 * half_w / _CUT, 2 * half_h / _CUT
    linear = np.array([[cos * scale_x, -sin * scale_y], [sin * scale_x, cos * scale_y]])
    # pixel centers: index i lies at i + 0.5
    offset = np.array([x - left, y - top]) - 0.5 - linear @ np.full(2, _CUT / 2 - 0.5)
    seen = cv2.warpAffine(
        cut_out,
        np.column_stack([linear, offset]),
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR,
    )
    region = frame[top:bottom, left:right]
    region[:] = np.rint(seen[..., :3] + region * (1 - seen[..., 3:])).astype(np.uint8)
