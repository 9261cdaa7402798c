"""Datasets under the temporary folder of a test."""

from __future__ import annotations

import pytest

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_tracks


@pytest.fixture
def opened(tmp_path):
    """Opens a dataset under tmp_path, with an index beside it."""

    def opened(name, **settings):
        config = DatasetConfig(name, str(tmp_path / "data"), **settings)
        return open_tracks(config, tmp_path / "cache")

    return opened
