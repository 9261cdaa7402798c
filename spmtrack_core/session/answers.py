"""The thread that answers requests, one after the other."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable

from spmtrack_core.session.init_request import Reply
from spmtrack_core.session.request_queue import Pending

# Clients of ROS services keep 10 answers by default: they lose most of a burst. With this pause,
# 200 requests are answered in less than half a second, also when the node ends.
_SPACING = 0.002  # s


class Answers:
    """Answers that are on their way. Giving one returns at once; they leave at intervals."""

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[tuple[Pending, Reply] | None] = queue.SimpleQueue()

    def give(self, requests: Iterable[Pending], reply: Reply) -> None:
        """Give all requests the same answer, unless they have one already."""
        for each in requests:
            self._given.put((each, reply))

    def close(self) -> None:
        """End the thread, after the answers that were given before; no more must follow."""
        self._given.put(None)

    def run(self) -> None:
        """Work until closed."""
        while (given := self._given.get()) is not None:
            pending, reply = given
            pending.reply(reply)
            time.sleep(_SPACING)
