"""A simulated robot follows a person with the real nodes: make follow

    python benchmarks/follow.py [--scenario full] [--ranges depth] [--latency 0.05] [--rate 10]

Four processes over DDS, as on a robot: `spmtrack` with the bundled weights, `target_pose`,
`visual_servo`, and this one with the physics of MuJoCo, which draws the box of the target into the
first image, calls ~/init_target and ~/enable and does nothing else. Writes a video, a contact
sheet, a plot and the figures to --output.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions

from scenarios import SCENARIOS
from simulator import Row, Sample, Simulator
from spmtrack_core.data.recording import VideoRecorder, contact_sheet, write_image
from spmtrack_core.files import write_beside, write_text
from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy
from spmtrack_core.geometry.drawing import GREEN, ORANGE, WHITE, draw_box
from spmtrack_ros.demo import Child, set_environment
from spmtrack_ros.program import Parser
from world import CAMERA_FORWARD, CAMERA_HEIGHT, CAMERA_PITCH, PERSON, World, why_not

DISTANCE = 2.2  # m to keep
TOLERANCE = 0.15  # of it
SETTLED = 6.0  # s after which the robot has come up to the target
AFTER_LOSS = 3.0  # s in which the robot may catch up after a loss
_STARTUP = 120.0
_SHEET = 12
_COLORS = {"tracking": GREEN, "uncertain": ORANGE, "lost": ORANGE, "waiting": WHITE}


@dataclass(frozen=True)
class Options:
    """What a run depends on."""

    scenario: str = "full"
    ranges: str = "depth"
    rate: float = 10.0
    latency: float = 0.05
    weights: str = "nano"
    recovery: str = "scan"
    compensate: bool = True
    odometry: bool = True
    heading_gain: float = 1.5


@dataclass(frozen=True)
class Figures:
    """What a run has shown."""

    seconds: float
    images: int
    in_view: float
    """Part of the images in which the middle of the target is in the image."""
    at_distance: float
    """Part of the time after the start within 15 % of the distance wanted."""
    at_distance_undisturbed: float
    """The same without the times in which the target is lost, and 3 s after them."""
    distance_error_p95: float
    """m"""
    heading_error_p95: float
    """rad"""
    position_error_median: float
    """m, of the published pose"""
    normalized_error_median: float
    """By the published covariance: 1.4 if that is honest, since half of chi-square with 2 degrees
    of freedom is below."""
    box_jitter: float
    """px, standard deviation of a side of the box from one image to the next"""
    losses: int
    lost_to_zero: float
    """s of simulated time, the longest; 0 without a loss"""
    found_after: float
    """s, the longest time from a loss to the return; NaN without one"""
    ids: int
    """How many ids the target has had."""
    iou: float
    """Mean with the true box over the images in which the target is tracked."""
    processing_ms: float
    """Median of real time in the tracker."""
    missed_commands: int


def follow(
    options: Options, output: Path, progress: Any = None
) -> tuple[list[Row], list[Sample], Figures]:
    """Run a scenario with the nodes in processes of their own.

    Raises ``RuntimeError`` with one sentence if a node does not start or ends.
    """
    if problem := why_not():
        raise RuntimeError(problem)
    output.mkdir(parents=True, exist_ok=True)
    scenario = SCENARIOS[options.scenario]
    set_environment()
    simulated = {"use_sim_time": True}
    tracker = {
        "weights": options.weights,
        "device": "cpu",
        "recovery": options.recovery,
        "image_reliability": "reliable",
        "image_timeout": 30.0,  # of real time, which is not that of the simulation
        "init_timeout": 30.0,
    }
    pose = {
        "ranges": options.ranges.split(","),
        "depth_tolerance": 0.01,
        "target_height": PERSON[2] + 0.15,
        "target_depth": PERSON[1],
        "camera_height": CAMERA_HEIGHT,
        "camera_pitch": CAMERA_PITCH,
    }
    servo = {
        "distance": DISTANCE,
        "max_speed": 1.0,
        "max_acceleration": 1.0,
        "max_turn": 1.2,
        "max_turn_acceleration": 3.0,
        "reverse": True,
        "camera_forward": CAMERA_FORWARD,
        "camera_pitch": CAMERA_PITCH,
        "actuation_delay": 0.1,
        "latency_compensation": options.compensate,
        "heading_gain": options.heading_gain,
    }
    box = [("detection", "spmtrack/detection"), ("status", "spmtrack/status")]
    chain = [*box, ("pose", "target_pose/pose_with_covariance")]
    nodes: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
        ("tracker_node", tracker, []),
        ("target_pose", pose, box),
        ("visual_servo", servo, chain),
    ]
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                Child(name, output / f"{name}.log", {**values, **simulated}, renamed)
            )
            for name, values, renamed in nodes
        ]
        world = World(scenario.robot)
        stack.callback(world.close)
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        simulator = Simulator(world, scenario, options.rate, options.latency, options.odometry)
        stack.callback(simulator.destroy_node)

        def check() -> None:
            for child in children:
                child.check()

        simulator.connect(check, "depth" in options.ranges, _STARTUP)
        simulator.run(check, progress or (lambda time: None))
    return simulator.rows, simulator.samples, measure(simulator)


def measure(run: Simulator) -> Figures:
    """The figures of a run."""
    rows, samples = run.rows, run.samples
    losses = sum(now.state == "lost" != before.state for before, now in pairwise(rows))
    settled = [each for each in samples if each.time >= SETTLED]
    near = np.array([abs(each.truth.distance - DISTANCE) for each in settled] or [np.nan])
    disturbed, until = [], -1.0
    for each in settled:
        if each.state == "lost":
            until = each.time + AFTER_LOSS
        disturbed.append(each.time < until)
    calm = near[~np.array(disturbed or [False])]
    tracked = [row for row in rows if row.box_xywh is not None and row.truth.in_view]
    pairs = np.array([(row.box_xywh, row.truth.box_xywh) for row in tracked]).reshape(-1, 2, 4)
    ious = iou_xyxy(*xywh_to_xyxy(pairs).swapaxes(0, 1))
    times = [row.processing for row in rows if row.processing > 0]
    errors = [row.position_error for row in rows if np.isfinite(row.position_error)]
    normalized = [row.normalized_error for row in rows if np.isfinite(row.normalized_error)]
    allowed = TOLERANCE * DISTANCE
    return Figures(
        seconds=run.time,
        images=len(rows),
        in_view=float(np.mean([row.truth.in_view for row in rows])),
        at_distance=float(np.mean(near <= allowed)),
        at_distance_undisturbed=float(np.mean(calm <= allowed)) if len(calm) else 0.0,
        distance_error_p95=float(np.percentile(near, 95)),
        heading_error_p95=float(
            np.percentile([abs(s.truth.heading) for s in settled or samples], 95)
        ),
        position_error_median=float(np.median(errors)) if errors else float("nan"),
        normalized_error_median=float(np.median(normalized)) if normalized else float("nan"),
        box_jitter=_jitter(tracked),
        losses=losses,
        lost_to_zero=max(run.lost_to_zero, default=0.0),
        found_after=_longest_loss(rows),
        ids=len({row.id for row in rows if row.id}),
        iou=float(ious.mean()) if tracked else 0.0,
        processing_ms=1000 * float(np.median(times)) if times else float("nan"),
        missed_commands=run.missed_commands,
    )


def _longest_loss(rows: Sequence[Row]) -> float:
    longest, since = float("nan"), None
    for row in rows:
        if row.state == "lost" and since is None:
            since = row.time
        elif row.state != "lost" and since is not None:
            longest, since = float(np.nanmax((longest, row.time - since))), None
    return longest


def _jitter(rows: Sequence[Row]) -> float:
    """Of the sides, against the true box, so that motion does not count."""
    off = np.array([np.subtract(row.box_xywh or np.nan, row.truth.box_xywh) for row in rows])
    if len(off) < 3:
        return float("nan")
    sides = np.concatenate((off[:, :2], off[:, :2] + off[:, 2:]), axis=1)
    return float(np.sqrt(np.mean(np.diff(sides, axis=0) ** 2) / 2))


def draw(row: Row, command: tuple[float, float]) -> np.ndarray:
    """The image with the box and what goes on."""
    text = f"{row.time:4.1f} s  {row.state}  {row.truth.distance:.2f} m"
    text += f"  {command[0]:+.2f} m/s {command[1]:+.2f} rad/s"
    return draw_box(row.image, row.box_xywh, text, _COLORS[row.state])


def report(rows: list[Row], samples: list[Sample], options: Options, output: Path) -> None:
    """Write video, contact sheet and plot."""
    commands = {round(each.time, 2): (each.forward, each.turn) for each in samples}
    pictures = [draw(row, commands.get(round(row.time, 2), (0.0, 0.0))) for row in rows]
    with VideoRecorder(output / "follow.mp4", options.rate) as video:
        for picture in pictures:
            video.write(picture)
    chosen = np.linspace(0, len(pictures) - 1, min(_SHEET, len(pictures))).round().astype(int)
    write_image(output / "contact_sheet.png", contact_sheet([pictures[i] for i in chosen]))
    write_beside(output / "follow.png", lambda path: plot(rows, samples, options, path))


def plot(rows: list[Row], samples: list[Sample], options: Options, path: Path) -> None:
    """Distance, direction, commands and times over the run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    time = [each.time for each in samples]
    figure, axes = pyplot.subplots(4, 1, figsize=(10, 9), sharex=True, layout="constrained")
    axes[0].axhspan(DISTANCE * (1 - TOLERANCE), DISTANCE * (1 + TOLERANCE), color="0.9")
    axes[0].plot(time, [each.truth.distance for each in samples])
    axes[0].set_ylabel("distance / m")
    axes[1].plot(time, np.degrees([each.truth.heading for each in samples]))
    axes[1].set_ylabel("heading error / °")
    axes[2].plot(time, [each.forward for each in samples], label="forward / m/s")
    axes[2].plot(time, [each.turn for each in samples], label="turn / rad/s")
    axes[2].legend(loc="upper right")
    axes[2].set_ylabel("command")
    axes[3].plot([row.time for row in rows], [1000 * row.processing for row in rows], ".")
    axes[3].axhline(1000 * options.latency, color="0.6")
    axes[3].set_ylabel("tracker / ms (real time)\nline: simulated latency")
    axes[3].set_xlabel("simulated time / s")
    for axis in axes:
        for row in rows:
            if row.state in ("lost", "uncertain"):
                color = "tab:red" if row.state == "lost" else "tab:orange"
                axis.axvspan(row.time, row.time + 1 / options.rate, color=color, alpha=0.2, lw=0)
    figure.suptitle(f"{options.scenario}: red LOST, orange UNCERTAIN; gray: {TOLERANCE:.0%}")
    figure.savefig(path, format="png", dpi=100)
    pyplot.close(figure)


def _plain(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return None if not np.isfinite(value) else round(value, 4)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; raise ``ValueError`` for wrong options."""
    parser = Parser("follow", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--scenario", choices=SCENARIOS, default="full", help="who walks where")
    add("--ranges", default="depth", help="source of the range: depth, size or ground")
    add("--rate", type=float, default=10.0, help="images per second, 1 to 50")
    add("--latency", type=float, default=0.05, help="s from an image's stamp to its publication")
    add("--weights", default="nano", help="name of bundled weights, or path of a checkpoint")
    add("--recovery", choices=("none", "scan"), default="scan", help="search for a lost target")
    add("--no-compensation", action="store_true", help="without compensation of the latency")
    add("--no-odometry", action="store_true", help="own motion by the commands alone")
    add("--heading-gain", type=float, default=1.5, help="of visual_servo, rad/s for each rad")
    add("--output", type=Path, default=Path("follow_output"), help="folder for the results")
    options = parser.parse_args(arguments)
    if not 1 <= options.rate <= 50 or not 0 <= options.latency <= 1:
        raise ValueError(
            f"--rate {options.rate:g} --latency {options.latency:g}: expected 1 to 50 and 0 to 1"
        )
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the simulation: 0 when it is over, 2 on an error, 130 on Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        given = parse(arguments)
        options = Options(
            given.scenario,
            given.ranges,
            given.rate,
            given.latency,
            given.weights,
            given.recovery,
            not given.no_compensation,
            not given.no_odometry,
            given.heading_gain,
        )

        def progress(time: float) -> None:
            if sys.stderr.isatty():
                print(f"\r{time:5.1f} s simulated", end="", file=sys.stderr, flush=True)

        rows, samples, figures = follow(options, given.output, progress)
        report(rows, samples, options, given.output)
        found = {name: _plain(value) for name, value in asdict(figures).items()}
        text = json.dumps({"options": asdict(options), "figures": found}, indent=2)
        write_text(given.output / "figures.json", text + "\n")
        print(text)
        print(
            f"written to {given.output}: follow.mp4, contact_sheet.png, follow.png, figures.json"
        )
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"follow: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
