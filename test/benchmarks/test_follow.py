"""The simulation of following: its parts, and the loop closed with the real nodes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent: no ROS 2 here")
pytest.importorskip("spmtrack_ros.msg", reason="the interfaces are absent: build them with colcon")

from world import why_not

if problem := why_not():
    pytest.skip(problem, allow_module_level=True)

from follow import DISTANCE, TOLERANCE, Options, follow, report
from scenarios import SCENARIOS, Walk
from world import CAMERA_FORWARD, CAMERA_HEIGHT, FOCAL, World

pytestmark = pytest.mark.ros
FOLLOW = Path(__file__).parents[2] / "benchmarks" / "follow.py"


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


def test_a_walk_goes_straight_and_around():
    walk = Walk((1.0, 0.0, 0.0), [(2.0, 0.5, 0.0), (np.pi, 0.5, 0.5)])
    assert walk.at(2.0) == pytest.approx((2.0, 0.0, 0.0))
    assert walk.at(99.0) == pytest.approx((3.0, 1.0, np.pi / 2), abs=0.02)


def test_the_robot_drives_as_commanded(world):
    for _ in range(40):
        world.step(0.05, 0.5, 0.0)
    assert world.robot == pytest.approx((1.0, 0.0, 0.0), abs=0.08)
    before = world.robot[2]
    for _ in range(40):
        world.step(0.05, 0.0, 0.5)
    assert world.robot[2] - before == pytest.approx(1.0, abs=0.25)  # tires slip


def test_the_true_box_is_where_the_target_is_seen(world):
    empty = world.image().astype(int)
    world.move("target", 3.0, 0.4, 0.7)
    seen = np.abs(world.image().astype(int) - empty).sum(axis=2) > 30
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    truth = world.truth()
    x, y, w, h = truth.box_xywh
    measured = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert measured == pytest.approx((x, y, x + w, y + h), abs=12)  # the head is round
    assert truth.in_view and truth.distance == pytest.approx(np.hypot(3.0, 0.4))
    world.move("target", -3.0, 0.0, 0.0)
    assert not world.truth().in_view


def test_the_depth_is_that_of_the_image(world):
    world.move("target", 3.0, 0.0, 0.0)
    depth = world.depth()
    assert depth[60, 80] == pytest.approx(3.0 - 0.10 - CAMERA_FORWARD, abs=0.02)  # the legs
    # a ray half the height below the middle meets the ground
    row = 110
    slope = (row + 0.5 - 60) * 4 / FOCAL
    pitch = np.arctan(slope) + 0.05
    assert depth[row, 10] == pytest.approx(
        CAMERA_HEIGHT / np.sin(pitch) * np.cos(np.arctan(slope)), rel=0.02
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scenario", "swim"], "invalid choice: 'swim'"),
        (["--rate", "0"], "expected 1 to 50"),
        (["--latency", "nan"], "expected 1 to 50 and 0 to 1"),
    ],
)
def test_wrong_options_take_one_line_and_code_2(arguments, words):
    done = subprocess.run(
        [sys.executable, str(FOLLOW), *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr


@pytest.mark.slow
def test_it_follows_a_walk_with_a_latency_of_200_ms(tmp_path):
    """150 ms on top of the 50 ms of camera and tracker, at 10 images per second."""
    options = Options(scenario="walk", latency=0.2, rate=10.0)
    rows, samples, figures = follow(options, tmp_path)
    assert figures.in_view >= 0.95, figures
    assert figures.at_distance >= 0.95, figures
    assert figures.ids == 1 and figures.losses == 0, figures
    report(rows, samples, options, tmp_path)
    for name in ("follow.mp4", "follow.png", "contact_sheet.png"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.slow
def test_after_an_occlusion_of_a_second_it_is_found_with_the_same_id(tmp_path):
    _, _, figures = follow(Options(scenario="occlusion"), tmp_path)
    assert figures.losses >= 1, figures  # else the board hid nothing
    assert figures.ids == 1 and figures.found_after < 3.0, figures
    assert figures.lost_to_zero <= 0.2, figures
    assert figures.in_view >= 0.95 and figures.at_distance_undisturbed >= 0.95, figures


@pytest.mark.slow
def test_a_target_that_vanishes_stops_the_robot(tmp_path):
    rows, samples, figures = follow(Options(scenario="vanish"), tmp_path)
    vanished = SCENARIOS["vanish"].vanishes
    before = [each for each in samples if 5.0 < each.time < vanished]
    assert min(each.forward for each in before) > 0.2  # it drove
    assert abs(before[-1].truth.distance - DISTANCE) < 2 * TOLERANCE * DISTANCE
    assert rows[-1].state == "lost" and figures.lost_to_zero <= 0.2, figures
    lost = next(row.time for row in rows if row.state == "lost")
    assert lost >= vanished
    late = [each for each in samples if each.time > lost + 0.3]
    assert late and all((each.forward, each.turn) == (0.0, 0.0) for each in late)
