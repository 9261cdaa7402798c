"""Several processes on one evaluation: those of this machine, or those of torchrun or Slurm.

They share the output folder: each takes the longest sequence that nobody works on yet, so that all
end at about the same time. No process talks to another one.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.passes import Notify, Passes, key_of, track_all, truth_of
from spmtrack_core.evaluation.protocol import EvalConfig
from spmtrack_core.evaluation.results import ResultFolder, run_name
from spmtrack_core.files import one_line
from spmtrack_core.tracking.host_engine import cores
from spmtrack_core.tracking.loading import MOST_THREADS, cuda_devices, is_cpu, load_tracker
from spmtrack_core.tracking.tracker import Tracker

CUDA_BATCH = 8
"""Sequences at once on a CUDA device, unless the run says otherwise: on an H200, the network has
1.3 (SPMTrack-G) to 5.5 times (nano) the frames a second (benchmarks/results/h200.json)."""
POLL = 1.0
"""Seconds between two looks for what other processes have done."""


@dataclass(frozen=True)
class Job:
    """What a process needs to take its share; all of it can be sent to another process."""

    open: Callable[[], tuple[list[FrameSequence], list[str]]]
    """Opens the sequences; a module's function or a ``partial`` of one."""
    weights: Path
    trunk: Path | None
    device: str
    config: EvalConfig
    output: Path
    passes: Passes
    since: float
    """When the run began."""

    def load(self, device: str, threads: int = 0) -> Tracker:
        """The tracker with the settings of the run; ``threads`` as ``load_tracker`` takes them."""
        tracker = load_tracker(
            self.weights,
            device,
            precision=self.config.precision,
            trunk=self.trunk,
            runtime=self.config.runtime,
            threads=threads,
        )
        tracker.config = self.config.tracker
        return tracker


@dataclass(frozen=True)
class Rank:
    """Place of this process among those that torchrun or Slurm started."""

    index: int = 0
    count: int = 1
    local: int = 0
    """Index on its machine."""

    @classmethod
    def of_environment(cls, processes: int = 1) -> Rank:
        """As the environment says; the only process without such an environment.

        A batch script of Slurm is one process, but has the variables of the first task, save for
        the step: with several ``processes`` of its own it is the only one.
        """
        slurm = "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"
        for names in (("RANK", "WORLD_SIZE", "LOCAL_RANK"), slurm):
            values = [os.environ.get(name, "") for name in names]
            if all(value.isdigit() for value in values):
                rank = cls(*(int(value) for value in values))
                script = names is slurm and not rank.index and "SLURM_STEP_ID" not in os.environ
                return cls() if script and processes > 1 else rank
        return cls()


def device_for(device: str, index: int) -> str:
    """The device of the process ``index`` of a machine: its GPUs in turn."""
    chosen = is_cpu(device) or ":" in device
    return device if chosen else f"cuda:{index % cuda_devices()}"


def batch_for(wanted: int, device: str, passes: int, processes: int) -> int:
    """How many sequences a process tracks at once.

    ``wanted``, or if that is 0 what the device gains by; never more than its share of all
    ``passes``, so that no process is without work.
    """
    count = wanted or (CUDA_BATCH if device.startswith("cuda") else 1)
    return max(1, min(count, math.ceil(passes / processes)))


def longest_first(sequences: Sequence[FrameSequence]) -> list[FrameSequence]:
    """Sequences by their number of frames, so that no long one is left for the end."""
    return sorted(sequences, key=lambda each: -(each.length or 0))


def spread(job: Job, processes: int, notify: Notify) -> None:
    """Track with several processes of this machine.

    Raises ``RuntimeError`` where one of them ends with an error.
    """
    context = multiprocessing.get_context("spawn")
    told: Queue = context.Queue()
    threads = min(max(1, cores() // processes), MOST_THREADS)
    children = [
        context.Process(target=_child, args=(job, index, threads, told), daemon=True)
        for index in range(processes)
    ]
    for child in children:
        child.start()
    try:
        while any(child.is_alive() for child in children) or not told.empty():
            try:
                name, frames, error, fatal = told.get(timeout=POLL)
            except queue.Empty:
                continue
            if fatal:
                raise RuntimeError(fatal)
            notify(name, frames, error)
        codes = [child.exitcode for child in children if child.exitcode]
        if codes:
            raise RuntimeError(
                f"a process of the evaluation ended with exit code {codes[0]}; the same command "
                "goes on from here"
            )
    finally:
        for child in children:
            child.terminate()
            child.join()


def _child(job: Job, index: int, threads: int, told: Queue) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this one
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # PyTorch, if needed, is imported later
    try:
        sequences, _ = job.open()
        tracker = job.load(device_for(job.device, index), threads)

        def notify(name: str, frames: int, error: str | None) -> None:
            told.put((name, frames, error, None))

        order, folder = longest_first(sequences), ResultFolder(job.output)
        track_all(tracker, order, folder, job.passes, notify, job.since)
    except (OSError, ValueError, RuntimeError) as error:
        told.put(("", 0, None, one_line(error)))


def wait_for_others(
    tracker: Tracker, sequences: Sequence[FrameSequence], job: Job, notify: Notify
) -> None:
    """Return when every sequence is done by some process; takes over those of a dead one."""
    folder = ResultFolder(job.output)
    missing = list(sequences)
    keys = {each.name: _key(each, job) for each in sequences}
    while missing:
        missing = [each for each in missing if not _is_done(each, keys[each.name], folder, job)]
        if missing:
            track_all(tracker, longest_first(missing), folder, job.passes, notify, job.since)
            time.sleep(POLL)


def _key(sequence: FrameSequence, job: Job) -> tuple[str, int] | None:
    """The key of a sequence and its number of frames; None for one that cannot be tracked."""
    try:
        return key_of(sequence, job.passes), sequence.length or len(truth_of(sequence))
    except (OSError, ValueError):
        return None


def _is_done(
    sequence: FrameSequence, key: tuple[str, int] | None, folder: ResultFolder, job: Job
) -> bool:
    names = (run_name(sequence.name, each + 1) for each in range(job.passes.repetitions))
    oldest = job.since if job.passes.fresh else 0.0
    return key is None or all(
        folder.read(name, *key, oldest) is not None or folder.failure(name, job.since) is not None
        for name in names
    )
