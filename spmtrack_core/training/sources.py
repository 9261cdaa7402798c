"""The data of a run: datasets, batches of training tracks, validation sequences."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
from rich.console import Console
from torch.utils.data import DataLoader, Sampler, default_collate

from spmtrack_core.data.catalog import open_tracks
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.data.tracks import Tracks
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.dataset import VideoTracks
from spmtrack_core.training.photo_pool import PhotoPool, photo_paths, read_photos
from spmtrack_core.training.photometric import Photometric
from spmtrack_core.training.random_tracks import RandomStream
from spmtrack_core.training.synthetic import SyntheticTracks

VALIDATION_SEED = 987_654_321
VALIDATION_BATCH = 16

SHARED_MEMORY = Path("/dev/shm")
"""Data workers pass their batches through this; containers often have 64 MiB of it."""

HeldOut: TypeAlias = list[FrameSequence] | SyntheticTracks | None
"""Validation data: sequences to track, synthetic tracks, or none."""


def open_datasets(config: TrainConfig, console: Console) -> list[Tracks]:
    """Open the datasets of ``videos`` and report each; the first time, this takes minutes."""
    opened = []
    for each in config.videos.datasets if config.video_tracks else ():
        console.print(f"{each.name}: reading the index of {each.root}", highlight=False)
        opened.append(tracks := open_tracks(each))
        left_out = f", left out {len(tracks.skipped)}:" if tracks.skipped else ""
        console.print(f"{each.name}: {len(tracks):,} tracks{left_out}", highlight=False)
        for line in tracks.skipped[:10]:
            console.print(f"    {line}", highlight=False, soft_wrap=True)
        if len(tracks.skipped) > 10:
            console.print(f"    and {len(tracks.skipped) - 10} more", highlight=False)
    return opened


def check_photos(config: TrainConfig) -> None:
    """Raise as ``photo_paths`` does where the run needs photographs; none is read."""
    if config.data != "videos":
        photo_paths(config.synthetic)


def open_photos(config: TrainConfig, device: torch.device) -> PhotoPool | None:
    """Read the photographs of the synthetic tracks; None for a run without such tracks."""
    return None if config.data == "videos" else read_photos(config.synthetic, device)


def synthetic_tracks(
    config: TrainConfig, pool: PhotoPool, size: int, seed: int
) -> SyntheticTracks:
    """Batches of ``size`` synthetic tracks on the device of ``pool``."""
    return SyntheticTracks(
        config.synthetic, config.model, config.tracker, pool, size, seed, config.searches
    )


def held_out_tracks(config: TrainConfig, pool: PhotoPool | None) -> SyntheticTracks | None:
    """Synthetic tracks for validation; no run trains on them. None without photographs."""
    if pool is None:
        return None
    return synthetic_tracks(config, pool, VALIDATION_BATCH, VALIDATION_SEED)


def training_batches(
    config: TrainConfig,
    pool: PhotoPool | None,
    datasets: list[Tracks],
    start: int,
    stop: int,
    rank: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """The micro-batches of process ``rank`` on ``device``, for steps ``start`` .. ``stop`` - 1.

    Micro-batch k of a process depends on the settings, k and the rank alone.
    """
    device, world = torch.device(device), config.devices * config.nodes
    first, last = (step * config.gradient_accumulation_steps for step in (start, stop))
    real = config.video_tracks
    sources: list[Iterator[Batch]] = []
    if pool is not None:
        synthetic = synthetic_tracks(config, pool, config.micro_batch_size - real, config.seed)
        sources.append(synthetic.batch(k * world + rank) for k in range(first, last))
    if real:
        videos = VideoTracks(
            config.videos, config.model, config.tracker, datasets, config.seed, config.searches
        )
        pinned = device.type == "cuda"
        read = loader(videos, real, config.workers, first, last, rank, world, pin_memory=pinned)
        real_batches = (
            Batch(*(t.to(device, non_blocking=pinned) for t in batch)) for batch in read
        )
        if config.videos.photometric:
            change = Photometric(config.synthetic, device).change
            streams = (
                partial(RandomStream, device, config.seed, k * world + rank, "videos")
                for k in range(first, last)
            )
            sources.append(map(change, real_batches, streams))
        else:
            sources.append(real_batches)
    if len(sources) == 1:
        return sources[0]
    return (
        Batch(*(torch.cat(part) for part in zip(*both, strict=True)))
        for both in zip(*sources, strict=True)
    )


def next_batch(batches: Iterator[Batch]) -> Batch:
    """The next batch. An error in a worker is raised as its last line, without the traceback."""
    try:
        return next(batches)
    except (ValueError, OSError) as error:
        raise ValueError(str(error).strip().splitlines()[-1]) from None
    except RuntimeError as error:
        if not re.search(r"shared memory|</torch_|insufficient shm", str(error)):
            raise
        free = shutil.disk_usage(SHARED_MEMORY).free / 2**20
        raise ValueError(
            f"data workers ran out of shared memory ({SHARED_MEMORY} has {free:.1f} MiB left): "
            "set workers=0 or fewer workers, or give more (docker run --shm-size=8g)"
        ) from None


def first_batch(config: TrainConfig) -> Batch:
    """Twelve training tracks of a run, for a contact sheet; of mixed data some of each kind."""
    share = min(max(config.video_share, 1 / 12), 11 / 12)
    config = replace(
        config,
        batch_size=12,
        video_share=share,
        gradient_accumulation_steps=1,
        devices=1,
        nodes=1,
        workers=0,
    )
    datasets = open_datasets(config, Console(stderr=True, markup=False))
    pool = open_photos(config, torch.device("cpu"))
    return next_batch(training_batches(config, pool, datasets, 0, 1))


class MicroBatches(Sampler[list[int]]):
    """Sample indices of the micro-batches of one process; all ranks together skip no index.

    Sample ``j`` of micro-batch ``k`` on rank ``r`` has the index ``(k * world + r) * size + j``.
    Raises ``ValueError`` for a rank outside of the world, no samples, or a stop before the start.
    """

    def __init__(self, size: int, start: int, stop: int, rank: int, world: int) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank must be in [0, {world}); got {rank}")
        if size < 1 or not 0 <= start <= stop:
            raise ValueError(
                "size must be at least 1 and 0 <= start <= stop; "
                f"got size {size}, start {start}, stop {stop}"
            )
        self.size, self.numbers = size, range(start, stop)
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[list[int]]:
        for number in self.numbers:
            first = (number * self.world + self.rank) * self.size
            yield list(range(first, first + self.size))


def collate(samples: list[Batch]) -> Batch:
    """One batch of samples, in their order; in shared memory inside a worker."""
    return default_collate(samples)


def loader(
    tracks: VideoTracks,
    size: int,
    workers: int,
    start: int,
    stop: int,
    rank: int = 0,
    world: int = 1,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Micro-batches ``start`` .. ``stop`` - 1 of one of ``world`` processes, in order.

    ``workers`` processes make them, each up to ``prefetch`` ahead; 0: this process makes them on
    demand. The number changes neither a batch nor the state of a random generator.
    Raises ``ValueError`` as ``MicroBatches`` does.
    """
    return DataLoader(
        tracks,
        batch_sampler=MicroBatches(size, start, stop, rank, world),
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=partial(_start_worker, os.getpid()),
        pin_memory=pin_memory,
        # so that the loader draws the seeds of its workers from this one, not the global one
        generator=torch.Generator(),
    )


def _start_worker(parent: int, _: int) -> None:
    """Limit a worker to one core: the threads of several workers would compete.

    The training process ends its workers: a signal to all processes of a job is for that one.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(parent,), daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _obey(parent: int) -> None:
    """End at a SIGTERM of the process ``parent`` alone, which waits for its workers at its end."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def validation_sequences(config: TrainConfig) -> list[FrameSequence] | None:
    """Sequences of ``validation``, evenly spread over the dataset; None without ``validation``.

    Each starts with its first visible frame and has at most ``validation_frames``. Raises
    ``ValueError`` if none of them shows its target again.
    """
    if config.validation is None:
        return None
    tracks, frames = open_tracks(config.validation), config.validation_frames
    parts = {}  # by number of the sequence
    for number in range(len(tracks)):
        visible = np.asarray(np.isfinite(tracks.boxes_xywh(number)).all(1))
        first = int(visible.argmax())
        if visible[first + 1 : first + frames].any():
            parts[number] = range(first, min(first + frames, len(visible)))
    if not parts:
        raise ValueError(
            f"no sequence of the validation set {config.validation.name} shows its target again "
            f"within {frames} frames"
        )
    count = min(len(parts), config.validation_samples)
    chosen = np.linspace(0, len(parts) - 1, count).round().astype(int)
    numbers = [list(parts)[index] for index in chosen]
    return [part_of(tracks.sequence(number), parts[number]) for number in numbers]


def part_of(sequence: FrameSequence, part: range) -> FrameSequence:
    """The frames ``part`` of a sequence with their boxes."""
    boxes = sequence.boxes_xywh
    return replace(
        sequence,
        open=lambda: itertools.islice(sequence, part.start, part.stop),
        length=len(part),
        boxes_xywh=None if boxes is None else boxes[part.start : part.stop],
    )
