"""The soak: constant memory passes, growing memory is an error."""

from __future__ import annotations

import pytest

from benchmarks import soak as module
from benchmarks.soak import soak, there_and_back


def test_images_are_played_forwards_and_backwards():
    turn = there_and_back("abcd")
    assert "".join(next(turn) for _ in range(13)) == "abcdcbabcdcba"


def test_memory_is_flat_in_a_short_soak(capsys, tiny_checkpoint):
    soak(frames=100, weights=str(tiny_checkpoint), device="cpu")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [*map(str, range(10, 101, 10)), "flat:"]


def test_growing_memory_is_an_error(tiny_checkpoint, monkeypatch):
    sizes = iter(range(2**30, 2**40, 2**24))
    monkeypatch.setattr(module, "resident_bytes", lambda: next(sizes))
    with pytest.raises(ValueError, match=r"memory grew by 144\.0 MiB after the first 2 frames"):
        soak(frames=20, weights=str(tiny_checkpoint), device="cpu")


def test_too_few_frames_are_rejected():
    with pytest.raises(ValueError, match="at least 20; got 3"):
        soak(frames=3)
