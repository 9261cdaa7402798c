"""Frames per second of a tracker on this computer."""

from __future__ import annotations

import itertools
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.host_engine import cores
from spmtrack_core.tracking.tracker import Tracker

FRAME_HW = (480, 640)
BOX_XYWH = (300.0, 200.0, 60.0, 80.0)
PARTS = "network", "references", "other"
"""What the time of a frame is spent on, on the host."""


def frame_times(
    tracker: Tracker,
    seconds: float,
    frame_hw: tuple[int, int] = FRAME_HW,
    targets: int = 1,
    rate: float = 0.0,
) -> dict[str, float]:
    """Median and 95th percentile of whole frames, from image to the boxes of ``targets``, in ms.

    ``rate`` and keys as of ``timed``; on CUDA, the memory includes the captured graph. On the host
    also the mean ms of a frame by what they were spent on: ``network_ms``, ``references_ms`` and
    ``other_ms``, which is crops and all the rest.
    """
    frames = drifting_target(frame_hw)
    # other runtimes take arrays of the host, whatever computes the network
    device = tracker.device if tracker.runtime == "torch" else "cpu"
    turn, cuda = itertools.cycle(frames), cuda_of(device)
    if cuda:
        cuda.reset_peak_memory_stats(device)
    tracker.warm_up(targets)
    # a graph allocates all its memory when it is captured
    memory = {"memory_bytes": cuda.max_memory_allocated(device)} if cuda else {}
    followed = [tracker.start(frames[-1], box_in(frame_hw)) for _ in range(targets)]
    engine: Any = tracker.engine
    watch = Stopwatch(engine.model)
    total, count = 0.0, 0

    def run() -> None:
        nonlocal total, count
        started = time.perf_counter()
        tracker.follow(next(turn), followed)
        total, count = total + time.perf_counter() - started, count + 1

    if cuda:  # what is captured calls no model
        return timed(run, device, seconds, rate) | memory
    engine.model = watch
    try:
        row = timed(run, device, seconds, rate)
    finally:
        engine.model = watch.model
    spent = watch.seconds | {"other": total - sum(watch.seconds.values())}
    return row | {f"{name}_ms": 1000 * each / count for name, each in spent.items()}


def box_in(frame_hw: tuple[int, int]) -> list[float]:
    """``BOX_XYWH`` in a frame of another size."""
    scale = np.divide(frame_hw[::-1], FRAME_HW[::-1])
    return [float(each) for each in BOX_XYWH * np.tile(scale, 2)]


def drifting_target(frame_hw: tuple[int, int]) -> list[Image]:
    """Eight frames (H, W, 3) of a target that drifts about ``box_in``; there in the last one.

    A network follows it: noise would be lost, and the search for it measured.
    """
    height, width = frame_hw
    rng = np.random.default_rng(0)

    def blurred(cells: tuple[int, int], size_wh: tuple[int, int]) -> Image:
        colors = rng.integers(0, 256, (*cells, 3)).astype(np.uint8)
        return np.asarray(cv2.resize(colors, size_wh, interpolation=cv2.INTER_LINEAR))

    x, y, w, h = map(round, box_in(frame_hw))
    background = blurred((6, 8), (width, height)) // 2
    target = blurred((5, 4), (max(w, 1), max(h, 1)))
    frames = []
    for turn in 2 * math.pi * np.arange(1, 9) / 8:
        frame = background.copy()
        left = x + round(0.05 * w * (1 - math.cos(turn)))
        top = y + round(0.05 * h * math.sin(turn))
        frame[top : top + len(target), left : left + target.shape[1]] = target
        frames.append(frame)
    return frames


class Stopwatch:
    """An ``InferenceModel`` that adds up the seconds of its two functions."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.seconds = {"network": 0.0, "references": 0.0}

    def encode_reference(self, *inputs: Any) -> Any:
        """See ``InferenceModel``."""
        return self._timed("references", self.model.encode_reference, *inputs)

    def __call__(self, *inputs: Any) -> Any:
        """See ``InferenceModel``."""
        return self._timed("network", self.model, *inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def _timed(self, name: str, function: Callable[..., Any], *inputs: Any) -> Any:
        started = time.perf_counter()
        found = function(*inputs)
        self.seconds[name] += time.perf_counter() - started
        return found


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
    """``torch.cuda`` for a CUDA device, else None; other runtimes need no torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and device.startswith("cuda") else None


def machine(device: str) -> dict[str, Any]:
    """The computer and the libraries, to be stored with measured figures."""
    name, cuda = platform.processor() or platform.machine(), cuda_of(device)
    if device.startswith("cuda"):
        name = cuda.get_device_name(device) if cuda else device
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


def tables(rows: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """The rows of ``spmtrack benchmark`` for the terminal, and what frames take their time for."""
    times = [(row["median_ms"], row["p95_ms"], 1000 / row["median_ms"]) for row in rows]
    yield table(rows, ("ms a frame", "95 %", "frames/s"), times)
    if all(f"{part}_ms" in row for row in rows for part in PARTS):
        spent = [[row[f"{part}_ms"] for part in PARTS] for row in rows]
        yield table(rows, PARTS, spent, "mean ms of a frame by what they are spent on")


def table(
    rows: Sequence[dict[str, Any]],
    titles: Sequence[str],
    numbers: Sequence[Sequence[float]],
    caption: str | None = None,
) -> Table:
    """What the rows measured, and their ``numbers`` under ``titles``."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=caption)
    texts = ("model", "precision", "runtime", "load", "threads")
    for title in ("weights", *texts[1:], *titles):
        shown.add_column(title, justify="left" if title in ("weights", *texts[1:4]) else "right")
    for row, found in zip(rows, numbers, strict=True):
        shown.add_row(*(str(row[name]) for name in texts), *(f"{each:.1f}" for each in found))
    return shown
