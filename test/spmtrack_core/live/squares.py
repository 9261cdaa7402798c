"""A scene of two squares on gray, and a tracker that follows a color: cheap, and always right."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.tracking.result import TrackResult, TrackState

LENGTH, HEIGHT, WIDTH = 120, 180, 320
RED, BLUE = (200, 40, 40), (40, 60, 220)
HIDDEN = range(50, 70)
"""Frames in which the red square is hidden."""


def red(index):
    return (20.0 + 2 * index, 40.0, 40.0, 30.0)


def blue(index):
    return (140.0, 20.0 + index, 24.0, 36.0)


def frame(index):
    image = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    for color, box in ((RED, red(index)), (BLUE, blue(index))):
        if color is RED and index in HIDDEN:
            continue
        x, y, w, h = map(int, box)
        image[y : y + h, x : x + w] = color
    return image


def squares(length=LENGTH, fps=30.0, live=False):
    """The scene as a sequence."""

    def timed():
        for index in range(length):
            yield frame(index), index / fps

    return FrameSequence(
        "squares",
        lambda: (image for image, _ in timed()),
        length,
        fps,
        open_timed=timed,
        live=live,
    )


class ColorTracker:
    """Follows the color in the middle of the given box."""

    def __init__(self):
        self.followed = []  # x of the first box found, of each image

    def start(self, frame, box_xywh):
        x, y, w, h = box_xywh
        color = frame[int(y + h / 2), int(x + w / 2)].astype(int)
        return SimpleNamespace(color=color, lost_reason="")

    def follow(self, frame, targets):
        results = [self._find(frame, target.color) for target in targets]
        self.followed.append(results[0].box_xywh[0])
        return results

    def forget_motion(self, targets):
        pass

    def _find(self, frame, color):
        rows, columns = np.nonzero((np.abs(frame.astype(int) - color) < 9).all(-1))
        if not len(rows):
            return TrackResult((0.0, 0.0, 1.0, 1.0), 0.03, TrackState.LOST)
        x, y = float(columns.min()), float(rows.min())
        box = (x, y, float(columns.max()) + 1 - x, float(rows.max()) + 1 - y)
        return TrackResult(box, 0.9, TrackState.TRACKING)
