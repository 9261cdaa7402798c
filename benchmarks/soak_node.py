"""Keeps the node busy for minutes or hours, and checks answers, states and memory.

python benchmarks/soak_node.py --minutes 60

Each round adds, replaces and removes targets, changes parameters, switches tracking off and on,
and takes the camera away. Exit code 2 if an answer is lost, a state is wrong or memory grows.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from robot import Robot, after, grid, init_request, robot
from soak import resident_bytes
from spmtrack_core.cli import run_command
from spmtrack_core.cli.options import Device, Weights
from spmtrack_core.data.scene import scene
from spmtrack_ros.msg import TrackState
from spmtrack_ros.srv import RemoveTarget, SetPrimary

SIZE_WH = (640, 480)
_PATIENCE = 20.0  # s
_BETWEEN = 0.1  # s between two requests


def soak_node(
    minutes: Annotated[float, typer.Option(help="Duration.", min=0.1)] = 60.0,
    targets: Annotated[int, typer.Option(help="Targets, 1 to 8.")] = 4,
    rate: Annotated[float, typer.Option(help="Images a second of the camera.", min=1)] = 15.0,
    weights: Weights = "nano",
    device: Device = "auto",
    allowed_mib: Annotated[
        float, typer.Option(help="Allowed growth after the first tenth, MiB.")
    ] = 32.0,
) -> None:
    """Keep the node busy; exit code 2 if an answer is lost, a state is wrong or memory grows."""
    boxes = grid(targets, SIZE_WH)
    parameters = {
        "weights": weights,
        "device": device,
        "image_timeout": 0.5,
        "image_reliability": "reliable",
        "lost_threshold": 0.0,  # the boxes lie anywhere: only the camera's absence loses them
    }
    chance, settled, rounds, answers, printed = random.Random(0), 0, 0, 0, 0
    with robot(**parameters) as client:
        client.show(next(iter(scene())), SIZE_WH)
        client.restart(boxes)
        started = time.monotonic()
        while (part := (time.monotonic() - started) / (60 * minutes)) < 1 or rounds < 2:
            answers += play_round(client, rate, list(requests(boxes, chance)))
            rounds += 1
            memory = resident_bytes(client.pid)
            if part >= 0.1 or not settled:
                settled = settled or memory
            if int(10 * part) >= printed:
                printed = int(10 * part) + 1
                typer.echo(f"{rounds:,} rounds, {answers:,} answers: {memory / 2**20:.1f} MiB")
        errors = client.diagnostics["errors"]
    if errors != "0":
        raise ValueError(f"the node reported {errors} errors")
    growth = (memory - settled) / 2**20
    if growth > allowed_mib:
        raise ValueError(f"memory grew by {growth:.1f} MiB after the first tenth")
    typer.echo(f"{rounds:,} rounds, {answers:,} answers, memory flat: {growth:+.1f} MiB")


def requests(
    boxes: list[tuple[float, float, float, float]], chance: random.Random
) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and request of each call of a round; at its end, all targets are followed."""
    ids = [f"t{index}" for index in range(len(boxes))]
    found: list[tuple[str, Any, Any]] = []
    for name in ids:
        found.append(("set_primary", SetPrimary, SetPrimary.Request(id=name)))
        found.append(("remove_target", RemoveTarget, RemoveTarget.Request(id=name)))
    for key, value in (
        ("label", "cup"),
        ("confidence_weight", chance.uniform(0.1, 1)),
        ("max_targets", 0),  # rejected
        ("weights", "other"),  # rejected: not live
    ):
        message = Parameter(key, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[message])
        found.append(("set_parameters", SetParameters, request))
    found += [init_request(*pair) for pair in zip(ids, boxes, strict=True)]
    chance.shuffle(found)
    yield from found
    for enabled in (False, True):
        yield "enable", SetBool, SetBool.Request(data=enabled)
    yield from (init_request(*pair) for pair in zip(ids, boxes, strict=True))


def play_round(client: Robot, rate: float, calls: list[tuple[str, Any, Any]]) -> int:
    """Make these calls while images arrive, then take the camera away; return the answers.

    Raises ``RuntimeError`` for a lost answer or a wrong state.
    """
    answers = []
    for name, kind, request in calls:
        answers.append((name, client.ask(kind, name, request)))
        client.send_at(rate, after(_BETWEEN))
    late = after(_PATIENCE)
    client.send_at(rate, lambda: late() or all(answer.done() for _, answer in answers))
    if lost := [name for name, answer in answers if not answer.done()]:
        raise RuntimeError(f"no answer of {', '.join(lost)} within {_PATIENCE:g} s")

    def states() -> set[int]:
        return {each.state for each in client.status.targets}

    if not client.until(lambda: states() == {TrackState.LOST}, _PATIENCE):
        raise RuntimeError("the targets are not LOST although no image arrives")
    late = after(_PATIENCE)
    client.send_at(rate, lambda: late() or TrackState.LOST not in states())
    if TrackState.LOST in states():
        raise RuntimeError("targets are LOST although the camera is back")
    return len(answers)


if __name__ == "__main__":
    run_command(lambda: typer.run(soak_node))
