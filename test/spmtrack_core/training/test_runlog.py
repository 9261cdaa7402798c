"""The log of a run after power cuts and full disks."""

from __future__ import annotations

import csv
import errno
from pathlib import Path

import pytest

from spmtrack_core.training.runlog import Log, read_log


@pytest.fixture
def path(tmp_path) -> Path:
    """A log of two rows."""
    log = Log(tmp_path, keep_until=0)
    for step in (10, 20):
        log.add({"step": step, "samples": 8 * step, "loss": 1.5})
    return tmp_path / "log.csv"


def steps(path: Path) -> list[float]:
    return [row["step"] for row in read_log(path)]


@pytest.mark.parametrize(
    "tail",
    [
        b"30,24",
        b"30,240,1.0,0.1,1.2",
        b"30,240,1.0,0.1,1.25,,,,,,,,,,",
        b"\0" * 99,
        "é".encode()[:1],
    ],
    ids=[
        "columns are missing",
        "digits may be",
        "no end",
        "a block without data",
        "half a character",
    ],
)
def test_a_line_that_a_power_cut_left_incomplete_is_ignored(path, tail):
    with path.open("ab") as file:
        file.write(tail)
    assert steps(path) == [10, 20]
    log = Log(path.parent, keep_until=20)  # as a resumed run opens it
    log.add({"step": 30, "samples": 240, "loss": 1.25})
    assert steps(path) == [10, 20, 30]


@pytest.mark.parametrize("content", [b"", b"step,samp", b"step,samples,loss\r\n"])
def test_a_log_without_a_row(path, content):
    path.write_bytes(content)
    assert read_log(path) == []


@pytest.mark.parametrize(
    "line",
    [
        b"30,240",
        b"\0\0\0",
        b"thirty,240,1.0,0.1,1.25",
        b"\xff,1",
        b"1," * 40,
        b'"' + b"1" * 200_000,
    ],
    ids=["too short", "no data", "words", "no text", "too long", "a cell beyond the limit of csv"],
)
def test_a_complete_line_of_something_else_is_an_error(path, line):
    with path.open("ab") as file:
        file.write(line + b"\r\n")
    with pytest.raises(ValueError, match=r"log\.csv is not the log of a run"):
        read_log(path)


def test_a_disk_that_is_full_when_a_run_is_resumed_keeps_the_log(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    with pytest.raises(OSError, match=r"log\.csv cannot be written: No space left"):
        Log(path.parent, keep_until=20)
    assert steps(path) == [10, 20]


def test_a_disk_that_becomes_full_names_the_folder(path, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    log = Log(path.parent, keep_until=20)
    monkeypatch.setattr(log.events, "flush", full)
    with pytest.raises(OSError, match=rf"^log in {path.parent}: No space left"):
        log.add({"step": 30, "samples": 240, "loss": 1.25})
