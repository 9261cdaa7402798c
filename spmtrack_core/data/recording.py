"""What is left after a run: annotated video, contact sheet, boxes. Files appear when complete."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from numpy.typing import ArrayLike

from spmtrack_core.files import write_beside
from spmtrack_core.geometry.image import Image


class VideoRecorder:
    """Writes RGB frames of one size to an mp4 file; use as a context manager.

    The file appears when the block ends well; nothing stays behind when it does not. Raises
    ``ValueError`` for a path that does not end in ``.mp4``, ``IsADirectoryError`` for a folder.
    """

    def __init__(self, path: str | Path, fps: float = 30.0) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; the video needs the name of a file")
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"a video is written as .mp4; got {path}")
        self._beside = self.path.with_name(f".{self.path.name}.part.mp4")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._beside), "w", format="mp4")
        codec = "h264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(
            codec, rate=Fraction(fps).limit_denominator(1001)
        )
        self._stream.pix_fmt = "yuv420p"
        self._started = False

    def write(self, frame: Image) -> None:
        """Append one frame; sides that are odd lose their last row or column."""
        height, width = (side - side % 2 for side in frame.shape[:2])
        if not height or not width:
            raise ValueError(f"a video needs frames of 2 x 2 pixels or more; got {frame.shape}")
        if not self._started:
            self._stream.width, self._stream.height = width, height
            self._started = True
        even = np.ascontiguousarray(frame[:height, :width])
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")):
            self._container.mux(packet)

    def __enter__(self) -> VideoRecorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._started:
                for packet in self._stream.encode():
                    self._container.mux(packet)
            self._container.close()
            if kind is None and self._started:
                os.replace(self._beside, self.path)
        finally:
            self._beside.unlink(missing_ok=True)


def contact_sheet(frames: Iterable[Image], columns: int = 3, width: int = 400) -> Image:
    """Frames of one size side by side in rows of ``columns``, each ``width`` pixels wide.

    Raises ``ValueError`` without a frame.
    """
    tiles = []
    for frame in frames:
        height = max(1, round(width * frame.shape[0] / frame.shape[1]))
        tiles.append(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))
    if not tiles:
        raise ValueError("a contact sheet needs at least one frame")
    gap = np.full((tiles[0].shape[0] + 6, width + 6, 3), 255, np.uint8)
    cells = []
    for tile in tiles:
        cell = gap.copy()
        cell[3:-3, 3:-3] = tile
        cells.append(cell)
    cells += [gap] * (-len(cells) % columns)
    rows = [np.concatenate(cells[i : i + columns], 1) for i in range(0, len(cells), columns)]
    return np.concatenate(rows, 0)


def write_image(path: str | Path, image: Image) -> None:
    """Write an RGB image; the suffix chooses the format, ``ValueError`` if it names none."""
    path = Path(path)
    try:
        _, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        raise ValueError(f"{path} has no suffix of an image format, such as .png") from None
    write_beside(path, lambda beside: beside.write_bytes(encoded.tobytes()))


def write_boxes(path: str | Path, boxes_xywh: ArrayLike) -> None:
    """Write (N, 4) boxes as one ``x,y,w,h`` a line, the format of tracking benchmarks."""
    lines = (",".join(f"{value:.3f}" for value in box) for box in np.asarray(boxes_xywh, float))
    text = "".join(f"{line}\n" for line in lines)
    write_beside(path, lambda beside: beside.write_text(text))
