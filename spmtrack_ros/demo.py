"""VideoTracker a target through a video with the real node, and shows what came of it.

    python -m spmtrack_ros.demo [SOURCE] [--box X Y W H] [--output demo_output]

Three processes, as on a robot: the node `spmtrack`, a publisher that plays the video, and this
one, a client that names the target and records images and detections.
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
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import rclpy
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from spmtrack_core.data.recording import VideoRecorder, contact_sheet, write_image
from spmtrack_core.data.video import open_frames
from spmtrack_core.files import write_beside
from spmtrack_core.geometry.boxes import Boxes, iou_xyxy, xywh_to_xyxy
from spmtrack_core.geometry.drawing import GREEN, ORANGE, WHITE, draw_box
from spmtrack_ros.conversions import Image, bbox_to_xywh, fill_bbox, image_to_array, stamp_to_ns
from spmtrack_ros.msg import TrackStateArray
from spmtrack_ros.srv import InitTarget

_PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"
_STARTUP = 120.0  # s, for a node that loads PyTorch on a busy machine
_SILENCE = 5.0  # s after the last image in which its detection must come
_TRIES = 5  # to name the target
_PICTURES = 12  # on the contact sheet
_COLOURS = {"tracking": GREEN, "lost": ORANGE}


@dataclass(frozen=True)
class Row:
    """What the detections say of one frame."""

    stamp_ns: int
    state: str
    """tracking or lost; waiting: no target yet; skipped: a newer image was processed instead."""
    box_xywh: tuple[float, ...] = (np.nan,) * 4
    score: float = np.nan
    latency: float = np.nan
    """s from the image's stamp to the arrival of its detection."""


class Recorder(Node):
    """The client: names the target in the first image and joins what follows by stamps."""

    def __init__(
        self,
        box_xywh: Sequence[float] | Boxes,
        boxes_xywh: Boxes | None,
        label: str,
        video: VideoRecorder,
    ) -> None:
        """``box_xywh`` is the target's in the first image, ``boxes_xywh`` in each if known."""
        super().__init__("spmtrack_demo")
        self.rows: list[Row] = []
        self.processing: dict[int, float] = {}
        """Stamp in ns: s that the node worked on the image."""
        self.reply: Any = None
        self._box, self._boxes, self._label, self._video = box_xywh, boxes_xywh, label, video
        self._header = Header()
        self._received = 0
        self._tries = 0
        self._images: deque[tuple[int, Image]] = deque()
        self._detections: dict[int, tuple[Sequence[Any], float]] = {}
        self._newest_detection = -1
        self._pictures: list[Image] = []
        self._every, self._answered = 1, 0
        self._init = self.create_client(InitTarget, "spmtrack/init_target")
        self._subscribe(Detection2DArray, "spmtrack/detections", self._on_detections)
        self._subscribe(TrackStateArray, "spmtrack/status", self._on_status)

    def node_is_there(self) -> bool:
        """Whether the node answers; the publisher starts when the images are subscribed to."""
        return self._init.service_is_ready() and bool(self.count_publishers("spmtrack/detections"))

    def start(self) -> None:
        """Subscribe to the images."""
        self._subscribe(ImageMessage, "image", self._on_image)

    @property
    def ended(self) -> bool:
        """Whether images came and nobody is left to send more."""
        return bool(self.rows or self._images) and not self.count_publishers("image")

    def flush(self, all_images: bool = False) -> int:
        """Write the images whose detection is there or will not come; how many are left."""
        while self._images and (all_images or self._images[0][0] <= self._newest_detection):
            stamp_ns, image = self._images.popleft()
            row = self._row(stamp_ns)
            label = f"{self._label} {row.score:.2f}" if row.state == "tracking" else row.state
            drawn = draw_box(image, row.box_xywh, label, _COLOURS.get(row.state, WHITE))
            self._video.write(drawn)
            if row.state in _COLOURS:  # a skipped image shows no box
                if self._answered % self._every == 0:
                    self._pictures.append(drawn)
                self._answered += 1
            if len(self._pictures) >= 3 * _PICTURES:  # any length of video, bounded memory
                self._pictures, self._every = self._pictures[::2], 2 * self._every
            self.rows.append(row)
        return len(self._images)

    def pictures(self) -> list[Image]:
        """At most twelve annotated frames, evenly over the video."""
        count = min(_PICTURES, len(self._pictures))
        chosen = np.linspace(0, len(self._pictures) - 1, count).round().astype(int)
        return [self._pictures[index] for index in chosen]

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> None:
        # Reliable and deep: what is recorded must be complete, other than what is tracked.
        self.create_subscription(kind, topic, callback, QoSProfile(depth=100))

    def name_target(self) -> None:
        """Ask the node to follow the target in the newest image, if its box is known there."""
        index = self._received - 1
        box = self._box if index == 0 or self._boxes is None else self._boxes[index]
        if not np.isfinite(box).all():
            return
        x, y, w, h = map(float, box)
        request = InitTarget.Request(header=self._header, label=self._label)
        fill_bbox(request.bbox, (x, y, w, h))
        self.reply = self._init.call_async(request)
        self._tries += 1

    def check_reply(self) -> None:
        """Raise ``ValueError`` if the node refuses the target.

        A busy node may have missed the very image of the box; then the newest one is tried, where
        the target's box is known in all.
        """
        reply = self.reply.result() if self.reply.done() else None
        if reply is None or reply.success:
            return
        missed = reply.code == InitTarget.Response.CODE_STAMP_NOT_BUFFERED
        if not missed or self._boxes is None or self._tries == _TRIES:
            raise ValueError(f"the node refuses the target: {reply.message}")
        self.name_target()

    def _on_image(self, message: ImageMessage) -> None:
        self._header, self._received = message.header, self._received + 1
        self._images.append((stamp_to_ns(message.header.stamp), image_to_array(message)))
        if self.reply is None:
            self.name_target()
        self.flush()

    def _on_detections(self, message: Detection2DArray) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        latency = (self.get_clock().now().nanoseconds - stamp_ns) / 1e9
        self._detections[stamp_ns] = (message.detections, latency)
        self._newest_detection = stamp_ns
        self.flush()

    def _on_status(self, message: TrackStateArray) -> None:
        if message.targets:
            self.processing[stamp_to_ns(message.header.stamp)] = message.processing_time

    def _row(self, stamp_ns: int) -> Row:
        detections, latency = self._detections.pop(stamp_ns, (None, np.nan))
        if detections is None:
            return Row(stamp_ns, "skipped")
        if detections:
            score = detections[0].results[0].hypothesis.score
            box = bbox_to_xywh(detections[0].bbox)
            return Row(stamp_ns, "tracking", box, score, latency)
        answered = self.reply is not None and self.reply.done()
        return Row(stamp_ns, "lost" if answered else "waiting", latency=latency)


class Child:
    """A program of this package in its own process, which ends with the block."""

    def __init__(self, module: str, log: Path, parameters: dict[str, Any]) -> None:
        command = [sys.executable, "-m", f"spmtrack_ros.{module}", "--ros-args"]
        for name, value in parameters.items():
            if isinstance(value, str):  # as YAML: a name may look like a number
                value = "'" + value.replace("'", "''") + "'"
            command += ["-p", f"{name}:={value}"]
        self.name, self.log = module, log
        with log.open("w") as output:
            # Its own group: Ctrl-C comes to this process, which then ends the others in order.
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def check(self) -> None:
        """Raise ``RuntimeError`` with its last words if it has failed."""
        if self._process.poll():
            words = self.log.read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise RuntimeError(f"{self.name} ended with {self._process.returncode}: {words[-1]}")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        for how, patience in ((signal.SIGINT, 10), (signal.SIGTERM, 3), (signal.SIGKILL, 3)):
            if self._process.poll() is not None:
                return
            self._process.send_signal(how)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue


def run(options: argparse.Namespace, ros_arguments: list[str], console: Console) -> int:
    """The whole demo; the exit code.

    Raises ``ValueError``, ``OSError`` or ``RuntimeError`` with one sentence on what went wrong.
    """
    frames, fps, boxes = None, None, None
    if not options.source.isdecimal():  # a camera can be opened by one process only
        sequence = open_frames(options.source, options.max_frames or None)
        frames, fps, boxes = sequence.length, sequence.fps, sequence.boxes_xywh
    box = options.box or (None if boxes is None else boxes[0].tolist())
    if box is None:
        raise ValueError(f"no box is known for {options.source}: give one with --box X Y W H")

    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    interrupted = False
    with ExitStack() as stack:
        children = [] if options.attach else start_children(options, output, stack)
        rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        video = VideoRecorder(output / "tracked.mp4", options.rate or fps or 30.0)
        tracks = None if options.box else boxes  # the source's boxes are of another target
        recorder = Recorder(box, tracks, options.label, stack.enter_context(video))
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
    """The node and the publisher, in a ROS domain of their own unless there is one already."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault(_PROFILES, str(config_file("fastdds_large_images.xml")))
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


def follow(
    recorder: Recorder, children: list[Child], frames: int | None, console: Console
) -> None:
    """Spin until the video is over and its last image has been answered."""

    # As an exception of its own, a signal inside rclpy's C++ code would come out as another one.
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
        if not spin_until(recorder.node_is_there, _STARTUP):
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
    """Write contact sheet and boxes, print the figures."""
    rows = recorder.rows
    written = ["tracked.mp4", "boxes.csv"]
    if pictures := recorder.pictures():
        write_image(output / "contact_sheet.png", contact_sheet(pictures))
        written.insert(1, "contact_sheet.png")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stamp", "frame", "x", "y", "w", "h", "score", "state"])
    for index, row in enumerate(rows):
        numbers = [f"{value:.3f}" for value in (*row.box_xywh, row.score)]
        stamp = f"{row.stamp_ns // 10**9}.{row.stamp_ns % 10**9:09d}"
        writer.writerow([stamp, index, *numbers, row.state])
    write_beside(output / "boxes.csv", lambda beside: beside.write_text(text.getvalue()))

    table = Table(show_header=False)
    counts = {state: sum(row.state == state for row in rows) for state in _COLOURS}
    counts["before the target was known"] = sum(row.state == "waiting" for row in rows)
    counts["skipped for a newer one"] = sum(row.state == "skipped" for row in rows)
    table.add_row("frames", f"{len(rows)}: " + ", ".join(f"{n} {s}" for s, n in counts.items()))
    seen = [row for row in rows if row.state in _COLOURS]
    if seen:
        seconds = (seen[-1].stamp_ns - seen[0].stamp_ns) / 1e9
        if seconds > 0:  # not where all stamps are the same
            table.add_row("tracked per second", f"{(len(seen) - 1) / seconds:.1f}")
        table.add_row("image to detection", percentiles([row.latency for row in seen]))
    if recorder.processing:
        table.add_row("of that in the node", percentiles(list(recorder.processing.values())))
    if boxes is not None and frames == len(rows):
        # The first box was given; a target that is lost while it can be seen counts 0.
        pairs = zip(rows[1:], boxes[1:], strict=True)
        ious = [iou(row, box) for row, box in pairs if row.state in _COLOURS]
        if ious:
            table.add_row("mean IoU", f"{np.nanmean(ious):.3f} over {len(ious)} frames")
    elif boxes is not None:
        table.add_row("mean IoU", f"unknown: {len(rows)} of {frames} frames arrived")
    for name in written:
        table.add_row("written", str(output / name))
    console.print(table)


def iou(row: Row, box_xywh: np.ndarray) -> float:
    """IoU with the true box, 0 where nothing was found, NaN where there is nothing to find."""
    if not np.isfinite(box_xywh).all():
        return np.nan
    if row.state != "tracking":
        return 0.0
    return float(iou_xyxy(xywh_to_xyxy(row.box_xywh), xywh_to_xyxy(box_xywh)))


def percentiles(seconds: Sequence[float]) -> str:
    """Median, 90 % and 99 % in ms."""
    median, most, nearly_all = np.percentile(1000 * np.asarray(seconds), [50, 90, 99])
    return f"{median:.0f} ms median, {most:.0f} ms in 90 %, {nearly_all:.0f} ms in 99 %"


def config_file(name: str) -> Path:
    """A file of the folder config, in the source tree or installed."""
    here = Path(__file__).parents[1] / "config" / name
    if here.is_file():
        return here
    try:
        return Path(get_package_share_directory("spmtrack_ros")) / "config" / name
    except PackageNotFoundError:
        raise FileNotFoundError(f"no config/{name}: is spmtrack_ros built and sourced?") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line; ``ValueError`` for one that makes no sense."""
    parser = _Parser("spmtrack_ros.demo", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("source", nargs="?", default="synthetic", help="video file, folder or camera index")
    add("--box", type=float, nargs=4, metavar=("X", "Y", "W", "H"), help="target in frame 1, px")
    add("--label", default="target", help="what the target is called")
    add("--output", default="demo_output", help="folder for the results")
    add("--weights", default="nano", help="name of bundled weights, or path of a checkpoint")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--rate", type=float, default=0.0, help="frames per second; 0: as the source says")
    add("--max-frames", type=int, default=0, help="end after this many frames; 0: at the end")
    add("--attach", action="store_true", help="use a node and a publisher that run already")
    options = parser.parse_args(arguments)
    if options.box and (not np.isfinite(options.box).all() or min(options.box[2:]) <= 0):
        raise ValueError(f"--box {options.box}: expected finite numbers and a positive size")
    if not 0 <= options.rate <= 1000 or options.max_frames < 0:
        raise ValueError("--rate must be 0 to 1000 and --max-frames not negative")
    return options


def main(args: list[str] | None = None) -> int:
    """Run the demo: 0 when the video is over, 2 on an error, 130 on Ctrl-C or SIGTERM."""
    # SIGTERM is to end the children as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments = sys.argv if args is None else ["demo", *args]
        return run(parse(remove_ros_args(arguments)[1:]), arguments, Console())
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
