"""The node with a tracker that fails as the first pixel of an image says, without PyTorch."""

from __future__ import annotations

import time
from types import SimpleNamespace

import spmtrack_core
from spmtrack_core.config import TrackerConfig
from spmtrack_core.tracking.result import TrackResult, TrackState
from spmtrack_ros import tracker_node

HANGS, THROWS, NO_MEMORY, SLOW = 201, 202, 203, 204
"""Values of the first pixel."""


class FaultyTracker:
    def __init__(self):
        self.config, self.device = TrackerConfig(), "faulty"
        self.runtime, self.threads = "none", 1

    def warm_up(self):
        pass

    def start(self, frame, box_xywh):
        self.fail(frame)
        return SimpleNamespace(box=tuple(map(float, box_xywh)))

    def follow(self, frame, targets):
        self.fail(frame)
        return [TrackResult(each.box, 0.9, TrackState.TRACKING) for each in targets]

    def forget_motion(self, targets):
        pass

    def fail(self, frame):
        value = int(frame[0, 0, 0])
        if value == HANGS:
            time.sleep(3600)
        if value == SLOW:
            time.sleep(0.05)
        if value == THROWS:
            raise RuntimeError("CUDA error: an illegal memory access")
        if value == NO_MEMORY:
            raise MemoryError("out of memory")


if __name__ == "__main__":
    spmtrack_core.load_tracker = lambda *_, **__: FaultyTracker()
    tracker_node.main()
