"""SPMTrack: single-object tracking with spatio-temporal parameter-efficient modeling.

>>> from spmtrack_core import load_tracker  # doctest: +SKIP
>>> tracker = load_tracker("nano", device="cpu")  # doctest: +SKIP
>>> tracker.init(frame, (x, y, w, h))  # doctest: +SKIP
>>> tracker.update(frame).box_xywh  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spmtrack_core.tracking.loading import load_tracker
    from spmtrack_core.tracking.result import TrackResult, TrackState
    from spmtrack_core.tracking.tracker import Tracker

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # of ONNX Runtime; it also prints of it

__version__ = "0.1.0"
__all__ = ["TrackResult", "TrackState", "Tracker", "load_tracker"]

_HOMES = {
    "TrackResult": "spmtrack_core.tracking.result",
    "TrackState": "spmtrack_core.tracking.result",
    "Tracker": "spmtrack_core.tracking.tracker",
    "load_tracker": "spmtrack_core.tracking.loading",
}


def __getattr__(name: str) -> Any:
    """Import torch only when the tracker is asked for: a video player does without it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
