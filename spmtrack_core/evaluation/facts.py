"""What a report says of a run besides its scores: weights, settings, versions, device."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import spmtrack_core
from spmtrack_core.evaluation.protocol import Protocol
from spmtrack_core.evaluation.speed import machine
from spmtrack_core.files import sha256_of
from spmtrack_core.settings import to_dict
from spmtrack_core.tracking.tracker import Tracker


def run_facts(
    weights: Path,
    trunk: Path | None,
    tracker: Tracker,
    protocol: Protocol,
    command: Sequence[str],
) -> dict[str, Any]:
    """The part ``run`` of ``results.json``."""
    settings = to_dict(protocol.config)
    around = settings.pop("tracker")
    runtime = protocol.config.runtime
    engine = {} if runtime == "torch" else {runtime: import_module(runtime).__version__}
    return {
        "weights": weights.name,
        "weights_sha256": sha256_of(weights),
        "trunk_sha256": sha256_of(trunk) if trunk else None,
        "recipe": protocol.recipe,
        "settings": settings | {f"tracker.{key}": value for key, value in around.items()},
        "differences": list(protocol.differences),
        "from_paper": list(protocol.from_paper),
        "versions": {
            "spmtrack": spmtrack_core.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            **engine,
        },
        "revision": _revision(),
        **machine(tracker.device),
        "command": shlex.join(["spmtrack", *command[1:]]),
    }


def _revision() -> str | None:
    """The commit of a source tree, with ``+`` if files differ from it; None when installed."""
    root = Path(spmtrack_core.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        calls = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *call], capture_output=True, text=True, check=True
            ).stdout.strip()
            for call in calls
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}{'+' if changes else ''}"
