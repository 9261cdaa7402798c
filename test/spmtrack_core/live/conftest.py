"""A server on the loopback address, and who answers the requests of its pages."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from spmtrack_core.session.init_request import Code, Reply


class Handler:
    """Answers each request at once, unless it is told to keep them."""

    def __init__(self):
        self.requests, self.kept, self.keep, self.fails = [], [], False, False

    def __call__(self, request):
        self.requests.append(request)
        if self.fails:
            raise RuntimeError("out of memory")
        done = Future()
        if self.keep:
            self.kept.append(done)
        else:
            done.set_result(Reply(Code.OK, "", "a"))
        return done


@pytest.fixture
def handler():
    return Handler()


@pytest.fixture
def server(handler):
    from spmtrack_core.live.server import LiveServer  # needs aiohttp, as the tests that use it

    running = LiveServer(handler)
    yield running
    running.close()
