"""The direction that a pixel looks in, as ``sensor_msgs/CameraInfo`` tells. Free of ROS."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

# distortion model: the module of OpenCV that has it, and how many numbers it takes
_MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "plumb_bob": (cv2, (4, 5)),
    "rational_polynomial": (cv2, (8, 12, 14)),
    "equidistant": (cv2.fisheye, (4,)),
}
_CLOSE = 0.5  # px between a point and what its direction is projected to
_STEPS = 10  # of Newton's; OpenCV's own five others are not enough for the corners of wide lenses


def direction(
    info: Any, image_hw: tuple[int, int], point_xy: tuple[float, float], rectified: bool = False
) -> tuple[float, float, float]:
    """Unit vector to a point of the image in the optical frame: x right, y down, z forward.

    ``point_xy`` is in px from the outer corner of the first pixel, as boxes are; ``CameraInfo``
    counts from that pixel's middle. A ``rectified`` image is described by P, any other by K and D.
    Binning and region of interest are those of ``info``.

    Raises ``ValueError`` for a camera that is not calibrated, an image of another size than
    ``info`` is for, a distortion that is not known, and a point beyond what it can be undone for.
    """
    binning = np.maximum((info.binning_x, info.binning_y), 1)
    roi = info.roi
    w, h = (roi.width or info.width, roi.height or info.height) // binning
    if image_hw != (h, w):
        size = f"{image_hw[1]} x {image_hw[0]}"
        raise ValueError(f"camera_info is for images of {w} x {h}, this one has {size}")
    matrix = np.reshape(info.p, (3, 4))[:, :3] if rectified else np.reshape(info.k, (3, 3))
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise ValueError("camera_info has no calibration: its focal length is not positive")
    point = np.array(point_xy) * binning + (roi.x_offset, roi.y_offset) - 0.5
    if rectified or not any(info.d):
        ray = np.linalg.solve(matrix, (*point, 1.0))
    else:
        ray = _undistort(info.distortion_model, matrix, np.array(info.d, np.float64), point)
    x, y, z = (ray / np.linalg.norm(ray)).tolist()
    return x, y, z


def _undistort(
    model: str, matrix: np.ndarray, numbers: np.ndarray, point: np.ndarray
) -> np.ndarray:
    """Ray (3,) with depth 1 that a distorting lens shows at ``point`` (2,)."""
    lens, sizes = _MODELS.get(model, (None, ()))
    if lens is None or len(numbers) not in sizes:
        known = ", ".join(_MODELS)
        raise ValueError(f"distortion '{model}' with {len(numbers)} numbers is not one of {known}")
    ray = np.ones(3)
    ray[:2] = lens.undistortPoints(point.reshape(1, 1, 2), matrix, numbers).ravel()
    nothing = np.zeros(3)
    for _ in range(_STEPS):
        seen, slopes = lens.projectPoints(ray.reshape(1, 1, 3), nothing, nothing, matrix, numbers)
        error = np.abs(point - seen.ravel()).max()
        if lens is not cv2 or error < 1e-6:
            break
        ray[:2] += np.linalg.solve(slopes[:, 3:5], point - seen.ravel())  # slopes by x and y
    # beyond some radius the polynomials turn back: the image would be folded there
    folded = lens is cv2 and not (slopes[0, 3] > 0 and np.linalg.det(slopes[:, 3:5]) > 0)
    if folded or not error < _CLOSE:  # also where it is not a number
        raise ValueError(f"distortion '{model}' cannot be undone at {point.round(1).tolist()}")
    return ray
