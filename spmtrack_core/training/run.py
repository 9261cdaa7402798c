"""The folder of a run: settings, lock, checkpoint, and weights with their provenance."""

from __future__ import annotations

import fcntl
import json
import math
import subprocess
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch
import yaml

from spmtrack_core.files import user_path, write_beside, write_text
from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.model.weights import PRECISIONS, Checkpoint, load_checkpoint, save_checkpoint
from spmtrack_core.settings import from_dict, read_yaml, to_dict
from spmtrack_core.tracking.loading import find_weights
from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.optim import learning_rate

MAY_CHANGE = {
    "output",
    "device",
    "devices",
    "nodes",
    "gradient_accumulation_steps",
    "compile",
    "workers",
    "time_limit_min",
    "patience",
    "log_every",
    "validation_every",
    "checkpoint_every",
}
"""Settings that may differ when a run is resumed."""
SCHEDULE = {"steps", "decay_steps", "stem_frozen_steps"}
"""Settings that may differ if the steps made so far are the same with both values."""


@dataclass
class Progress:
    """The state of a run, over all resumptions."""

    step: int = 0
    """Optimization steps done."""
    minutes: float = 0.0
    """Wall time."""
    best: float = -math.inf
    """Best validation IoU."""
    stale: int = 0
    """Validations since the best one."""
    before: dict[str, str] = field(default_factory=dict)
    """Provenance of the weights that the run started from; empty for random ones."""

    def improved(self, score: float, scheduled: bool) -> bool:
        """Record a validation; whether it is the best one so far.

        A validation that is not ``scheduled``, at the end of the run, never counts as stale.
        """
        if score > self.best:
            self.best, self.stale = score, 0
            return True
        self.stale += scheduled
        return False

    def exhausted(self, patience: int | None) -> bool:
        """Whether the last ``patience`` validations were no better: the run has ended."""
        return patience is not None and self.stale >= patience


def read_settings(path: str | Path, overrides: Collection[str], resume: bool) -> TrainConfig:
    """Settings of a run; missing values of network and tracker are those of ``start_from``.

    With ``resume`` they come from the run's checkpoint: the file ``start_from`` may not exist any
    more. Raises as ``load_yaml`` and ``load_checkpoint`` do.
    """
    tree = read_yaml(path, list(overrides))
    if tree.get("start_from") is not None:
        if resume:
            output = user_path(str(tree.get("output", TrainConfig.output)))
            stored = read_state(output / "checkpoint.pt")["config"]
        else:
            # the settings are enough: do not read a trunk
            loaded = load_checkpoint(find_weights(str(tree["start_from"])), frozen=False)
            stored = {
                "model": to_dict(loaded.model_config),
                "tracker": to_dict(loaded.tracker_config),
            }
        for part in ("model", "tracker"):
            own = tree.get(part) or {}
            tree[part] = {**stored[part], **own} if isinstance(own, dict) else own
    return from_dict(TrainConfig, tree)


def check_unused(output: Path) -> None:
    """Raise ``ValueError`` if ``output`` has a run, or the weights of one."""
    if (output / "checkpoint.pt").exists():
        raise ValueError(f"{output} has a run already: --resume it, or name another output")
    for name in ("weights.safetensors", "best.safetensors"):
        if (output / name).exists():
            raise ValueError(
                f"{output} has {name} of a run, but no checkpoint.pt to resume it from: name "
                "another output, or move the weights away"
            )


def lock_folder(output: Path) -> IO[str]:
    """Reserve ``output`` for this process until it ends or closes the returned file.

    Raises ``ValueError`` if another process trains there.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = (output / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another process is training in {output}") from None
    except OSError as error:  # some network file systems have no locks
        warnings.warn(f"{output} cannot be locked: {error.strerror}", stacklevel=2)
    return lock


def write_settings(output: Path, config: TrainConfig) -> None:
    """Write ``config.yaml``: the settings with all their defaults, and the revision."""
    text = yaml.safe_dump(to_dict(config), sort_keys=False)
    write_text(output / "config.yaml", f"# revision {revision()}\n{text}")


def read_state(path: Path) -> dict[str, Any]:
    """The checkpoint of a run, mapped from the file.

    Raises ``FileNotFoundError`` for a missing file, ``ValueError`` for an incomplete one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint to resume from: {path}")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state["config"]["model"]  # missing in files of other programs
    except OSError:
        raise
    except Exception:  # a damaged file raises errors of many kinds, some with advice to load it
        raise ValueError(f"{path} is not a complete checkpoint of a run") from None
    return state


def check_resumable(path: Path, config: TrainConfig) -> None:
    """Raise ``ValueError`` if a setting that must not change differs from the checkpoint's."""
    state = read_state(path)
    # a setting newer than the checkpoint gets its default, which is the earlier behavior
    kept = from_dict(TrainConfig, state["config"])

    def schedule(each: TrainConfig) -> list[tuple[float, bool]]:
        done = range(state["step"])
        return [(learning_rate(each, step), step < each.stem_frozen_steps) for step in done]

    may_change = MAY_CHANGE | (SCHEDULE if schedule(kept) == schedule(config) else set())
    stored, ours = to_dict(kept), to_dict(config)
    for name in sorted(set(ours) - may_change):
        if ours[name] != stored[name]:
            name, theirs, own = _difference(name, stored[name], ours[name])
            raise ValueError(
                f"{path} was made with {name}: {theirs}, not {own}; "
                "resume with the settings of its config.yaml"
            )


def _difference(name: str, stored: Any, ours: Any) -> tuple[str, Any, Any]:
    """The first setting below ``name`` that differs, and its two values."""
    if not isinstance(stored, dict) or not isinstance(ours, dict):
        return name, stored, ours
    key = next(key for key in ours if ours[key] != stored[key])
    return _difference(f"{name}.{key}", stored[key], ours[key])


def save_tensors(path: Path, content: Any) -> None:
    """Write what ``torch.load`` reads; raises ``OSError`` where ``path`` cannot be written."""

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:  # hides its cause, such as a full disk
                raise error.__context__ or error from None

    write_beside(path, write)


def save_weights(
    path: Path,
    model: SPMTrack,
    config: TrainConfig,
    provenance: Mapping[str, str],
) -> None:
    """Write a weight file for ``load_tracker``: adapters alone if the trunk is another file."""
    save_checkpoint(
        path,
        Checkpoint(model, config.model, config.tracker, provenance),
        PRECISIONS[config.weights_precision],
        adapters_only=config.trained == "adapters" and config.trunk is not None,
    )


def provenance(
    config: TrainConfig, command: str, rows: list[dict[str, float]], progress: Progress
) -> dict[str, str]:
    """How weights were made, for their file; ``rows`` are those of the log."""
    validated = [row["validation_iou"] for row in rows if "validation_iou" in row]
    about = {
        "command": command,
        "revision": revision(),
        "steps": f"{rows[-1]['step']:.0f}" if rows else "0",
        "samples": f"{rows[-1]['samples'] if rows else 0:.0f} {config.data} tracks",
        "searches": f"{config.searches} a track",
        "wall_time_min": f"{progress.minutes:.1f}",
        "device": f"{config.nodes} x {config.devices} {config.device}, {config.precision}",
        "validation_iou": f"{validated[-1]:.4f}" if validated else "not measured",
        "config": json.dumps({**to_dict(config), "output": ""}),
    }
    if progress.before:
        # a flat list, the last run first: nested JSON would double its quotes at every level
        earlier = json.loads(progress.before.get("before", "[]"))
        last = {key: text for key, text in progress.before.items() if key != "before"}
        about["before"] = json.dumps([last, *earlier])
    return about


@cache
def revision() -> str:
    """Git revision of this code, or ``unknown``.

    Read once: a commit made during a run is not the code of the run.
    """
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
