"""The thread that keeps deadlines, also while inference hangs."""

from __future__ import annotations

import math
import time

from spmtrack_core.session.listeners import Listeners
from spmtrack_core.session.shared_state import SharedState

# Clients of ROS services keep 10 answers by default: they lose most of a burst of late ones.
_ANSWERS_AT_ONCE = 5
_ANSWER_SPACING = 0.01  # s


class Deadlines:
    """Answers requests whose time is over, and declares targets LOST when no image arrives."""

    def __init__(self, state: SharedState, listeners: Listeners) -> None:
        self._state, self._listeners = state, listeners

    def run(self) -> None:
        """Work until the session is closed."""
        state = self._state
        while True:
            with state.lock:
                if state.closed:
                    return
                now = time.monotonic()
                expired = [
                    (pending, reply or state.reply(pending))
                    for pending, reply in state.requests.expire(now)
                ]
                stale = now >= state.stale_time()
                if stale:
                    for target in state.targets:
                        state.targets.update(target.without_image())
                if not expired and not stale:
                    wake = min(state.requests.next_deadline(), state.stale_time())
                    state.alarm.wait(None if math.isinf(wake) else max(0.0, wake - now))
                    continue
            for count, (pending, reply) in enumerate(expired):
                time.sleep(_ANSWER_SPACING if count >= _ANSWERS_AT_ONCE else 0)
                pending.reply(reply)
            if stale:
                self._listeners.change()
