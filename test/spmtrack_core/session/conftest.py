"""Sessions that are closed when the test has ended."""

from __future__ import annotations

import pytest

from test.spmtrack_core.session.bench import Bench


@pytest.fixture
def make_bench():
    benches = []

    def make(**options):
        benches.append(Bench(**options))
        return benches[-1]

    yield make
    for bench in benches:
        bench.tracker.gate.set()
        bench.session.close()
        for thread in bench.session._threads:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def bench(make_bench):
    return make_bench()
