"""A tracker with a very small network."""

from __future__ import annotations

import pytest

from spmtrack_core.tracking.loading import load_tracker


@pytest.fixture
def tracker(tiny_checkpoint):
    return load_tracker(tiny_checkpoint, device="cpu")
