"""How a command ends: no signal and no closed terminal costs what it has to write."""

from __future__ import annotations

import contextlib
import errno
import io
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 3
"""So many SIGINT or SIGTERM end a command that is completing its files."""

_begun: list[int] = []
"""The signals since the command began to end; 0 stands for an end of its own."""


def take_signals() -> None:
    """Let SIGTERM and SIGHUP (docker, systemd, Slurm, a closed terminal) do what Ctrl-C does.

    The first raises ``KeyboardInterrupt``. Those that follow come while the files are completed,
    and a terminal that is closed sends several: they do nothing, up to ``PATIENCE``.
    """
    _begun.clear()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup ignores SIGHUP, and a shell SIGINT in its background: that stays
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)


def begin_to_end() -> None:
    """Treat signals from here on as those that follow the first: files are being completed."""
    _begun.append(0)


def _end(number: int, _: object) -> None:
    _begun.append(number)
    asked = sum(each in (signal.SIGINT, signal.SIGTERM) for each in _begun)
    if len(_begun) == 1 or (asked >= PATIENCE and number != signal.SIGHUP):
        raise KeyboardInterrupt


@dataclass
class Ending:
    """The files that a command completes, whatever ended its work."""

    written: list[Path] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    """What ended the work, and what kept a file from being written."""

    def write(self, path: Path, write: Callable[[], object]) -> None:
        """Let ``write`` make a file; that it cannot is one of the errors."""
        try:
            write()
            self.written.append(path)
        except (OSError, ValueError) as error:
            self.errors.append(error)


class _Outlet(io.FileIO):
    """stdout or stderr; what a closed terminal or pipe does not take is dropped.

    So is what a log of stderr on a full disk does not take. Results on stdout are not dropped
    without a word: the first loss is an error.
    """

    full = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            told = self.full or self.name == 2 or error.errno in (errno.EIO, errno.EPIPE)
            self.full = True
            if not told:
                raise OSError(f"stdout cannot be written: {error.strerror}") from None
            return memoryview(data).nbytes


def open_outlets() -> None:
    """Make stdout and stderr take every text, also names of files that are none, at any time.

    So nobody who closes the terminal, or the program behind a pipe, ends the command.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="backslashreplace")
        with contextlib.suppress(OSError):  # without a descriptor nobody can close it
            outlet = io.BufferedWriter(_Outlet(stream.fileno(), "w", closefd=False))
            lasting = io.TextIOWrapper(outlet, stream.encoding, stream.errors, line_buffering=True)
            setattr(sys, name, lasting)
