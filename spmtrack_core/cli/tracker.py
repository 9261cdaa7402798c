"""The tracker that the options of ``track``, ``live`` and ``bag`` ask for."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console
from rich.text import Text

from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.tracker import Tracker


def ready_tracker(
    weights: str,
    device: str,
    precision: str,
    trunk: str | None,
    runtime: str,
    threads: int,
    policy: str,
) -> Tracker:
    """A tracker that has been warmed up. Raises as ``load_tracker``, and for another policy."""
    with Console(stderr=True).status(Text(f"loading {weights}")):
        tracker = load_tracker(
            weights, device, precision=precision, trunk=trunk, runtime=runtime, threads=threads
        )
        tracker.config = replace(tracker.config, policy=policy)
        tracker.warm_up()
    return tracker
