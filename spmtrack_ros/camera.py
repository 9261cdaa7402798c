"""Directions of pixels and pixels of points, by ``sensor_msgs/CameraInfo``. Free of ROS."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

# distortion model: the module of OpenCV that implements it, and the numbers of coefficients
_MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "plumb_bob": (cv2, (4, 5)),
    "rational_polynomial": (cv2, (8, 12, 14)),
    "equidistant": (cv2.fisheye, (4,)),
}
_MAX_ERROR = 0.5  # px between a point and the projection of its direction
# Newton iterations; the five of OpenCV's own solver do not suffice in corners of wide lenses.
_ITERATIONS = 10


def direction(
    info: Any, image_hw: tuple[int, int], point_xy: tuple[float, float], rectified: bool = False
) -> tuple[float, float, float]:
    """Unit vector to a point of the image in the optical frame: x right, y down, z forward.

    ``point_xy`` is in px from the outer corner of the first pixel, as boxes are; ``CameraInfo``
    counts from the center of that pixel. P describes a ``rectified`` image, K and D any other.
    Binning and region of interest are taken from ``info``.

    Raises ``ValueError`` for a camera without calibration, an image of another size than that of
    ``info``, an unknown distortion model, a point where the distortion cannot be inverted, and a
    matrix that puts the point beside or behind the camera.
    """
    h, w = image_size(info)
    if image_hw != (h, w):
        size = f"{image_hw[1]} x {image_hw[0]}"
        raise ValueError(f"camera_info is for images of {w} x {h} px, but this image has {size}")
    matrix = _matrix(info, rectified)
    point = np.array(point_xy) * _binning(info) + (info.roi.x_offset, info.roi.y_offset) - 0.5
    if rectified or not any(info.d):
        ray = np.linalg.solve(matrix, (*point, 1.0))
    else:
        ray = _undistort(info.distortion_model, matrix, np.array(info.d, np.float64), point)
    x, y, z = (ray / np.linalg.norm(ray)).tolist()
    if not z > 0:  # also where it is NaN
        problem = f"camera_info has no direction for the point {point.round(1).tolist()}"
        raise ValueError(f"{problem}: its matrix is {matrix.ravel().tolist()}")
    return x, y, z


def project(info: Any, points: np.ndarray, rectified: bool = False) -> np.ndarray:
    """Pixels (N, 2) of points (N, 3) in the optical frame, the inverse of :func:`direction`.

    Points that are not in front of the camera are NaN. Raises ``ValueError`` for a camera without
    calibration and an unknown distortion model.
    """
    matrix = _matrix(info, rectified)
    points = np.array(points, np.float64).reshape(-1, 3)
    points[~(points[:, 2] > 0)] = np.nan
    rays = points / points[:, 2:]
    if rectified or not any(info.d):
        pixels = rays[:, :2] @ matrix[:2, :2].T + matrix[:2, 2]
    else:
        coefficients, zeros = np.array(info.d, np.float64), np.zeros(3)
        lens = _lens(info.distortion_model, coefficients)
        pixels, _ = lens.projectPoints(rays.reshape(-1, 1, 3), zeros, zeros, matrix, coefficients)
    offset = (info.roi.x_offset, info.roi.y_offset)
    return (pixels.reshape(-1, 2) + 0.5 - offset) / _binning(info)


def image_size(info: Any) -> tuple[int, int]:
    """Height and width in px of the images that ``info`` describes.

    Raises ``ValueError`` for images without a pixel: some simulators leave both sizes 0.
    """
    roi, (x, y) = info.roi, _binning(info).tolist()
    full_hw = (roi.height or info.height, roi.width or info.width)
    h, w = full_hw[0] // y, full_hw[1] // x
    if not (h and w):
        size, binning = f"{full_hw[1]} x {full_hw[0]} px", f"binning {x} x {y}"
        raise ValueError(f"camera_info is for images of {size} with {binning}: set its size")
    return h, w


def frame_problem(info: Any, frame_id: str) -> str:
    """Why ``info`` may be that of another camera than images of this ``frame_id``; empty if not.

    An empty frame_id, and a slash at its beginning as of old drivers, is no reason.
    """
    own, images = info.header.frame_id.lstrip("/"), frame_id.lstrip("/")
    if own in ("", images) or not images:
        return ""
    return f"camera_info of the frame {own} is used for images of the frame {images}"


def _binning(info: Any) -> np.ndarray:
    return np.maximum((info.binning_x, info.binning_y), 1)


def _matrix(info: Any, rectified: bool) -> np.ndarray:
    matrix = np.reshape(info.p, (3, 4))[:, :3] if rectified else np.reshape(info.k, (3, 3))
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise ValueError("camera_info has no calibration: its focal length is not positive")
    return matrix


def _lens(model: str, coefficients: np.ndarray) -> Any:
    lens, sizes = _MODELS.get(model, (None, ()))
    if lens is None or len(coefficients) not in sizes:
        known = ", ".join(
            f"{name} with {' or '.join(map(str, counts))}" for name, (_, counts) in _MODELS.items()
        )
        problem = f"distortion '{model}' with {len(coefficients)} coefficients"
        raise ValueError(f"{problem}: expected {known}")
    return lens


def _undistort(
    model: str, matrix: np.ndarray, coefficients: np.ndarray, point: np.ndarray
) -> np.ndarray:
    """Ray (3,) with depth 1 that a lens with distortion projects to ``point`` (2,)."""
    lens = _lens(model, coefficients)
    ray = np.ones(3)
    ray[:2] = lens.undistortPoints(point.reshape(1, 1, 2), matrix, coefficients).ravel()
    zeros = np.zeros(3)
    for _ in range(_ITERATIONS):
        seen, jacobian = lens.projectPoints(
            ray.reshape(1, 1, 3), zeros, zeros, matrix, coefficients
        )
        error = np.abs(point - seen.ravel()).max()
        if lens is not cv2 or error < 1e-6:
            break
        ray[:2] += np.linalg.solve(jacobian[:, 3:5], point - seen.ravel())  # columns of x and y
    # Beyond some radius the polynomials turn back, as if the image were folded there.
    folded = lens is cv2 and not (jacobian[0, 3] > 0 and np.linalg.det(jacobian[:, 3:5]) > 0)
    if folded or not error < _MAX_ERROR:  # also where the error is NaN
        raise ValueError(f"distortion '{model}' cannot be inverted at {point.round(1).tolist()}")
    return ray
