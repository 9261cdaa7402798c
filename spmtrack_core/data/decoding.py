"""Decoding with PyAV: which stream is the video, damaged packets, orientation."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData

from spmtrack_core.geometry.image import Image

LOG = logging.getLogger(__name__)
_NO_VIDEO = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


def video_stream(
    container: av.container.InputContainer, shown: str
) -> av.video.stream.VideoStream:
    """The first video stream that is no cover picture; ``ValueError`` without one.

    ``shown`` is what messages call the container.
    """
    for stream in container.streams.video:
        if not stream.disposition & _NO_VIDEO:
            stream.thread_type = "AUTO"
            return stream
    pictures = "; it has a cover picture alone" if container.streams.video else ""
    raise ValueError(f"{shown} has no video stream{pictures}")


def decode(
    container: av.container.InputContainer, shown: str, warn: bool = True
) -> Iterator[av.VideoFrame]:
    """The frames of a container's video, in order.

    Packets that are damaged are skipped, as FFmpeg does, and counted in a warning, and so are
    packets that the file announces and does not hold. Raises ``av.FFmpegError`` where reading
    fails and ``ValueError`` without a video stream.
    """
    stream = video_stream(container, shown)
    packets = damaged = frames = 0
    try:
        for packet in container.demux(stream):
            packets += bool(packet.size)
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                damaged += 1
                continue
            for frame in decoded:
                frames += 1
                yield frame
        if warn and packets < stream.frames:
            LOG.warning("%s is cut off: %d of %d frames", shown, packets, stream.frames)
    finally:
        if warn and damaged:
            LOG.warning(
                "%s: damaged packets skipped: %d; frames decoded: %d", shown, damaged, frames
            )


def upright(frame: av.VideoFrame) -> Image:
    """RGB, turned and mirrored as the file asks for: phones store videos as the sensor lies."""
    image = frame.to_ndarray(format="rgb24")
    side = frame.side_data.get(SideData.DISPLAYMATRIX)
    if side is None:
        return image
    # a point (x, y) goes to (a x + c y, b x + d y); only quarter turns and mirrors are followed
    a, b, _, c, d = np.frombuffer(side, np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def reason(error: Exception) -> str:
    """What went wrong, without FFmpeg's numbers and paths."""
    if isinstance(error, av.error.ExitError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
