"""Where frames come from: a video file, a folder of images, a camera, an address, the scene."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import replace
from pathlib import Path

import av

from spmtrack_core.data.decoding import decode, reason, upright, video_stream
from spmtrack_core.data.images import IMAGE_SUFFIXES
from spmtrack_core.data.live import Connect, NewestFrame
from spmtrack_core.data.scene import scene
from spmtrack_core.data.sequence import (
    BOX_FILES,
    FrameSequence,
    TimedFrames,
    image_folder,
    images_of,
    read_boxes,
    read_frames,
)
from spmtrack_core.files import user_path

SYNTHETIC = "synthetic"
SCHEMES = ("http", "https", "rtmp", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
TIMEOUT = 10.0
"""Seconds in which an address must answer, and a live source give its next data."""


def open_frames(
    source: str | Path, max_frames: int | None = None, with_boxes: bool = True
) -> FrameSequence:
    """The frames of ``source``: a path, a camera (``0`` or ``/dev/video0``), an address such as
    ``rtsp://host/path``, or ``synthetic``.

    ``with_boxes`` false leaves boxes beside the frames unread: those in the folder of images, or
    ``<clip>.txt`` beside ``<clip>.mp4``. Raises ``FileNotFoundError`` for a path that does not
    exist, ``ValueError`` for what is neither video nor images, for boxes that cannot be read, for
    a camera or an address that cannot be opened and for ``max_frames`` below 1.
    """
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames must be at least 1; got {max_frames}")
    sequence = _open(str(source), with_boxes)
    return sequence if max_frames is None else _cut(sequence, max_frames)


def _open(source: str, with_boxes: bool) -> FrameSequence:
    if not source:  # as of a variable without a value; a path it would be this folder
        raise ValueError("the name of the source is empty: expected a video, a folder or a camera")
    if source == SYNTHETIC:
        return scene()
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        return open_address(source)
    path = user_path(source)
    if path.is_dir():
        return image_folder(path, with_boxes)
    if source.isdecimal() and not path.exists():
        return open_camera(Path(f"/dev/video{source}"))
    if path.is_char_device():
        return open_camera(path)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return FrameSequence(path.stem, lambda: read_frames([path]), 1, files=lambda: [path])
    sequence, boxes = video_file(path), path.with_suffix(".txt")
    if with_boxes and boxes.is_file():
        sequence = replace(sequence, boxes_xywh=read_boxes(boxes))
    return sequence


def without_password(source: str) -> str:
    """``source`` as it may be shown: an address without its user and password."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@", r"\1", source)


def files_of(source: str | Path) -> list[Path]:
    """The files that ``source`` is read from, which no output may replace.

    They are the video and the boxes of its name, or the images and boxes in its folder.
    """
    path = user_path(source)
    if not path.is_dir():
        return [file for file in (path, path.with_suffix(".txt")) if file.is_file()]
    return [
        file
        for folder in {path, images_of(path)}
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES or file.name in BOX_FILES
    ]


def _cut(sequence: FrameSequence, frames: int) -> FrameSequence:
    """The first ``frames`` frames of a sequence."""
    boxes = sequence.boxes_xywh
    return replace(
        sequence,
        open=lambda: itertools.islice(sequence.open(), frames),
        open_timed=lambda: itertools.islice(sequence.timed(), frames),
        length=None if sequence.length is None else min(sequence.length, frames),
        boxes_xywh=None if boxes is None else boxes[:frames],
    )


def video_file(path: Path) -> FrameSequence:
    """The frames of a video file; errors as ``open_frames``."""
    if not path.is_file():
        link = f"; it is a link to {os.readlink(path)}" if path.is_symlink() else ""
        raise FileNotFoundError(f"no video, folder of images or camera at {path}{link}")
    # an absolute path is never taken for an address, whatever colons are in it
    video = _video(path.stem, str(path), lambda: av.open(os.path.abspath(path)))
    return replace(video, files=lambda: [path])


def open_address(address: str) -> FrameSequence:
    """The video at an address: in order to its end if it has one, else the newest frame first.

    Raises ``ValueError`` for another scheme than those of ``SCHEMES`` and without an answer.
    """
    scheme = address.partition(":")[0].lower()
    if scheme not in SCHEMES:
        raise ValueError(f"{scheme}:// is not one of {', '.join(SCHEMES)}")
    options = {"rtsp_flags": "prefer_tcp"} if scheme.startswith("rtsp") else {}

    def connect() -> av.container.InputContainer:
        return av.open(address, options=options, timeout=TIMEOUT)

    shown = without_password(address)
    try:
        container = connect()
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"cannot open {shown}: {reason(error)}") from None
    if (container.duration or 0) > 0 or container.size > 0:
        container.close()
        return _video(shown, shown, connect)
    return _live(shown, container, connect)


def open_camera(device: Path) -> FrameSequence:
    """The newest frames of a camera by its device, such as ``/dev/video0``.

    Raises ``ValueError`` for one that cannot be opened.
    """

    def connect() -> av.container.InputContainer:
        return av.open(str(device), format="v4l2", timeout=TIMEOUT)

    try:
        container = connect()
    except (av.FFmpegError, OSError, ValueError) as error:
        present = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*")))
        raise ValueError(
            f"cannot open camera {device}: {reason(error)}; cameras found: {present or 'none'}"
        ) from None
    return _live(device.name, container, connect)


def _live(name: str, container: av.container.InputContainer, connect: Connect) -> FrameSequence:
    stream = video_stream(container, name)
    fps = float(stream.average_rate) if stream.average_rate else None
    frames = NewestFrame(name, container, connect)
    return FrameSequence(
        name,
        lambda: (frame for frame, _ in frames),
        None,
        fps,
        None,
        lambda: iter(frames),
        live=True,
    )


def _video(name: str, shown: str, connect: Connect) -> FrameSequence:
    """A video that has an end; ``shown`` is what messages call it."""

    def timed() -> TimedFrames:
        try:
            with connect() as container:
                start = None
                for frame in decode(container, shown):
                    start = frame.time if start is None else start
                    known = None not in (frame.time, start)
                    yield upright(frame), frame.time - start if known else None
        except av.FFmpegError as error:
            raise ValueError(f"{shown} cannot be read any further: {reason(error)}") from None

    try:
        with connect() as container:
            stream = video_stream(container, shown)
            fps = float(stream.average_rate) if stream.average_rate else None
            length = stream.frames or None
            if next(decode(container, shown, warn=False), None) is None:
                raise ValueError(f"{shown} holds no frame")
    except av.FFmpegError as error:
        raise ValueError(f"{shown} is not a video that can be read: {reason(error)}") from None
    return FrameSequence(name, lambda: (frame for frame, _ in timed()), length, fps, None, timed)
