"""What is left after a run: annotated video, contact sheet, boxes. Files appear when complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import ArrayLike

from spmtrack_core.data.decoding import reason
from spmtrack_core.files import lock_part, part_of, write_beside, write_text
from spmtrack_core.geometry.image import Image, encode_image

TICK = Fraction(1, 60_000)
"""Seconds between two possible times of a frame; MPEG-4 allows no less than 1 / 65535."""

_GRAY = (".pgm", ".pbm")  # formats without colors


class VideoRecorder:
    """Writes RGB frames to an mp4 file, which appears at ``close`` when it is complete.

    All frames get the size of the first. As a context manager it is closed where the block ends
    well, and discarded otherwise: then nothing stays behind. Raises ``ValueError`` for a path that
    does not end in ``.mp4``, ``IsADirectoryError`` for a folder, and at any step ``OSError`` where
    nothing can be written.
    """

    def __init__(self, path: str | Path, fps: float = 30.0) -> None:
        check_video_path(path)
        self.path = Path(path)
        self._target = Path(os.path.realpath(path))  # a link stays a link
        # a folder is locked, for on SMB a file that is locked cannot be written by FFmpeg
        self._folder = part_of(self._target)
        with self._told():
            self._folder.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = lock_part(self._folder, self.path)
        self._beside = self._folder / self._target.name
        self._container = av.open(str(self._beside), "w", format="mp4")
        codec = "h264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(
            codec, rate=Fraction(fps).limit_denominator(1001)
        )
        if codec == "h264":  # 0.4 of the usual preset's time; the tracker needs the processor too
            self._stream.options = {"preset": "veryfast"}
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = TICK
        self._step = max(1, round(1 / (fps * TICK)))
        self._last = -self._step  # ticks

    def write(self, frame: Image, time: float | None = None) -> None:
        """Append one frame, shown at ``time`` s after the first or one period after the last.

        So it is shown too where ``time`` is not after that of the last frame.

        Sides that are odd lose their last row or column. A frame of another size than the first is
        scaled to fit into it, with black borders.
        """
        even = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
        if not even.size:
            raise ValueError(f"a video needs frames of 2 x 2 pixels or more; got {frame.shape}")
        if self._last < 0:
            self._stream.height, self._stream.width = even.shape[:2]
        size = self._stream.height, self._stream.width
        if even.shape[:2] != size:
            even = _fitted(even, size)
        ticks = self._last if time is None else round(time / TICK)
        self._last = ticks if ticks > self._last else self._last + self._step
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        picture.pts, picture.time_base = self._last, TICK
        self._encode(picture)

    def close(self) -> None:
        """Complete the file; without a frame there is none."""
        if self._last < 0:
            self.discard()
            return
        try:
            self._encode(None)
            with self._told():
                self._container.close()
            os.replace(self._beside, self._target)
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._lock is None:  # discarded or complete
            return
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = None

    def _encode(self, picture: av.VideoFrame | None) -> None:
        with self._told():
            for packet in self._stream.encode(picture):
                self._container.mux(packet)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise OSError(f"{self.path} cannot be written: {reason(error)}") from None

    def __enter__(self) -> VideoRecorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def check_video_path(path: str | Path) -> None:
    """Raise ``IsADirectoryError`` or ``ValueError`` for what cannot be the name of a video."""
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; the video needs the name of a file")
    if Path(path).suffix.lower() != ".mp4":
        raise ValueError(f"a video is written as .mp4; got {path}")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is a device or a pipe; a video needs a file")


def _fitted(image: Image, size_hw: tuple[int, int]) -> Image:
    """Scaled to fit into (height, width), in the middle, with black borders."""
    scale = min(size_hw[0] / image.shape[0], size_hw[1] / image.shape[1])
    h, w = (max(1, round(side * scale)) for side in image.shape[:2])
    top, left = (size_hw[0] - h) // 2, (size_hw[1] - w) // 2
    fitted = np.zeros((*size_hw, 3), np.uint8)
    fitted[top : top + h, left : left + w] = cv2.resize(
        image, (w, h), interpolation=cv2.INTER_AREA
    )
    return fitted


class SampledFrames:
    """At most ``count`` frames, evenly spaced over any number of them; memory is bounded."""

    def __init__(self, count: int = 12, width: int = 400) -> None:
        """Frames are made ``width`` pixels wide where they are wider, and of the first's size."""
        self._count, self._width = count, width
        self._kept: list[Image] = []
        self._every, self._seen = 1, 0

    @property
    def keeps_next(self) -> bool:
        """Whether the next frame will be kept: others need not be drawn."""
        return self._seen % self._every == 0

    def add(self, frame: Image) -> None:
        """Offer a frame."""
        if self.keeps_next:
            if frame.shape[1] > self._width:
                height = max(1, round(self._width * frame.shape[0] / frame.shape[1]))
                frame = cv2.resize(frame, (self._width, height), interpolation=cv2.INTER_AREA)
            if self._kept and frame.shape != self._kept[0].shape:
                frame = _fitted(frame, self._kept[0].shape[:2])
            self._kept.append(frame)
        self._seen += 1
        if len(self._kept) >= 3 * self._count:
            self._kept, self._every = self._kept[::2], 2 * self._every

    def frames(self) -> list[Image]:
        """Those that were kept, thinned to ``count``."""
        count = min(self._count, len(self._kept))
        chosen = np.linspace(0, len(self._kept) - 1, count).round().astype(int)
        return [self._kept[index] for index in chosen]


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


def check_image_path(path: str | Path) -> None:
    """Raise ``ValueError`` for a name without the suffix of a color image format."""
    suffix = Path(path).suffix.encode(errors="replace").decode()  # OpenCV crashes on other names
    if suffix.lower() in _GRAY or not cv2.haveImageWriter(f"image{suffix}"):
        raise ValueError(f"{path} has no suffix of a color image format, such as .png")


def write_image(path: str | Path, image: Image) -> None:
    """Write an RGB image; the suffix chooses the format.

    Raises ``ValueError`` if it names none, or one that cannot hold the image.
    """
    path = Path(path)
    check_image_path(path)
    content = encode_image(image, path.suffix)
    write_beside(path, lambda beside: beside.write_bytes(content))


def write_boxes(path: str | Path, boxes_xywh: ArrayLike) -> None:
    """Write (N, 4) boxes as one ``x,y,w,h`` a line, the format of tracking benchmarks."""
    lines = (",".join(f"{value:.3f}" for value in box) for box in np.asarray(boxes_xywh, float))
    write_text(path, "".join(f"{line}\n" for line in lines))
