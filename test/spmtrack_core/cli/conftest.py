"""Fixtures of the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def impatient(tmp_path, monkeypatch, tiny_checkpoint):
    """Runs ``impatient.py`` in an empty folder; exit code, all that is said.

    ``end`` makes the pipe or terminal that is closed before the first signal.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    program = Path(__file__).with_name("impatient.py")

    def run(at, names, command, *arguments, end=None):
        weights = ("--weights", tiny_checkpoint, "--device", "cpu", "--threads", "1")
        reader, writer = end() if end else (-1, subprocess.PIPE)
        called = (program, at, reader, names, command, *weights, *arguments)
        process = subprocess.Popen(
            [sys.executable, *map(str, called)],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer if end else subprocess.STDOUT,
            pass_fds=[reader] if end else [],
            text=True,
        )
        if end:
            os.close(reader)
            os.close(writer)
        try:
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        return process.returncode, said or ""

    return run
