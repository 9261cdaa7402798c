"""Records what the page shows: a video with the boxes drawn in, and a file of boxes per target."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from spmtrack_core.data.recording import VideoRecorder, write_boxes
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.followed import Reason, Target, draw_targets

_LONGEST_GAP = 1.0  # s between two images in the video; a pause is shorter there


class LiveRecorder:
    """Writes each shown image to ``path``, an mp4 file, and boxes beside it when it is closed.

    ``walk.mp4`` gets the boxes of the target ``target-1`` in ``walk.target-1.txt``: one
    ``x,y,w,h`` for every image of the video, ``nan`` where the target was not followed or LOST.
    A video that cannot be written any further is given up; boxes go on. The constructor raises
    as ``VideoRecorder`` does.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.fault = ""
        """Why a file cannot be written; empty if all can."""
        self._path, self._period = path, 1 / fps
        self._video: VideoRecorder | None = VideoRecorder(path, fps)
        self._boxes: dict[str, array[float]] = {}
        self._count = 0
        self._time, self._before = 0.0, math.nan
        self._shown: tuple[int, Image, float, Sequence[Target]] | None = None

    def show(self, number: int, image: Image, seconds: float, targets: Sequence[Target]) -> None:
        """An image of this ``number``, ``seconds`` after the first one of its source.

        Written when the next one is shown: until then, targets may be named and removed in it. One
        that no image comes for any more stays as it was measured in this one.
        """
        before = self._shown
        if before is not None and before[0] != number:
            self._write(*before[1:])
        elif before is not None:
            measured = {each.id: each for each in before[3]}
            targets = [
                measured.get(each.id, each) if each.reason is Reason.NO_IMAGE else each
                for each in targets
            ]
        self._shown = number, image, seconds, targets

    def _write(self, image: Image, seconds: float, targets: Sequence[Target]) -> None:
        gap = seconds - self._before
        if self._count:  # the source may have been wound
            self._time += gap if 0 < gap <= _LONGEST_GAP else self._period
        self._before = seconds
        if self._video is not None:
            try:
                self._video.write(draw_targets(image, targets), self._time)
            except (OSError, ValueError) as error:
                self.fault = str(error)
                self.discard()
        for target in targets:
            if target.id not in self._boxes:
                self._boxes[target.id] = array("d", [math.nan] * 4 * self._count)
        seen = {target.id: target.box_xywh for target in targets if target.visible}
        for name, boxes in self._boxes.items():
            boxes.extend(seen.get(name, (math.nan,) * 4))
        self._count += 1

    def close(self) -> list[Path]:
        """Complete the files; returns those that were written: none without an image."""
        if self._shown is not None:
            self._write(*self._shown[1:])
        files: dict[Path, Callable[[], None]] = {}
        if self._video is not None and self._count:
            files[self._path] = self._video.close
        for name, boxes in self._boxes.items():
            path = self._path.with_suffix(f".{name}.txt")
            files[path] = partial(write_boxes, path, np.reshape(boxes, (-1, 4)))
        written = []
        for path, write in files.items():
            try:
                write()
                written.append(path)
            except OSError as error:
                self.fault = str(error)
        self.discard()
        return written

    def discard(self) -> None:
        """Give up the video, if it is not complete: nothing of it stays."""
        if self._video is not None:
            self._video.discard()
            self._video = None
