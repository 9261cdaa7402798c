"""The listeners of a session, called one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from spmtrack_core.session.snapshot import FrameReport


def _ignore(*_: Any) -> None:
    pass


@dataclass
class Listeners:
    """Whom a session informs, and of what."""

    on_report: Callable[[FrameReport], None] = _ignore
    """Every reported image; called in the worker thread."""
    on_change: Callable[[], None] = _ignore
    """Every other change of the state."""
    on_error: Callable[[str], None] = _ignore
    """One sentence for each failure."""
    on_warning: Callable[[str], None] = _ignore
    """One sentence for each disturbance from outside."""
    lock: Any = field(default_factory=threading.RLock)
    """Serializes listeners, so that an older state is never published after a newer one."""

    def notify(self, listener: Callable[..., None], *arguments: Any) -> None:
        """Call a listener. Its failure is reported and ends neither worker nor request."""
        with self.lock:
            try:
                listener(*arguments)
            except Exception as error:
                if listener is not self.on_error:
                    text = f"publishing failed: {type(error).__name__}: {error}"
                    self.notify(self.on_error, text)

    def report(self, report: FrameReport) -> None:
        """Tell of a processed image."""
        self.notify(self.on_report, report)

    def change(self) -> None:
        """Tell of a change of the state."""
        self.notify(self.on_change)

    def error(self, text: str) -> None:
        """Tell of a failure."""
        self.notify(self.on_error, text)

    def warning(self, text: str) -> None:
        """Tell of a disturbance."""
        self.notify(self.on_warning, text)
