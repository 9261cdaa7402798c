"""The soak: memory that stays is flat, and growth is an error."""

from __future__ import annotations

import pytest

from benchmarks import soak as module
from benchmarks.soak import soak, there_and_back


def test_the_target_goes_there_and_back():
    turn = there_and_back("abcd")
    assert "".join(next(turn) for _ in range(13)) == "abcdcbabcdcba"


def test_a_short_soak_is_flat(capsys, tiny_checkpoint):
    soak(frames=100, weights=str(tiny_checkpoint), device="cpu")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [*map(str, range(10, 101, 10)), "flat:"]


def test_growth_is_an_error(tiny_checkpoint, monkeypatch):
    sizes = iter(range(2**30, 2**40, 2**24))
    monkeypatch.setattr(module, "resident_bytes", lambda: next(sizes))
    with pytest.raises(ValueError, match=r"memory grew by 144\.0 MiB after the first 2 frames"):
        soak(frames=20, weights=str(tiny_checkpoint), device="cpu")


def test_a_soak_needs_some_frames():
    with pytest.raises(ValueError, match="at least 20; got 3"):
        soak(frames=3)
