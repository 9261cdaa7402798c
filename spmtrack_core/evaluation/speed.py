"""Frames per second of a tracker on this computer."""

from __future__ import annotations

import itertools
import math
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from spmtrack_core.tracking.host_engine import cores
from spmtrack_core.tracking.tracker import Tracker

FRAME_HW = (480, 640)
BOX_XYWH = (300.0, 200.0, 60.0, 80.0)


def frame_times(
    tracker: Tracker,
    seconds: float,
    frame_hw: tuple[int, int] = FRAME_HW,
    targets: int = 1,
    rate: float = 0.0,
) -> dict[str, float]:
    """Median and 95th percentile of whole frames, from image to the boxes of ``targets``, in ms.

    ``rate`` and keys as of ``timed``; on CUDA, the memory includes the captured graph.
    """
    frames = np.random.default_rng(0).integers(0, 255, (8, *frame_hw, 3)).astype(np.uint8)
    turn, cuda = itertools.cycle(frames), cuda_of(tracker.device)
    if cuda:
        cuda.reset_peak_memory_stats(tracker.device)
    tracker.warm_up()
    # a graph allocates all its memory when it is captured
    memory = {"memory_bytes": cuda.max_memory_allocated(tracker.device)} if cuda else {}
    scale = np.tile(np.divide(frame_hw[::-1], FRAME_HW[::-1]), 2)
    followed = [tracker.start(frames[0], BOX_XYWH * scale) for _ in range(targets)]

    def run() -> object:
        return tracker.follow(next(turn), followed)

    return timed(run, tracker.device, seconds, rate) | memory


def timed(
    run: Callable[[], Any], device: str, seconds: float, rate: float = 0.0
) -> dict[str, float]:
    """``median_ms`` and ``p95_ms`` of as many runs as fit into ``seconds``, at least three.

    The runs follow one another at ``rate`` a second, as the frames of a camera do that takes no
    notice of the tracker; 0: at once. A warm-up comes first, and each run waits for the device.
    On CUDA also ``memory_bytes``, the peak that PyTorch allocated.
    """
    cuda = cuda_of(device)

    def wait() -> None:
        if cuda:
            cuda.synchronize(device)

    if cuda:
        cuda.reset_peak_memory_stats(device)
    for _ in range(3 if cuda else 1):
        run()
    wait()
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < 3 or time.perf_counter() < begun + seconds:
        if rate:  # the next frame, after those that came meanwhile
            now = rate * (time.perf_counter() - begun)
            time.sleep((math.ceil(now) - now) / rate)
        started = time.perf_counter()
        run()
        wait()
        times.append(1000 * (time.perf_counter() - started))
    found = {"median_ms": float(np.median(times)), "p95_ms": float(np.percentile(times, 95))}
    return found | ({"memory_bytes": cuda.max_memory_allocated(device)} if cuda else {})


def cuda_of(device: str) -> Any:
    """``torch.cuda`` for a CUDA device, else None: other runtimes need no torch."""
    return sys.modules["torch"].cuda if device.startswith("cuda") else None


def machine(device: str) -> dict[str, Any]:
    """The computer and the libraries, to be stored with measured figures."""
    name, cuda = platform.processor() or platform.machine(), cuda_of(device)
    if cuda:
        name = cuda.get_device_name(device)
    elif Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    torch = sys.modules.get("torch")
    return {
        "device": name,
        "cores": cores(),
        "capability": torch.backends.cpu.get_cpu_capability() if torch else None,
        "torch": torch.__version__ if torch else version("torch"),
        "openvino": version("openvino"),
        "cuda": torch.version.cuda if torch and cuda else None,
        "cudnn": torch.backends.cudnn.version() if torch and cuda else None,
    }


def version(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of ``spmtrack benchmark`` for the terminal."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    texts = ("model", "precision", "runtime", "load", "threads")
    for title in ("weights", *texts[1:], "ms a frame", "95 %", "frames/s"):
        shown.add_column(title, justify="left" if title in ("weights", *texts[1:4]) else "right")
    for row in rows:
        times = (row["median_ms"], row["p95_ms"], 1000 / row["median_ms"])
        shown.add_row(*(str(row[name]) for name in texts), *(f"{each:.1f}" for each in times))
    return shown
