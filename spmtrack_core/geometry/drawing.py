"""A box and its label, drawn into a frame."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from spmtrack_core.geometry.boxes import xywh_to_xyxy
from spmtrack_core.geometry.image import Image

Color = tuple[int, int, int]
GREEN: Color = (60, 220, 90)
ORANGE: Color = (255, 150, 30)
WHITE: Color = (240, 240, 240)
Dash = tuple[int, int]
DASHED: Dash = (6, 3)
"""Lengths that are drawn and left out, in thicknesses of the line."""
DOTTED: Dash = (1, 3)


def draw_box(
    frame: Image,
    box_xywh: ArrayLike | None,
    label: str = "",
    color: Color = GREEN,
    dash: Dash | None = None,
) -> Image:
    """A copy of the frame with the box and a label above it; without a box, label at the top.

    The outline is solid, or as ``dash`` says.
    """
    drawn = frame.copy()
    thickness = max(2, round(frame.shape[0] / 240))
    size = max(0.45, frame.shape[0] / 900)
    anchor = (thickness, thickness)
    if box_xywh is not None and np.isfinite(np.asarray(box_xywh, float)).all():
        # lines beyond the frame are invisible, and OpenCV has 16 bits for a coordinate
        far = thickness + np.tile(frame.shape[1::-1], 2)
        box_xyxy = np.clip(xywh_to_xyxy(box_xywh).round(), -thickness, far)
        left, top, right, bottom = box_xyxy.astype(int).tolist()
        outline = drawn if dash is None else drawn.copy()
        cv2.rectangle(outline, (left, top), (right, bottom), color, thickness, cv2.LINE_AA)
        if dash is not None:
            _copy_dashes(outline, drawn, (left, top, right, bottom), dash, thickness)
        anchor = (left, top)
    if label:
        (width, height), base = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        x = min(max(anchor[0], 0), max(0, frame.shape[1] - width - 8))
        y = anchor[1] - height - base - 4
        y = y if y >= 0 else min(max(anchor[1], 0), frame.shape[0] - height - base - 4)
        plate = (x + width + 8, y + height + base + 4)
        cv2.rectangle(drawn, (x, y), plate, color, cv2.FILLED)
        corner, black = (x + 4, y + height + 3), (0, 0, 0)
        cv2.putText(drawn, label, corner, cv2.FONT_HERSHEY_SIMPLEX, size, black, 1, cv2.LINE_AA)
    return drawn


def _copy_dashes(
    outline: Image, drawn: Image, box_xyxy: tuple[int, int, int, int], dash: Dash, thickness: int
) -> None:
    """Copy the dashes of a solid outline."""
    left, top, right, bottom = box_xyxy
    on, period = dash[0] * thickness, sum(dash) * thickness
    height, width = drawn.shape[:2]
    across = (np.arange(width) - left) % period < on
    down = (np.arange(height) - top) % period < on
    for edge in (top, bottom):
        rows = slice(max(0, edge - thickness), max(0, edge + thickness))
        drawn[rows, across] = outline[rows, across]
    for edge in (left, right):
        columns = slice(max(0, edge - thickness), max(0, edge + thickness))
        drawn[down, columns] = outline[down, columns]
