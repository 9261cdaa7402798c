"""The thread that keeps deadlines, also while inference hangs."""

from __future__ import annotations

import math
import time

from spmtrack_core.session.answers import Answers
from spmtrack_core.session.listeners import Listeners
from spmtrack_core.session.shared_state import SharedState

_HANGS = "one image is being processed for so long that all targets count as lost until it is done"


class Deadlines:
    """Answers requests whose time is over; declares targets LOST when images or results cease."""

    def __init__(self, state: SharedState, listeners: Listeners, answers: Answers) -> None:
        self._state, self._listeners, self._answers = state, listeners, answers

    def run(self) -> None:
        """Work until the session is closed."""
        state = self._state
        while True:
            with state.lock:
                if state.closed:
                    return
                now = time.monotonic()
                for pending, reply in state.requests.expire(now):
                    self._answers.give([pending], reply or state.reply(pending))
                stale = now >= state.stale_time()
                if not stale:
                    wake = min(state.requests.next_deadline(), state.stale_time())
                    state.alarm.wait(None if math.isinf(wake) else max(0.0, wake - now))
                    continue
                hangs = now >= state.hang_time()
                for target in state.targets:
                    state.targets.update(target.without_image())
            if hangs:
                self._listeners.warning(_HANGS)
            self._listeners.change()
