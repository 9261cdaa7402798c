"""The report of one run as a page of HTML: clip, confidence over time, moments of loss and return.

One file that needs no other, neither of this computer nor from the internet.
"""

from __future__ import annotations

import base64
import itertools
import math
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template
from typing import NamedTuple

import cv2
import numpy as np

from spmtrack_core.data.recording import VideoRecorder
from spmtrack_core.data.sequence import next_time
from spmtrack_core.data.video import video_file
from spmtrack_core.files import write_beside
from spmtrack_core.geometry.image import Image, encode_image
from spmtrack_core.tracking.loop import TrackedFrame
from spmtrack_core.tracking.result import TrackState

CLIP_FRAMES = 1800
"""Most frames of the clip: of longer videos every second, third ... is shown."""
CLIP_SIDE = 640
"""Longest side of the clip, px."""
CLIP_BYTES = 16_000_000
"""Most bytes of the clip, which fill 4/3 of that in the page: Firefox refuses more than 32 MB. A
clip that has more gets fewer frames, which are smaller."""
MOMENTS = 24
"""Most pictures of losses and returns."""

_LEFT, _WIDTH, _TOP, _HEIGHT = 46, 940, 10, 190  # of the chart in its 1000 x 230 units
_LABELS = 5  # below it; "frame 108000, 3600.0 s" takes 140 units
_POINTS = 800  # of the curve: of longer runs the lowest and the highest of each stretch


class _Moment(NamedTuple):
    frame: int
    """From 0."""
    time: float
    """s from the first frame."""
    state: TrackState
    confidence: float
    jpeg: bytes


class TrackReport:
    """Collects the frames of a run and writes the page at ``close``.

    A context manager that leaves nothing behind but the page. ``length`` are the frames of the
    source, None if that is not known: the clip then ends after ``CLIP_FRAMES``. Raises ``OSError``
    where the clip or the page cannot be written.
    """

    def __init__(self, path: str | Path, fps: float | None, length: int | None) -> None:
        self.path = Path(path)
        self._period, self._stride = 1 / (fps or 30.0), math.ceil((length or 1) / CLIP_FRAMES)
        self._folder = tempfile.TemporaryDirectory(prefix="spmtrack-")
        self._clip_path = Path(self._folder.name, "clip.mp4")
        self._clip: VideoRecorder | None = None
        self._in_clip, self._side = 0, CLIP_SIDE
        self._times: list[float] = []
        self._states: list[TrackState] = []
        self._confidence: list[float] = []
        self._moments: list[_Moment] = []
        self._changes = 0

    def add(self, tracked: TrackedFrame, drawn: Image) -> None:
        """Append a frame, and what is shown of it."""
        index, result = len(self._states), tracked.result
        time = next_time(tracked.time, self._times[-1] if index else -self._period, self._period)
        if index % self._stride == 0 and self._in_clip < CLIP_FRAMES:
            if self._clip is None:
                self._clip = VideoRecorder(self._clip_path, 1 / (self._period * self._stride))
            self._clip.write(_fitted(drawn, self._side), time)
            self._in_clip += 1
        before = self._states[-1] if self._states else TrackState.TRACKING
        if (before is TrackState.LOST) != (result.state is TrackState.LOST):
            self._changes += 1
            if len(self._moments) < MOMENTS:
                jpeg = encode_image(_fitted(drawn, 320), ".jpg")
                self._moments.append(_Moment(index, time, result.state, result.confidence, jpeg))
        self._times.append(time)
        self._states.append(result.state)
        self._confidence.append(result.confidence)

    def close(self, title: str, subtitle: str, facts: Mapping[str, str], threshold: float) -> None:
        """Write the page.

        ``facts`` are shown above the clip, ``threshold`` (0..1) in the chart.
        """
        clip = b""
        if self._clip is not None:
            self._clip.close()
            first_frames = self._in_clip * self._stride
            while self._clip_path.stat().st_size > CLIP_BYTES and self._in_clip > 1:
                self._thin_clip()
            clip = self._clip_path.read_bytes()
        lost = sum(state is TrackState.LOST for state in self._states)
        shown = {"frames": str(len(self._states)), "frames lost": str(lost)}
        page = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
        text = page.substitute(
            title=escape(title),
            subtitle=escape(subtitle),
            facts="".join(
                f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>"
                for name, value in {**shown, **facts}.items()
            ),
            clip=self._shown_clip(clip, first_frames) if clip else "",
            chart_label=f"confidence in {len(self._states)} frames, of which {lost} are lost",
            chart=chart(self._confidence, self._states, threshold, self._times),
            moments="".join(self._shown(moment) for moment in self._moments),
            more=self._more(),
            last=f"{_last(self._times):.6g}",
            left=_LEFT,
            width=_WIDTH,
        )
        content = text.encode(errors="replace")  # names of files need not be texts
        write_beside(self.path, lambda beside: beside.write_bytes(content))

    def __enter__(self) -> TrackReport:
        return self

    def __exit__(self, *_: object) -> None:
        if self._clip is not None:
            self._clip.discard()
        self._folder.cleanup()

    def _thin_clip(self) -> None:
        """Leave out every second frame of the clip, and make the others smaller."""
        self._stride, self._side = 2 * self._stride, max(64, self._side * 3 // 4)
        thinned = self._clip_path.with_name("thinned.mp4")
        count = 0
        with VideoRecorder(thinned, 1 / (self._period * self._stride)) as recorder:
            for frame, time in itertools.islice(video_file(self._clip_path).timed(), 0, None, 2):
                recorder.write(_fitted(frame, self._side), time)
                count += 1
        self._in_clip = count
        thinned.replace(self._clip_path)

    def _shown_clip(self, clip: bytes, first_frames: int) -> str:
        text = f'<video controls muted playsinline src="{_data("video/mp4", clip)}"></video>'
        what = "frames"
        if first_frames < len(self._states):
            what = f"the first {first_frames} frames"
        which = f"one of {self._stride} " if self._stride > 1 else ""
        which += "of " if which and what != "frames" else ""
        smaller = ", made smaller" if self._side < CLIP_SIDE else ""
        if which or smaller or what != "frames":
            text += f"<p>The clip shows {which}{what}{smaller}.</p>"
        return text

    def _shown(self, moment: _Moment) -> str:
        lost = moment.state is TrackState.LOST
        what, kind = ("lost", ' class="lost"') if lost else ("found again", "")
        text = f"{what} in frame {moment.frame + 1}, {moment.time:.1f} s ({moment.confidence:.2f})"
        return (
            f'<li><button{kind} data-time="{moment.time:.6g}">'
            f'<img alt="" src="{_data("image/jpeg", moment.jpeg)}"><span>{text}</span>'
            "</button></li>"
        )

    def _more(self) -> str:
        if not self._changes:
            return "The target was never lost."
        left = self._changes - len(self._moments)
        return f"{left} more losses and returns are not shown." if left else ""


def chart(
    confidence: Sequence[float],
    states: Sequence[TrackState],
    threshold: float,
    times: Sequence[float],
) -> str:
    """The elements of an SVG: a curve over bands that show the state, over ``times`` in s.

    The confidence of a frame may be NaN: the curve has a gap there.
    """
    last = _last(times)

    def x(time: float) -> float:
        return _LEFT + _WIDTH * time / last

    def border(frame: int) -> float:
        """x between a frame and the one before."""
        if frame in (0, len(times)):
            return x(times[0] if frame == 0 else times[-1])
        return x((times[frame - 1] + times[frame]) / 2)

    def y(value: float) -> float:
        return _TOP + _HEIGHT * (1 - value)

    parts = []
    fills = {TrackState.UNCERTAIN: "var(--unsure)", TrackState.LOST: "url(#hatch)"}
    start = 0
    for state, run in groupby(states):
        end = start + len(list(run))
        if state in fills:
            left, right = border(start), border(end)
            parts.append(
                f'<rect x="{left:.1f}" y="{_TOP}" width="{max(right - left, 1):.1f}" '
                f'height="{_HEIGHT}" fill="{fills[state]}"/>'
            )
        start = end
    for value in (0, 0.5, 1):
        parts.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y(value)}" y2="{y(value)}" '
            f'stroke="var(--line)"/><text x="{_LEFT - 8}" y="{y(value) + 4}" '
            f'text-anchor="end">{value:g}</text>'
        )
    for share in np.linspace(0, 1, _LABELS):
        frame = int(np.argmin(np.abs(np.subtract(times, share * last))))
        if abs(times[frame] / last - share) > 0.02:
            continue  # of few frames, none is near
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        parts.append(
            f'<text x="{x(times[frame]):.1f}" y="220" text-anchor="{anchor}">'
            f"frame {frame + 1}, {times[frame]:.1f} s</text>"
        )
    parts.append(
        f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y(threshold):.1f}" '
        f'y2="{y(threshold):.1f}" stroke="var(--lost)" stroke-dasharray="7 5"/>'
    )
    path, pen = "", "M"
    for frame, value in _thinned(confidence):
        if math.isnan(value):
            pen = "M"
            continue
        path += f"{pen}{x(times[frame]):.1f} {y(min(max(value, 0), 1)):.1f}"
        pen = "L"
    parts.append(f'<path d="{path}" fill="none" stroke="var(--seen)" stroke-width="2"/>')
    return "\n".join(parts)


def _last(times: Sequence[float]) -> float:
    """Time of the last frame; more than 0, so that it can be divided by."""
    return times[-1] if times and times[-1] > 0 else 1.0


def _thinned(values: Sequence[float]) -> list[tuple[int, float]]:
    """(index, value) of all values or, of very many, of the lowest and highest of each stretch."""
    pairs = list(enumerate(values))
    size = math.ceil(len(pairs) / (_POINTS / 2))
    if len(pairs) <= _POINTS:
        return pairs
    kept = []
    for start in range(0, len(pairs), size):
        stretch = [pair for pair in pairs[start : start + size] if not math.isnan(pair[1])]
        if stretch:
            kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return kept


def _fitted(image: Image, side: int) -> Image:
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = [max(2, round(each * scale)) for each in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
