"""Training runs of the tests draw no curves: that takes longer than their steps."""

from __future__ import annotations

import pytest

from spmtrack_core.training import trainer


@pytest.fixture(scope="session", autouse=True)
def no_curves():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "plot", lambda rows, path: None)
        yield
