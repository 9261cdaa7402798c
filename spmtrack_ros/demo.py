"""Tracks a target through a video with the real node and shows the result.

    python -m spmtrack_ros.demo [SOURCE] [--box X Y W H] [--output demo_output]

Three processes, as on a robot: the node `spmtrack`, a publisher that plays the video, and this
one, a client that gives the target and records images and detections.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from spmtrack_core.data.recording import VideoRecorder, contact_sheet, write_image
from spmtrack_core.data.video import open_frames
from spmtrack_core.files import write_text
from spmtrack_core.geometry.boxes import Boxes, iou_xyxy, xywh_to_xyxy
from spmtrack_ros.conversions import stamp_text
from spmtrack_ros.fast_dds import PROFILE, PROFILES_VARIABLE
from spmtrack_ros.program import Parser
from spmtrack_ros.recorder import STATE_COLORS, Recorder, Row

_STARTUP = 120.0  # s, for a node that loads PyTorch on a busy machine
_SILENCE = 5.0  # s after the last image in which its detection must come


class Child:
    """A program of this package in its own process, ended with the block."""

    def __init__(
        self,
        module: str,
        log: Path,
        parameters: dict[str, Any],
        remappings: Sequence[tuple[str, str]] = (),
    ) -> None:
        command = [sys.executable, "-m", f"spmtrack_ros.{module}", "--ros-args"]
        for name, value in parameters.items():
            if isinstance(value, str):  # as YAML: a name may look like a number
                value = "'" + value.replace("'", "''") + "'"
            command += ["-p", f"{name}:={value}"]
        for old, new in remappings:
            command += ["-r", f"{old}:={new}"]
        self.name, self.log = module, log
        with log.open("w") as output:
            # Its own group: Ctrl-C reaches this process only, which then ends the others in order.
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def check(self) -> None:
        """Raise ``RuntimeError`` with the last line of its log if it has failed."""
        if self._process.poll():
            lines = self.log.read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise RuntimeError(f"{self.name} ended with {self._process.returncode}: {lines[-1]}")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        for number, timeout in ((signal.SIGINT, 10), (signal.SIGTERM, 3), (signal.SIGKILL, 3)):
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                continue


def run(options: argparse.Namespace, ros_arguments: list[str], console: Console) -> int:
    """Run the whole demo; return the exit code.

    Raises ``ValueError``, ``OSError`` or ``RuntimeError`` with one sentence on the problem.
    """
    frames, fps, boxes = None, None, None
    camera = options.source.isdecimal() or Path(options.source).is_char_device()
    if not camera:  # which one process alone can open: the publisher
        sequence = open_frames(options.source, options.max_frames or None, options.box is None)
        frames, fps, boxes = sequence.length, sequence.fps, sequence.boxes_xywh
    box = options.box or (None if boxes is None else boxes[0].tolist())
    if box is None:
        raise ValueError(f"the source {options.source} has no box: give one with --box X Y W H")

    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    interrupted = False
    with ExitStack() as stack:
        children = [] if options.attach else start_children(options, output, stack)
        rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        video = VideoRecorder(output / "tracked.mp4", options.rate or fps or 30.0)
        if boxes is not None and len(boxes) != frames:
            boxes = None  # enough for a start, too little for scores
        recorder = Recorder(box, boxes, options.label, stack.enter_context(video))
        stack.callback(recorder.destroy_node)
        try:
            follow(recorder, children, frames, console)
        except KeyboardInterrupt:
            interrupted = True
        recorder.flush(all_images=True)
    if recorder.rows:
        report(recorder, boxes, frames, output, console)
    return 130 if interrupted else 0


def start_children(options: argparse.Namespace, output: Path, stack: ExitStack) -> list[Child]:
    """Start node and publisher."""
    set_environment()
    node = {"weights": options.weights, "device": options.device}
    publisher = {
        "source": options.source,
        "rate": float(options.rate),
        "max_frames": options.max_frames,
        "wait_for_subscribers": 2,
    }
    return [
        stack.enter_context(Child("tracker_node", output / "tracker_node.log", node)),
        stack.enter_context(Child("video_publisher", output / "video_publisher.log", publisher)),
    ]


def set_environment() -> None:
    """A ROS domain of their own for this process and its children, unless ROS_DOMAIN_ID is set."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault(PROFILES_VARIABLE, str(config_file(PROFILE)))


def follow(
    recorder: Recorder, children: list[Child], frames: int | None, console: Console
) -> None:
    """Spin until the video is over and the detections of its last image have arrived."""

    # An exception raised by a signal handler inside rclpy's C++ code would arrive as another one.
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))

    def spin_until(done: Callable[[], Any], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if stopped:
                raise KeyboardInterrupt
            if time.monotonic() > deadline:
                return False
            rclpy.spin_once(recorder, timeout_sec=0.05)
            for child in children:
                child.check()
        return True

    with console.status("starting the node"):
        if not spin_until(recorder.node_ready, _STARTUP):
            raise RuntimeError(f"the node did not start within {_STARTUP:g} s")
    recorder.start()
    if not spin_until(lambda: recorder.reply is not None, _STARTUP):
        raise RuntimeError(f"no image came within {_STARTUP:g} s")
    columns = (TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=frames)

        def ended() -> bool:
            progress.update(task, completed=len(recorder.rows))
            recorder.check_reply()
            return recorder.ended

        spin_until(ended, float("inf"))
        spin_until(lambda: not recorder.flush(), _SILENCE)
        recorder.flush(all_images=True)
        progress.update(task, completed=len(recorder.rows))


def report(
    recorder: Recorder, boxes: Boxes | None, frames: int | None, output: Path, console: Console
) -> None:
    """Write contact sheet and boxes; print the figures."""
    rows = recorder.rows
    files = ["tracked.mp4", "boxes.csv"]
    if pictures := recorder.pictures():
        write_image(output / "contact_sheet.png", contact_sheet(pictures))
        files.insert(1, "contact_sheet.png")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stamp", "frame", "x", "y", "w", "h", "score", "state"])
    for index, row in enumerate(rows):
        numbers = [f"{value:.3f}" for value in (*row.box_xywh, row.score)]
        writer.writerow([stamp_text(row.stamp_ns), index, *numbers, row.state])
    write_text(output / "boxes.csv", text.getvalue())

    table = Table(show_header=False)
    counts = {state: sum(row.state == state for row in rows) for state in STATE_COLORS}
    counts["before the target was given"] = sum(row.state == "waiting" for row in rows)
    counts["skipped for a newer one"] = sum(row.state == "skipped" for row in rows)
    table.add_row("frames", f"{len(rows)}: " + ", ".join(f"{n} {s}" for s, n in counts.items()))
    seen = [row for row in rows if row.state in STATE_COLORS]
    if seen:
        seconds = (seen[-1].stamp_ns - seen[0].stamp_ns) / 1e9
        if seconds > 0:  # not where all stamps are the same
            table.add_row("tracked per second", f"{(len(seen) - 1) / seconds:.1f}")
        table.add_row("image to detection", percentiles([row.latency for row in seen]))
    if recorder.processing:
        table.add_row("of which in the node", percentiles(list(recorder.processing.values())))
    if boxes is not None and frames == len(rows):
        # The first box was given. A target that is visible but lost counts as 0.
        pairs = zip(rows[1:], boxes[1:], strict=True)
        ious = [iou(row, box) for row, box in pairs if row.state in STATE_COLORS]
        if ious:
            table.add_row("mean IoU", f"{np.nanmean(ious):.3f} over {len(ious)} frames")
    elif boxes is not None:
        table.add_row("mean IoU", f"unknown: only {len(rows)} of {frames} frames arrived")
    for name in files:
        table.add_row("written", str(output / name))
    console.print(table)


def iou(row: Row, box_xywh: np.ndarray) -> float:
    """IoU with the true box; 0 without a detection, NaN without a true box."""
    if not np.isfinite(box_xywh).all():
        return np.nan
    if row.state != "tracking":
        return 0.0
    return float(iou_xyxy(xywh_to_xyxy(row.box_xywh), xywh_to_xyxy(box_xywh)))


def percentiles(seconds: Sequence[float]) -> str:
    """Median, 90th and 99th percentile in ms."""
    p50, p90, p99 = np.percentile(1000 * np.asarray(seconds), [50, 90, 99])
    return f"{p50:.0f} ms median, {p90:.0f} ms p90, {p99:.0f} ms p99"


def config_file(name: str) -> Path:
    """A file of the folder config, in the source tree or installed."""
    here = Path(__file__).parents[1] / "config" / name
    if here.is_file():
        return here
    try:
        return Path(get_package_share_directory("spmtrack_ros")) / "config" / name
    except PackageNotFoundError:
        raise FileNotFoundError(
            f"no file config/{name}: build spmtrack_ros and source it"
        ) from None


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; raise ``ValueError`` for wrong options."""
    parser = Parser("spmtrack_ros.demo", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("source", nargs="?", default="synthetic", help="video file, folder or camera index")
    add("--box", type=float, nargs=4, metavar=("X", "Y", "W", "H"), help="target in frame 1, px")
    add("--label", default="target", help="class of the target")
    add("--output", default="demo_output", help="folder for the results")
    add("--weights", default="nano", help="name of bundled weights, or path of a checkpoint")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--rate", type=float, default=0.0, help="frames per second; 0: rate of the source")
    add("--max-frames", type=int, default=0, help="end after this many frames; 0: at the end")
    add("--attach", action="store_true", help="use a running node and publisher")
    options = parser.parse_args(arguments)
    if options.box and (not np.isfinite(options.box).all() or min(options.box[2:]) <= 0):
        raise ValueError(f"--box {options.box}: expected finite numbers and a positive size")
    if not 0 <= options.rate <= 1000 or options.max_frames < 0:
        raise ValueError(
            f"--rate {options.rate:g} --max-frames {options.max_frames}: "
            "expected a rate of 0 to 1000 and 0 or more frames"
        )
    return options


def main(args: list[str] | None = None) -> int:
    """Run the demo: 0 when the video is over, 2 on an error, 130 on Ctrl-C or SIGTERM."""
    # SIGTERM ends the children as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments = sys.argv if args is None else ["demo", *args]
        return run(parse(remove_ros_args(arguments)[1:]), arguments, Console(markup=False))
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
