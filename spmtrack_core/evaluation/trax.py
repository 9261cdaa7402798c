"""TraX, between a tracker and the VOT toolkit: a server for ours, a client for others.

A message is one line, ``@@TRAX:<type>`` and quoted arguments; ``key=value`` are properties. The
protocol is that of Cehovin, "TraX: The visual Tracking eXchange protocol and library" (2017). A
target is one rectangle, an image the path of a file.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import unquote, urlparse

import cv2
import numpy as np

from spmtrack_core.data.images import read_image
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.result import TrackResult, TrackState, VideoTracker

ANSWER = 120.0
"""Seconds that a tracker has for one answer; before its first one it loads its weights."""
PREFIX = "@@TRAX:"
_ARGUMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_PROPERTY = re.compile(r"([0-9A-Za-z._-]+)=(.*)", re.DOTALL)


class Message(NamedTuple):
    """One message of either side."""

    type: str
    arguments: tuple[str, ...]
    properties: dict[str, str]


def parse(line: str) -> Message | None:
    """The message in a line of output; None for other text that a tracker prints.

    >>> parse('@@TRAX:state "1,2,3,4" "confidence=0.5"')
    Message(type='state', arguments=('1,2,3,4',), properties={'confidence': '0.5'})
    """
    start = line.find(PREFIX)
    if start < 0:
        return None
    kind, _, rest = line[start + len(PREFIX) :].strip().partition(" ")
    arguments, properties = [], {}
    for quoted, plain in _ARGUMENT.findall(rest):
        text = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], quoted) or plain
        if found := _PROPERTY.fullmatch(text):
            properties[found[1]] = found[2]
        else:
            arguments.append(text)
    return Message(kind, tuple(arguments), properties)


def compose(kind: str, *arguments: str, **properties: object) -> str:
    """A message as a line; underscores of a property's name become dots.

    >>> compose("hello", trax_version=1)
    '@@TRAX:hello "trax.version=1"'
    """
    named = (f"{key.replace('_', '.')}={value}" for key, value in properties.items())
    texts = [*arguments, *named]
    escaped = (re.sub(r'(["\\])', r"\\\1", text).replace("\n", r"\n") for text in texts)
    return " ".join([PREFIX + kind, *(f'"{text}"' for text in escaped)])


def region_box(text: str) -> tuple[float, float, float, float]:
    """The box xywh of a region: a rectangle, or the bounds of a polygon.

    Raises ``ValueError`` for any other region.
    """
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 4:
        x, y, w, h = numbers
        return x, y, w, h
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        corners = np.reshape(numbers, (-1, 2))
        (x, y), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
        return x, y, x2 - x, y2 - y
    raise ValueError(f"expected a rectangle or a polygon of TraX; got {text[:60]!r}")


def serve(make: Callable[[], VideoTracker], source: IO[str], sink: IO[str], name: str) -> None:
    """Track for a client until it quits; ``make`` makes the tracker when it is first needed.

    Raises ``ValueError`` for a message that is no request of TraX.
    """

    def say(text: str) -> None:
        sink.write(text + "\n")
        sink.flush()

    tracker = make()
    formats = {"trax_image": "path;", "trax_region": "rectangle;", "trax_channels": "color;"}
    say(compose("hello", trax_version=3, trax_name=name, **formats))
    for message in filter(None, map(parse, source)):
        if message.type == "quit":
            return
        frame = read_image(_path_of(message))
        if message.type == "initialize":
            box = region_box(message.arguments[1])
            tracker.init(frame, box)
            say(compose("state", _region(box), confidence=1.0))
        elif message.type == "frame":
            result = tracker.update(frame)
            say(compose("state", _region(result.box_xywh), confidence=result.confidence))
        else:
            raise ValueError(f"expected initialize, frame or quit; got {message.type!r}")


class TraxTracker:
    """A tracker behind any command that speaks TraX, as a ``VideoTracker``.

    Frames are given as PNG files. The process starts with the first target and ends with
    ``close`` or this one.
    """

    def __init__(self, command: str, threshold: float = 0.0) -> None:
        self.command = command
        self.threshold = threshold
        self._process: subprocess.Popen[bytes] | None = None
        self._received = b""
        """What came after the last line that was read."""
        self._silent = ""
        """Why the command is not started again; empty if it may be."""
        self._folder = tempfile.TemporaryDirectory(prefix="spmtrack-trax-")
        self._frames = 0

    def init(self, frame: Image, box_xywh: Sequence[float]) -> None:
        """Start on ``frame`` with the target's box in its pixels.

        Raises ``ValueError`` where the command cannot be started, does not speak TraX or gives
        no answer for ``ANSWER`` s.
        """
        if self._silent:
            raise ValueError(self._silent)
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._ask("initialize", self._image(frame), _region(box_xywh))

    def update(self, frame: Image) -> TrackResult:
        """Find the target in the next frame; LOST where the tracker gives no region.

        Raises ``ValueError`` as ``init`` does.
        """
        state = self._ask("frame", self._image(frame))
        confidence = float(state.properties.get("confidence", "nan"))
        try:
            box = region_box(state.arguments[0])
        except (ValueError, IndexError):
            return TrackResult((0.0, 0.0, 0.0, 0.0), confidence, TrackState.LOST)
        lost = confidence < self.threshold
        return TrackResult(box, confidence, TrackState.LOST if lost else TrackState.TRACKING)

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ValueError):
                self._write(compose("quit"))
        self._end(patience=5.0)
        self._folder.cleanup()

    def _end(self, patience: float = 0.0) -> int:
        """The exit code of the process; it is killed, with those that it started, unless it ends
        in ``patience`` s.
        """
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for pipe in filter(None, (process.stdin, process.stdout)):
            with suppress(OSError):
                pipe.close()
        return process.wait()

    def _start(self) -> None:
        self._end()
        self._received = b""
        try:
            self._process = subprocess.Popen(
                shlex.split(self.command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"TRAX": "1"},
                start_new_session=True,  # a script can be killed with the tracker that it runs
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ValueError(f"cannot start {self.command!r}: {why}") from None
        self._read("hello")

    def _ask(self, kind: str, *arguments: str) -> Message:
        self._write(compose(kind, *arguments))
        return self._read("state")

    def _write(self, line: str) -> None:
        try:
            if self._process is None:
                raise BrokenPipeError
            assert self._process.stdin is not None
            self._process.stdin.write(os.fsencode(line + "\n"))
            self._process.stdin.flush()
        except OSError:
            raise ValueError(f"{self.command!r} has ended") from None

    def _read(self, expected: str) -> Message:
        """The next message; ``ValueError`` for another one than ``expected``, and for none."""
        for message in filter(None, map(parse, self._lines(expected))):
            if message.type == expected:
                return message
            reason = message.properties.get("trax.reason", "")
            raise ValueError(f"{self.command!r} answered {message.type} {reason}".rstrip())
        code = self._end(patience=5.0)
        raise ValueError(f"{self.command!r} ended with exit code {code} before its {expected}")

    def _lines(self, expected: str) -> Iterator[str]:
        """Lines of the output up to its end; ``ValueError`` after ``ANSWER`` s."""
        assert self._process is not None and self._process.stdout is not None
        file = self._process.stdout.fileno()
        until = time.monotonic() + ANSWER
        while True:
            line, end, rest = self._received.partition(b"\n")
            if end:
                self._received = rest
                yield line.decode(errors="replace")
                continue
            left = max(0.0, until - time.monotonic())
            if not left or not select.select([file], [], [], left)[0]:
                self._end()
                text = (
                    f"{self.command!r} sent no {expected} of TraX for {ANSWER:g} s: it was ended"
                )
                if expected == "hello":  # else each sequence would wait as long
                    self._silent = text
                raise ValueError(text)
            if not (piece := os.read(file, 65536)):
                return
            self._received += piece

    def _image(self, frame: Image) -> str:
        """The frame as a file, in one of two so that the one before is not overwritten."""
        self._frames += 1
        path = Path(self._folder.name) / f"{self._frames % 2}.png"
        cv2.imwrite(
            str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )
        return path.as_uri()


def _path_of(message: Message) -> Path:
    if not message.arguments:
        raise ValueError(f"{message.type} of TraX came without an image")
    url = urlparse(message.arguments[0])
    return Path(unquote(url.path)) if url.scheme == "file" else Path(message.arguments[0])


def _region(box_xywh: Sequence[float]) -> str:
    return ",".join(f"{float(value):.4f}" for value in box_xywh)
