"""The command line, run in the test's own process."""

from __future__ import annotations

import sys

import pytest

from spmtrack_core.cli import main


@pytest.fixture
def spmtrack(monkeypatch, capsys):
    """Runs the command; exit code, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["spmtrack", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
            raise SystemExit(0)
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return call
