"""Where frames come from: a video file, a folder of images, a camera, or the built-in scene."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np

from spmtrack_core.data.scene import scene
from spmtrack_core.data.sequence import FrameSequence, image_folder
from spmtrack_core.geometry.image import Image

SYNTHETIC = "synthetic"


def open_frames(source: str, max_frames: int | None = None) -> FrameSequence:
    """The frames of ``source``: a path, a camera index such as ``0``, or ``synthetic``.

    Raises ``FileNotFoundError`` for a path that is not there, ``ValueError`` for what is neither
    video nor images, for a camera that does not answer and for ``max_frames`` below 1.
    """
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames must be at least 1; got {max_frames}")
    path = Path(source)
    if source == SYNTHETIC:
        sequence = scene()
    elif path.is_dir():
        sequence = image_folder(path)
    elif source.isdecimal() and not path.exists():
        sequence = _camera(int(source))
    else:
        sequence = _video_file(path)
    return sequence if max_frames is None else _cut(sequence, max_frames)


def _cut(sequence: FrameSequence, frames: int) -> FrameSequence:
    """The first ``frames`` frames of a sequence."""
    boxes = sequence.boxes_xywh
    return replace(
        sequence,
        open=lambda: itertools.islice(sequence.open(), frames),
        length=None if sequence.length is None else min(sequence.length, frames),
        boxes_xywh=None if boxes is None else boxes[:frames],
    )


def _video_file(path: Path) -> FrameSequence:
    if not path.is_file():
        raise FileNotFoundError(f"no video, folder of images or camera at {path}")

    def frames() -> Iterator[Image]:
        try:
            with av.open(str(path)) as container:
                container.streams.video[0].thread_type = "AUTO"
                for frame in container.decode(video=0):
                    yield upright(frame)
        except av.FFmpegError as error:
            raise ValueError(f"{path} cannot be decoded: {error}") from None

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no video stream")
            stream = container.streams.video[0]
            fps = float(stream.average_rate) if stream.average_rate else None
            length = stream.frames or None
            if next(container.decode(video=0), None) is None:
                raise ValueError(f"{path} holds no frame")
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a video that can be read: {error}") from None
    return FrameSequence(path.stem, frames, length, fps)


def upright(frame: av.VideoFrame) -> Image:
    """RGB, turned as the file asks for: phones store every video as the sensor lies."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90)  # anticlockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _camera(index: int) -> FrameSequence:
    # OpenCV would print warnings of its own about a camera that is not there
    absent = sys.platform == "linux" and not Path(f"/dev/video{index}").exists()
    camera = cv2.VideoCapture() if absent else cv2.VideoCapture(index)
    if not camera.isOpened():
        raise ValueError(f"camera {index} does not answer")

    def frames() -> Iterator[Image]:
        try:
            while True:
                there, frame = camera.read()
                if not there:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            camera.release()

    fps = camera.get(cv2.CAP_PROP_FPS)
    return FrameSequence(f"camera{index}", frames, None, fps if fps > 0 else None)
