"""From a box to a position: rays, ranges and their uncertainty. Free of ROS.

Everything is in m and rad, in the camera's optical frame (x right, y down, z forward) unless a
function says otherwise. Every range is measured along the ray to the center of the box.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

CENTRAL = 0.6  # of the box's width and height, in which depth and points are read
_MIN_POINTS = 3  # for a surface; of a depth image 12, since single pixels at edges are mixtures
_MIN_PIXELS = 12
_MAX_PIXELS = 4000  # read of a box; more change nothing
_GAP = 0.1, 0.05  # m, and part of the depth: a larger step separates two surfaces
_MIN_ACROSS = 0.1  # of a unit ray; less of it in a plane gives no distance along that plane
_HORIZON = 0.02  # rad below the horizon from which on a ray reaches the ground soon enough
_SIDE = 2**0.5  # deviation of a side by that of the center, which is the mean of two sides
_BORDER = 2.0  # of the box's jitter: a box that is closer to the image's border may be cut by it


@dataclass(frozen=True)
class Range:
    """A measured distance."""

    distance: float
    """m along the ray to the center of the box."""
    deviation: float
    """Its standard deviation in m."""


@dataclass(frozen=True)
class View:
    """The box as unit rays (3,): to its center and to the middle of each side."""

    center: np.ndarray
    left: np.ndarray
    right: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    jitter: float
    """Standard deviation in rad of the direction to the center."""
    cut: Collection[str] = ()
    """The sides at which the border of the image cuts the target."""

    def size(self, distance: float) -> tuple[float, float]:
        """Width and height in m of a flat target at this ``distance`` that faces the camera."""
        depth = distance * self.center[2]
        width = np.linalg.norm(_slope(self.right) - _slope(self.left))
        height = np.linalg.norm(_slope(self.bottom) - _slope(self.top))
        return depth * float(width), depth * float(height)


def view_box(
    ray: Callable[[tuple[float, float]], tuple[float, float, float]],
    box_xywh: tuple[float, float, float, float],
    image_hw: tuple[int, int],
    jitter_px: float,
) -> View:
    """The view of a box in px; ``ray`` is the direction of a pixel.

    ``jitter_px`` is the standard deviation of the center.
    Raises ``ValueError`` for a box without area, and as ``ray`` does.
    """
    x, y, w, h = box_xywh
    if not (np.isfinite(box_xywh).all() and min(w, h) > 0):
        raise ValueError(f"box is {list(box_xywh)}: expected finite numbers and a positive size")
    height, width = image_hw
    inside = {
        "left": x,
        "top": y,
        "right": width - x - w,
        "bottom": height - y - h,
    }
    points = {
        "center": (x + w / 2, y + h / 2),
        "left": (x, y + h / 2),
        "right": (x + w, y + h / 2),
        "top": (x + w / 2, y),
        "bottom": (x + w / 2, y + h),
    }
    rays = {name: np.array(ray(point)) for name, point in points.items()}
    # of one px, the larger one: to the left and right of the axis that is up and down
    angle = max(
        np.linalg.norm(rays["right"] - rays["left"]) / w,
        np.linalg.norm(rays["bottom"] - rays["top"]) / h,
    )
    cut = [side for side, distance in inside.items() if distance < _BORDER * jitter_px]
    return View(**rays, jitter=float(angle) * jitter_px, cut=cut)


def view_bearing(ray: tuple[float, float, float], half_angle: float, jitter: float) -> View:
    """The view of a direction alone, as of a square that is ``half_angle`` rad to each side.

    Raises ``ValueError`` for a ray without length or one that does not look forward.
    """
    center = np.array(ray, np.float64)
    length = np.linalg.norm(center)
    if not (np.isfinite(length) and length > 0 and center[2] > 0):
        raise ValueError(f"bearing is {center.tolist()}: expected a ray with positive z")
    center /= length
    right = np.cross((0.0, 1.0, 0.0), center)
    right /= np.linalg.norm(right)
    down = np.cross(center, right)
    step = np.tan(half_angle)
    sides = {"left": -right, "right": right, "top": -down, "bottom": down}
    rays = {name: center + step * side for name, side in sides.items()}
    rays = {name: each / np.linalg.norm(each) for name, each in rays.items()}
    return View(center=center, **rays, jitter=jitter)


def foreground(values: np.ndarray, share: float, least: int = _MIN_POINTS) -> tuple[float, float]:
    """Median and spread of the nearest surface among distances in m.

    Sorted, the distances fall into surfaces with steps between them. The nearest one that has
    ``share`` of all values counts, so that neither the background nor a thin thing in front does.
    The spread is a robust standard deviation, and that of all values if no surface counts. Raises
    ``ValueError`` for less than ``least`` valid values; NaN, infinite values, 0 and below are not
    valid.
    """
    values = np.sort(values[_valid(values)])
    if len(values) < least:
        raise ValueError(f"{len(values)} valid distances in the box: expected {least} or more")
    steps = np.diff(values) > np.maximum(_GAP[0], _GAP[1] * values[:-1])
    surfaces = np.split(values, np.flatnonzero(steps) + 1)
    enough = share * len(values)
    nearest = next((each for each in surfaces if len(each) >= enough), values[:0])
    if len(nearest) >= least:
        median = float(np.median(nearest))
        return median, 1.4826 * float(np.median(np.abs(nearest - median)))
    # none is large enough: the largest is the best guess, and the target may be any of them
    median = float(np.median(max(surfaces, key=len)))
    return median, float(np.sqrt(np.mean((values - median) ** 2)))


def depth_range(
    depth: np.ndarray, box_xywh: tuple[float, float, float, float], view: View, share: float
) -> Range:
    """Range by a registered depth image (H, W) in m; the box is in pixels of that image.

    Raises ``ValueError`` if the box has too few valid pixels, or less than ``share`` of what is
    usual in this image: those of a black or shiny target are the edges and the wall behind it.
    """
    x, y, w, h = box_xywh
    central = depth[_central(y, h), _central(x, w)]
    values = central[_valid(central)].astype(np.float64)
    if len(values) < share * central.size:  # otherwise the whole image need not be looked at
        found, usual = len(values) / central.size, np.count_nonzero(_valid(depth)) / depth.size
        if len(values) < share * usual * central.size:
            raise ValueError(
                f"{found:.0%} of the depth in the box is valid, {usual:.0%} in the whole image: "
                "the sensor may not see the target"
            )
    values = values[:: max(1, len(values) // _MAX_PIXELS)]
    z, spread = foreground(values, share, _MIN_PIXELS)
    # The surface has depth itself: its spread is that of the target, not of the sensor's noise.
    return Range(z / view.center[2], max(spread, 0.005 * z) / view.center[2])


def cloud_range(points: np.ndarray, view: View, share: float) -> Range:
    """Range by points (N, 3) in the camera's frame that lie within the central part of the box.

    Raises ``ValueError`` if there are too few.
    """
    points = points[points[:, 2] > 0]
    slopes = points[:, :2] / points[:, 2:]
    middle = _slope(view.center)
    half = (
        CENTRAL
        / 2
        * (
            np.array((_slope(view.right)[0], _slope(view.bottom)[1]))
            - (_slope(view.left)[0], _slope(view.top)[1])
        )
    )
    inside = (np.abs(slopes - middle) <= half).all(axis=1)
    z, spread = foreground(points[inside, 2], share)
    return Range(z / view.center[2], max(spread, 0.01 * z) / view.center[2])


def scan_range(
    points: np.ndarray, view: View, rotation: np.ndarray, origin: np.ndarray, share: float
) -> Range:
    """Range by points (N, 2) of a planar scan, in the plane of the scanner.

    The scanner sees the target above or below its box: what counts is the direction within its
    plane. ``rotation`` (3, 3) and ``origin`` (3,) lead from the camera's to the scanner's frame.
    Raises ``ValueError`` if too few points lie within the box, and for a camera that looks along
    the scanner's axis.
    """
    left, middle, right = (rotation @ ray for ray in (view.left, view.center, view.right))
    across = float(np.hypot(*middle[:2]))
    if across < _MIN_ACROSS:
        raise ValueError("the target is above or below the scanner, not in its plane")
    relative = points - origin[:2]
    angles = np.arctan2(relative[:, 1], relative[:, 0])
    heading = np.arctan2(middle[1], middle[0])
    ends = [_wrap(np.arctan2(ray[1], ray[0]) - heading) for ray in (left, right)]
    offsets = _wrap(angles - heading)
    inside = (offsets >= CENTRAL * min(ends)) & (offsets <= CENTRAL * max(ends))
    away, spread = foreground(np.hypot(relative[inside, 0], relative[inside, 1]), share)
    return Range(away / across, max(spread, 0.01 * away) / across)


def ground_range(
    view: View,
    height: float,
    up: np.ndarray,
    height_spread: float = 0.0,
    pitch_spread: float = 0.0,
) -> Range:
    """Range by the lower side of the box, which stands on the ground.

    The camera is ``height`` m above it, and ``up`` (3,) is the direction upwards; their standard
    deviations are relative and in rad. Raises ``ValueError`` if the lower side is cut or too close
    to the horizon, and for a target straight below the camera.
    """
    if "bottom" in view.cut:
        raise ValueError("the border of the image cuts the lower side of the box")
    if not (height > 0 and np.isfinite(height)):
        raise ValueError(f"the camera is {height:g} m above the ground: expected more than 0")
    down = -float(up @ view.bottom)
    angle_spread = float(np.hypot(_SIDE * view.jitter, pitch_spread))
    if not down > np.sin(max(_HORIZON, 2 * angle_spread)):
        raise ValueError("the lower side of the box is at the horizon or above it")
    foot = height / down * view.bottom
    flat_center = view.center - (up @ view.center) * up
    across = float(np.linalg.norm(flat_center))
    if not across > _MIN_ACROSS:
        raise ValueError("the target is straight below the camera")
    away = float(np.linalg.norm(foot - (up @ foot) * up))
    # away = height / tan(angle below the horizon)
    by_angle = height / down**2 * angle_spread
    by_height = away * height_spread
    return Range(away / across, float(np.hypot(by_angle, by_height)) / across)


def size_range(view: View, height: float, width: float, size_spread: float) -> Range:
    """Range by the known ``height`` or ``width`` in m of the target, of which one may be 0.

    ``size_spread`` is the relative standard deviation of that size. Raises ``ValueError`` if the
    sides that it needs are cut.
    """
    seen_width, seen_height = view.size(1.0)
    found, problems = [], []
    for name, size, seen, sides in (
        ("height", height, seen_height, {"top", "bottom"}),
        ("width", width, seen_width, {"left", "right"}),
    ):
        if size > 0 and not sides & {*view.cut}:
            distance = size / seen
            by_jitter = np.sqrt(2) * _SIDE * view.jitter / seen  # two sides
            found.append((distance, distance * float(np.hypot(size_spread, by_jitter))))
        elif size > 0:
            problems.append(f"the border of the image cuts the {name} of the box")
    if not found:
        raise ValueError("; ".join(problems) or "neither height nor width of the target is known")
    distances, deviations = np.array(found).T
    weights = deviations**-2 / (deviations**-2).sum()
    distance = float(weights @ distances)
    # the errors of both have causes in common, so that they do not average out; they disagree if
    # the target is half covered or turned, and then either may be right
    apart = weights @ (distances - distance) ** 2
    return Range(distance, float(np.sqrt(deviations.min() ** 2 + apart)))


def position(view: View, measured: Range, focal_spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) of the target's center and its covariance (3, 3).

    Along the ray it is the range's, across it the jitter of the box, to which the relative
    standard deviation of the focal length adds with the distance from the optical axis.
    """
    ray, distance = view.center, measured.distance
    along = np.outer(ray, ray)
    across = (distance * view.jitter) ** 2 * (np.eye(3) - along)
    # another focal length moves the point away from the axis, in proportion
    shift = distance * focal_spread * np.array((ray[0], ray[1], 0.0))
    covariance = measured.deviation**2 * along + across + np.outer(shift, shift)
    return distance * ray, covariance


def tilted_up(pitch: float) -> np.ndarray:
    """The direction upwards (3,) of a camera that looks down by ``pitch`` rad, without roll."""
    return np.array((0.0, -np.cos(pitch), -np.sin(pitch)))


def _central(start: float, side: float) -> slice:
    """The pixels in the central part of a side, at least one unless it is outside the image."""
    margin = (1 - CENTRAL) / 2 * side
    first = round(start + margin)
    last = max(round(start + side - margin), first + 1)
    return slice(max(0, first), max(0, last))


def _valid(distances: np.ndarray) -> np.ndarray:
    return np.isfinite(distances) & (distances > 0)


def _slope(ray: np.ndarray) -> np.ndarray:
    return ray[:2] / ray[2]


def _wrap(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi
