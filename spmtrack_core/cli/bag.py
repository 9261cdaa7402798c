"""``spmtrack bag``: follow targets through the images of a ROS bag, without ROS."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spmtrack_core.cli.ending import Ending, begin_to_end
from spmtrack_core.cli.options import Device, Policy, Precision, Runtime, Threads, Trunk, Weights
from spmtrack_core.cli.tracker import ready_tracker
from spmtrack_core.data.bag import Bag, BagImage
from spmtrack_core.data.bag_writer import STORAGES, BagWriter, check_bag_path
from spmtrack_core.data.messages import stamp_text
from spmtrack_core.data.recording import (
    SampledFrames,
    check_image_path,
    contact_sheet,
    write_image,
)
from spmtrack_core.files import check_outputs, write_text
from spmtrack_core.tracking.bag_results import TOPICS, write_results
from spmtrack_core.tracking.followed import draw_targets
from spmtrack_core.tracking.loading import weight_files
from spmtrack_core.tracking.replay import ReplayedImage, Start, newest_only, replay

CONTEXT_SETTINGS = {"ignore_unknown_options": True}  # a box may have negative numbers


def bag(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Bag: a folder of rosbag2, or an .mcap, .db3 or ROS 1 .bag file.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Bag to write: a new folder, or a single .mcap file."),
    ],
    topic: Annotated[
        str | None, typer.Option(help="Topic of the images; needless if only one has images.")
    ] = None,
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="X Y W H", help="Box of the target in its first image, pixels."),
    ] = None,
    point: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="X Y", help="Point on the target instead of --box, as for track."),
    ] = None,
    at: Annotated[
        str,
        typer.Option(
            metavar="IMAGE",
            help="Image of the box: its number from 0, or with a decimal point its stamp in s.",
        ),
    ] = "0",
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=X,Y,W,H[@IMAGE]",
            help="A target with an id, instead of --box; may be repeated.",
        ),
    ] = None,
    label: Annotated[str, typer.Option(help="class_id of the targets.")] = "object",
    frames: Annotated[
        str,
        typer.Option(
            help="all: every image; latest: the newest one whenever the tracker is free, as the "
            "node does."
        ),
    ] = "all",
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Time of one image for --frames latest, s; not given: as measured, which makes "
            "the choice of images differ from run to run."
        ),
    ] = None,
    speed: Annotated[
        float, typer.Option(help="Speed at which the bag is played for --frames latest.")
    ] = 1.0,
    max_frames: Annotated[
        int | None, typer.Option(help="Stop after so many images of the bag.")
    ] = None,
    storage: Annotated[
        str, typer.Option(help=f"Storage of the bag that is written: {', '.join(STORAGES)}.")
    ] = "mcap",
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet to write: twelve images with their boxes.")
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="JSON to write.")] = None,
    weights: Weights = "nano",
    device: Device = "auto",
    precision: Precision = "float32",
    trunk: Trunk = None,
    runtime: Runtime = "torch",
    threads: Threads = 0,
    policy: Policy = "weights",
) -> None:
    """Follow targets through the images of a ROS bag, without ROS.

    Writes a bag with the topics of the node: detection, detections, status and annotations below
    /spmtrack, with the headers of the images. The same bag and box give the same bytes.
    What was tracked is written whatever ends the run.
    """
    starts = _starts(box, point, at, target or [], label)
    if frames not in ("all", "latest"):
        raise ValueError(f"--frames must be all or latest; got {frames!r}")
    for name, value in (("--speed", speed), ("--seconds", seconds)):
        if value is not None and not 0 < value < 1e9:  # the status has a float32
            raise ValueError(f"{name} must be a positive number below 1e9; got {value:g}")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"--max-frames must be at least 1; got {max_frames}")
    check_bag_path(output, storage)
    with Bag(source) as recorded:
        inputs = [*recorded.files, *weight_files(weights, trunk)]
        check_outputs((output, sheet, summary), inputs)
        if sheet:
            check_image_path(sheet)
        topic = recorded.choose_topic(topic)
        stored = recorded.images(topic)
        tracker = ready_tracker(weights, device, precision, trunk, runtime, threads, policy)
        run = _Run(topic=topic, given_seconds=seconds)
        images: Iterable[BagImage] = itertools.islice(run.counted(stored), max_frames)
        if frames == "latest":
            images = newest_only(
                images,
                lambda: run.last_seconds if seconds is None else seconds,
                speed,
                lambda image: any(start.is_due(image) for start in starts),
            )
        count = recorded.image_topics()[topic]
        total = min(count, max_frames or count)
        stamped = [start for start in starts if start.stamp_ns]
        try:
            run.follow(replay(tracker, images, starts), output, storage, total)
            missing = "no image" if run.read_all else "not reached: image"
            run.faults += [f"target {start.id}: {missing} {_shown(start)}" for start in starts]
            run.faults += [
                f"target {start.id} was started in the first image, which is later than its stamp"
                for start in stamped
                if start.stamp_ns < run._stamps[0]
            ]
        finally:
            stored.close()
            run.faults[:0] = recorded.faults
            if run.unreadable:
                first = f"first image {run.first_unreadable}"
                run.faults.append(f"{run.unreadable} images cannot be read, {first}")
            for fault in run.faults:
                typer.echo(f"spmtrack: warning: {fault}", err=True)
    if sheet:
        pictures = run.pictures.frames()
        run.write(sheet, lambda: write_image(sheet, contact_sheet(pictures)))
    if summary:
        content = run.summary() | {"bag": str(source), "frames": frames, "weights": weights}
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        run.write(summary, partial(write_text, summary, text))
    lost = ", ".join(f"{name} lost in {each['lost']}" for name, each in run.targets().items())
    text = f"{run.processed} of {run.read} images processed, {lost}"
    if len(run.seconds) > 1:
        text += f", {1000 * np.median(run.seconds[1:]):.1f} ms an image on {tracker.device}"
    typer.echo(text)
    for path in run.written:
        typer.echo(f"wrote {path}")
    for error in run.errors[1:]:
        typer.echo(f"spmtrack: warning: {error}", err=True)
    if run.errors:
        raise run.errors[0]


def _starts(
    box: tuple[float, float, float, float] | None,
    point: tuple[float, float] | None,
    at: str,
    targets: list[str],
    label: str,
) -> list[Start]:
    if [box is not None, point is not None, bool(targets)].count(True) != 1:
        raise ValueError(
            "give one target with --box X Y W H or --point X Y, or some with --target ID=X,Y,W,H"
        )
    if point is not None:
        return [Start((*point, 0.0, 0.0), "target-1", label, *_image(at), point=True)]
    if box is not None:
        return [Start(box, "target-1", label, *_image(at))]
    starts = []
    for text in targets:
        match = re.fullmatch(r"([^=@]+)=([^@]+)(?:@(.+))?", text)
        try:
            name, numbers, image = match.groups() if match else ("", "", "")
            x, y, w, h = map(float, numbers.split(","))
        except ValueError:
            raise ValueError(
                f"--target must be ID=X,Y,W,H or ID=X,Y,W,H@IMAGE; got {text!r}"
            ) from None
        starts.append(Start((x, y, w, h), name, label, *_image(image or at)))
    for name, count in Counter(start.id for start in starts).items():
        if count > 1:
            raise ValueError(f"--target {name} is given {count} times; ids must differ")
    return starts


def _image(text: str) -> tuple[int, int]:
    """Number and stamp in ns of the image that a box was drawn in; 0 where it does not matter."""
    if re.fullmatch(r"\d+", text):
        return int(text), 0
    if match := re.fullmatch(r"(\d+)\.(\d{0,9})", text):  # a float has too few digits
        return 0, int(match[1]) * 10**9 + int(match[2].ljust(9, "0"))
    raise ValueError(
        f"--at must be the number of an image or a stamp such as 1700000000.25; got {text!r}"
    )


def _shown(start: Start) -> str:
    return f"with the stamp {stamp_text(start.stamp_ns)}" if start.stamp_ns else f"{start.number}"


@dataclass(kw_only=True)
class _Run(Ending):
    """What came of the images up to the end, or to whatever ended it."""

    topic: str
    given_seconds: float | None
    read: int = 0
    read_all: bool = False
    """Whether the bag came to its end."""
    processed: int = 0
    unreadable: int = 0
    first_unreadable: str = ""
    seconds: list[float] = field(default_factory=list)
    """Of each image with a target."""
    last_seconds: float = 0.0
    """Of the image that was processed last."""
    faults: list[str] = field(default_factory=list)
    pictures: SampledFrames = field(default_factory=SampledFrames)
    _targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    _stamps: list[int] = field(default_factory=list)

    def counted(self, images: Iterable[BagImage]) -> Iterator[BagImage]:
        for image in images:
            self.read += 1
            yield image
        self.read_all = True

    def follow(
        self, replayed: Iterator[ReplayedImage], output: Path, storage: str, total: int
    ) -> None:
        """Write the results of each image up to the end, to Ctrl-C or to an error.

        Raises what ended the run, or ``ValueError``, and writes nothing, if no target was started.
        """
        columns = TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        console = Console(stderr=True, soft_wrap=True, markup=False)
        with ExitStack() as stack:
            bar = stack.enter_context(Progress(*columns, console=console))
            bag = BagWriter(output, TOPICS, storage)
            stack.callback(bag.discard)  # leaves a bag that is complete
            task = bar.add_task("", total=total)
            try:
                for done in replayed:
                    write_results(bag, done, self.given_seconds or 0.0)
                    self.add(done)
                    bar.update(task, completed=self.read)
            except KeyboardInterrupt:
                bar.console.print("stopped; what was tracked so far is written")
            except Exception as error:  # of any kind: it is raised when all is written
                if not self._targets:
                    raise
                self.errors.append(error)
                bar.console.print(f"stopped at image {self.read - 1}")
            begin_to_end()
            if not self._targets:
                text = f"no target was started: {self.topic} has {self.read} images"
                if self._stamps:
                    text += f", the last with the stamp {stamp_text(self._stamps[-1])}"
                raise ValueError(text)
            if not bag.failed:
                self.write(output, bag.close)

    def add(self, done: ReplayedImage) -> None:
        self.processed += 1
        self._stamps = [*self._stamps[:1], done.frame.stamp_ns]
        if done.error:
            self.unreadable += 1
            self.first_unreadable = self.first_unreadable or f"{done.frame.number}: {done.error}"
        self.last_seconds = done.seconds
        self.faults += done.failed
        if not done.targets:
            return
        self.seconds.append(done.seconds)
        if done.image is not None:
            keeps = self.pictures.keeps_next
            self.pictures.add(draw_targets(done.image, done.targets) if keeps else done.image)
        for target in done.targets:
            about = self._targets.setdefault(
                target.id,
                {
                    "label": target.label,
                    "first_stamp_ns": target.first_ns,
                    "first_box_xywh": target.box_xywh,
                    "images": 0,
                    "lost": 0,
                    "losses": 0,
                    "mean_confidence": 0.0,
                },
            )
            about["images"] += 1
            about["lost"] += not target.visible
            about["losses"] += target.frames_lost == 1
            about["mean_confidence"] += target.score
            about["last_box_xywh"], about["last_state"] = target.box_xywh, target.state.name

    def targets(self) -> dict[str, dict[str, Any]]:
        """What came of every target, by id."""
        return {
            name: about | {"mean_confidence": about["mean_confidence"] / about["images"]}
            for name, about in self._targets.items()
        }

    def summary(self) -> dict[str, Any]:
        """The run in numbers, to be written as JSON."""
        return {
            "topic": self.topic,
            "images_read": self.read,
            "images_processed": self.processed,
            "images_unreadable": self.unreadable,
            "first_and_last_stamp_ns": self._stamps,
            "median_seconds": float(np.median(self.seconds)) if self.seconds else None,
            "faults": [*self.faults, *map(str, self.errors)],
            "targets": self.targets(),
        }
