"""Measures the node in a process of its own over real DDS: its overhead, rates and recovery.

python benchmarks/node.py -o results.json

The node's own times on /diagnostics are used: overhead is the time from the callback of an image
to the end of publishing, less that of the tracker. For overhead and latency the camera sends the
next image when the last one has been reported; for the rate it sends as many as `--rate`.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rclpy import get_rmw_implementation_identifier
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import spmtrack_core
from robot import Robot, after, grid, robot
from spmtrack_core.cli import run_command
from spmtrack_core.cli.options import Device, Weights
from spmtrack_core.data.scene import scene
from spmtrack_core.evaluation.speed import machine
from spmtrack_core.files import check_output, write_text
from spmtrack_core.tracking.torch_engines import choose_device
from spmtrack_ros.msg import TrackState

SIZES_WH = ((640, 480), (1920, 1080), (3840, 2160))
TARGETS = (1, 2, 4, 8)
_RETURNS = 5
_IMAGE_TIMEOUT = 0.3  # s
_PATIENCE = 20.0  # s


def benchmark_node(
    weights: Weights = "nano",
    device: Device = "auto",
    seconds: Annotated[
        float, typer.Option(help="Time of each measurement; twice as long at most.", min=0.2)
    ] = 4.0,
    rate: Annotated[float, typer.Option(help="Images a second of the camera.", min=1)] = 30.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON to write.")] = None,
) -> None:
    """Measure the node's overhead, rate, latency and recovery over real DDS."""
    if output:
        check_output(output)
    console, rows = Console(), []
    parameters = {
        "weights": weights,
        "device": device,
        "diagnostics_period": float(seconds),
        "image_timeout": _IMAGE_TIMEOUT,
        "image_reliability": "reliable",  # each image counts
        "lost_threshold": 0.0,  # the boxes lie anywhere: none is lost and searched for
    }
    with console.status("starting the node") as status, robot(**parameters) as client:
        image = next(iter(scene()))
        for size_wh in SIZES_WH:
            client.show(image, size_wh)
            for targets in TARGETS if size_wh == SIZES_WH[0] else TARGETS[:1]:
                status.update("{} x {}, targets: {}".format(*size_wh, targets))
                client.restart(grid(targets, size_wh))
                row = {"image": "{}x{}".format(*size_wh), "targets": targets}
                row |= one_by_one(client, seconds)
                rows.append(row | (at_rate(client, rate, seconds) if targets == 1 else {}))
        status.update("the camera goes and returns")
        client.show(image, SIZES_WH[0])
        client.restart(grid(1, SIZES_WH[0]))
        returns = [1000 * seconds_to_return(client, rate) for _ in range(_RETURNS)]
        ros = {
            "ros": os.environ.get("ROS_DISTRO", ""),
            "rmw": get_rmw_implementation_identifier(),
        }
    console.print(table(rows))
    middle, longest = np.median(returns), max(returns)
    console.print(f"camera's return to TRACKING: {middle:.0f} ms median, {longest:.0f} ms max")
    if output:
        about = machine(str(choose_device(device))) | ros
        about |= {"python": platform.python_version(), "spmtrack": spmtrack_core.__version__}
        report = {
            "machine": about | {"processors": os.cpu_count(), "weights": weights},
            "options": {"seconds": seconds, "rate": rate},
            "rows": rows,
            "return_to_tracking_ms": [round(each, 1) for each in returns],
        }
        write_text(output, json.dumps(report, indent=1) + "\n")
        typer.echo(f"wrote {output}")


def window(client: Robot, seconds: float, drive: Callable[[Callable[[], bool]], Any]) -> None:
    """Call ``drive``, which works until its argument is true, through one whole window.

    Raises ``RuntimeError`` if no image was processed.
    """
    started, late = client.windows, after(3 * seconds + _PATIENCE)

    def measured() -> bool:  # the first message ends a window that began before
        return client.windows >= started + 2 and "overhead p50 ms" in client.diagnostics

    drive(lambda: late() or measured())
    if not measured():
        raise RuntimeError("the node has processed no image")


def one_by_one(client: Robot, seconds: float) -> dict[str, float]:
    """Times in ms where each image is sent when the last one has been reported."""

    def drive(done: Callable[[], bool]) -> None:
        while not done():
            client.send_and_wait()

    window(client, seconds, drive)
    found = client.diagnostics
    return {
        f"{name}_{part}_ms": float(found[f"{name} {part} ms"])
        for name in ("overhead", "inference", "latency")
        for part in ("p50", "p95")
    }


def at_rate(client: Robot, rate: float, seconds: float) -> dict[str, float]:
    """Images per second that arrive and are reported of those that a camera sends."""
    begun, sent = time.monotonic(), 0

    def drive(done: Callable[[], bool]) -> None:
        nonlocal sent
        sent = client.send_at(rate, done)

    window(client, seconds, drive)
    return {
        "sent_per_s": round(sent / (time.monotonic() - begun), 1),
        "received_per_s": float(client.diagnostics["images received per s"]),
        "processed_per_s": float(client.diagnostics["images processed per s"]),
    }


def seconds_to_return(client: Robot, rate: float) -> float:
    """Time from the first image after a pause to the state TRACKING, as a client sees it."""

    def states() -> set[int]:
        return {each.state for each in client.status.targets}

    client.send_and_wait()
    if not client.until(lambda: states() == {TrackState.LOST}, _PATIENCE):
        raise RuntimeError("the target is not LOST although no image arrives")
    begun, late = time.monotonic(), after(_PATIENCE)
    client.send_at(rate, lambda: late() or states() == {TrackState.TRACKING})
    if states() != {TrackState.TRACKING}:
        raise RuntimeError("the target is not TRACKING although the camera is back")
    return time.monotonic() - begun


def table(rows: list[dict[str, Any]]) -> Table:
    """Median times, the 95th percentile of the overhead, and the rates."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown.add_column("image")
    columns = {
        "targets": "targets",
        "overhead ms": "overhead_p50_ms",
        "95 %": "overhead_p95_ms",
        "tracker ms": "inference_p50_ms",
        "latency ms": "latency_p50_ms",
        "sent/s": "sent_per_s",
        "processed/s": "processed_per_s",
    }
    for title in columns:
        shown.add_column(title, justify="right")
    for row in rows:
        shown.add_row(row["image"], *(str(row.get(name, "")) for name in columns.values()))
    return shown


if __name__ == "__main__":
    run_command(lambda: typer.run(benchmark_node))
