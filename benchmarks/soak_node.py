"""Keeps the node busy for minutes or hours, and checks answers, states and memory.

python benchmarks/soak_node.py --minutes 60

Each round adds, replaces and removes targets, changes parameters, switches tracking off and on,
makes a storm of calls, changes the size of the images, deactivates and activates the node, and
takes the camera away. Exit code 2 if an answer is lost, a state is wrong or memory grows.
"""

from __future__ import annotations

import random
import time
from statistics import fmean
from typing import Annotated, Any

import typer
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from robot import Robot, after, grid, init_request, robot
from soak import resident_bytes
from spmtrack_core.cli import run_command
from spmtrack_core.cli.options import Device, Weights
from spmtrack_core.data.scene import scene
from spmtrack_core.tracking.followed import State
from spmtrack_ros.srv import RemoveTarget, SetPrimary

SIZE_WH = (640, 480)
OTHER_SIZES_WH = ((320, 240), (1280, 960))
OTHER_ASPECT_WH = (640, 360)
STORM = 200  # calls
LOST = frozenset({State.LOST})
SEEN = frozenset({State.TRACKING, State.UNCERTAIN})
_PATIENCE = 180.0  # s; on a busy machine answers are late, which is no fault
_BETWEEN = 0.1  # s between two requests

Call = tuple[str, Any, Any]
"""Name of a service, its type, the request."""
Box = tuple[float, float, float, float]


def soak_node(
    minutes: Annotated[float, typer.Option(help="Duration.", min=0.1)] = 60.0,
    targets: Annotated[int, typer.Option(help="Targets, 1 to 8.")] = 4,
    rate: Annotated[float, typer.Option(help="Images a second of the camera.", min=1)] = 15.0,
    weights: Weights = "nano",
    device: Device = "auto",
    allowed_mib: Annotated[
        float, typer.Option(help="Allowed growth from the first half to the second, MiB.")
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
        "init_timeout": 60.0,  # an answer may be late on a busy machine, but must be a success
    }
    chance, rounds, answers, printed = random.Random(0), 0, 0, 0
    readings: list[int] = []
    image = next(iter(scene()))
    with robot(**parameters) as client:
        client.show(image, SIZE_WH)
        client.restart(boxes)
        started = time.monotonic()
        while (part := (time.monotonic() - started) / (60 * minutes)) < 1 or rounds < 2:
            answers += call_all(client, rate, requests(boxes, chance), ends_well=False)
            for enabled in (False, True):
                client.call(SetBool, "enable", SetBool.Request(data=enabled))
            answers += call_all(client, rate, starts(boxes))
            take_camera_away(client, rate)
            answers += call_all(client, rate, storm(boxes, chance), between=0.0)
            for size_wh in (chance.choice(OTHER_SIZES_WH), OTHER_ASPECT_WH, SIZE_WH):
                client.show(image, size_wh)
                await_states(client, rate, LOST if size_wh == OTHER_ASPECT_WH else SEEN)
            answers += call_all(client, rate, transitions())
            client.restart(boxes)
            rounds += 1
            readings.append(resident_bytes(client.pid))
            if int(10 * part) >= printed:
                printed = int(10 * part) + 1
                memory = readings[-1] / 2**20
                typer.echo(f"{rounds:,} rounds, {answers:,} answers: {memory:.1f} MiB")
        client.until(lambda: "errors" in client.diagnostics, _PATIENCE)  # absent while inactive
        errors = client.diagnostics["errors"]
    if errors != "0":
        raise ValueError(f"the node reported {errors} errors")
    growth = growth_mib(readings)
    if growth > allowed_mib:
        raise ValueError(f"memory grew by {growth:.1f} MiB from the first half to the second")
    typer.echo(f"{rounds:,} rounds, {answers:,} answers, memory flat: {growth:+.1f} MiB")


def growth_mib(readings: list[int]) -> float:
    """Growth from the first half of the rounds to the second, without the first tenth.

    ``readings`` are the bytes after each round, at least two. They go up and down by tens of MiB,
    as images are buffered and freed, so the means of the halves are compared.
    """
    settled = readings[len(readings) // 10 :]
    half = len(settled) // 2
    return (fmean(settled[half:]) - fmean(settled[:half])) / 2**20


def requests(boxes: list[Box], chance: random.Random) -> list[Call]:
    """Calls of all kinds in any order."""
    ids = [f"t{index}" for index in range(len(boxes))]
    found: list[Call] = []
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
    found += starts(boxes)
    chance.shuffle(found)
    return found


def starts(boxes: list[Box]) -> list[Call]:
    """The calls that start all targets."""
    return [init_request(f"t{index}", box) for index, box in enumerate(boxes)]


def storm(boxes: list[Box], chance: random.Random) -> list[Call]:
    """Many calls at once, which change no more than the primary target."""
    found: list[Call] = []
    for _ in range(STORM - 2 * len(boxes)):
        name = f"t{chance.randrange(len(boxes))}"
        found.append(("set_primary", SetPrimary, SetPrimary.Request(id=name)))
        found.append(("remove_target", RemoveTarget, RemoveTarget.Request(id="nobody")))
    return [*chance.sample(found, STORM - 2 * len(boxes)), *starts(boxes), *starts(boxes)]


def transitions() -> list[Call]:
    """Out of the active state and back."""
    numbers = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE)
    return [
        ("change_state", ChangeState, ChangeState.Request(transition=Transition(id=number)))
        for number in numbers
    ]


def call_all(
    client: Robot,
    rate: float,
    calls: list[Call],
    between: float = _BETWEEN,
    ends_well: bool = True,
) -> int:
    """Make these calls while images arrive; return the number of answers.

    ``between`` is the time in s between two calls. Raises ``RuntimeError`` for a lost answer, and
    if the last one is no success although it ``ends_well``.
    """
    answers = []
    for name, kind, request in calls:
        answers.append((name, client.ask(kind, name, request)))
        if between:
            client.send_at(rate, after(between))
    late = after(_PATIENCE)
    client.send_at(rate, lambda: late() or all(answer.done() for _, answer in answers))
    if lost := [name for name, answer in answers if not answer.done()]:
        raise RuntimeError(f"no answer of {', '.join(lost)} within {_PATIENCE:g} s")
    name, last = answers[-1][0], answers[-1][1].result()
    if ends_well and not last.success:
        raise RuntimeError(f"the last call, {name}, failed: {last}")
    return len(answers)


def states(client: Robot) -> set[State]:
    """Those of the targets in the newest status."""
    return {State(each.state) for each in client.status.targets}


def await_states(client: Robot, rate: float, expected: frozenset[State]) -> None:
    """Send images until all targets are in one of these states; else ``RuntimeError``."""
    late = after(_PATIENCE)
    client.send_at(rate, lambda: late() or states(client) <= expected)
    check_states(client, expected)


def check_states(client: Robot, expected: frozenset[State]) -> None:
    """Raise ``RuntimeError`` unless there are targets, all in one of these states."""
    if not states(client) or states(client) - expected:
        found, right = (
            " and ".join(sorted(each.name for each in them)) or "none"
            for them in (states(client), expected)
        )
        raise RuntimeError(f"the states of the targets are {found}, expected {right}")


def take_camera_away(client: Robot, rate: float) -> None:
    """No image for a while; raises ``RuntimeError`` for a wrong state in it or after it."""
    client.until(lambda: states(client) == LOST, _PATIENCE)
    check_states(client, LOST)
    await_states(client, rate, SEEN)


if __name__ == "__main__":
    run_command(lambda: typer.run(soak_node))
