"""Photographs and label maps in memory, as tensors for the synthetic tracks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from spmtrack_core.data.images import image_paths, read_image
from spmtrack_core.files import user_path
from spmtrack_core.training.config import SyntheticConfig


@dataclass(frozen=True)
class PhotoPool:
    """Photographs and the segments that can be cut out of them, on the training device."""

    images: Tensor
    """(N, 3, S, S) uint8, stretched to a square."""
    aspects: Tensor
    """(N,) width / height before the stretch."""
    labels: Tensor
    """(M, S, S) uint8 label maps."""
    segments: Tensor
    """(K, 3) long: numbers of image, label map and label."""
    windows: Tensor
    """(K, 4) float32: center x, y and half width, height; an image reaches from -1 to 1."""


def photo_paths(config: SyntheticConfig) -> list[Path]:
    """The photographs of ``config``.

    Raises FileNotFoundError for a missing folder, also of label maps, and ValueError for fewer
    than two photographs.
    """
    paths: list[Path] = []
    for folder in map(user_path, config.images):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder of photographs {folder} (synthetic.images)")
        paths += image_paths(folder)
    if len(paths) < 2:
        folders = ", ".join(config.images)
        raise ValueError(f"{folders} must hold at least 2 photographs; got {len(paths)}")
    for masks in map(user_path, config.masks):
        if not masks.is_dir():
            raise FileNotFoundError(f"no folder of label maps {masks} (synthetic.masks)")
    if config.max_images is not None and config.max_images < len(paths):
        chosen = np.linspace(0, len(paths) - 1, config.max_images).round().astype(int)
        paths = [paths[i] for i in chosen]
    return paths


def read_photos(config: SyntheticConfig, device: torch.device) -> PhotoPool:
    """Read the photographs and label maps of ``config``.

    Raises as ``photo_paths`` does, and ValueError for a label map that cannot be read.
    """
    paths = photo_paths(config)
    mask_folders = [user_path(folder) for folder in config.masks]
    side = config.image_side
    images = np.empty((len(paths), 3, side, side), np.uint8)
    aspects: list[float] = []
    labels: list[np.ndarray] = []
    segments: list[tuple[int, int, int]] = []
    windows: list[tuple[float, ...]] = []
    for i, path in enumerate(paths):
        image = read_image(path)
        aspects.append(image.shape[1] / image.shape[0])
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        images[i] = small.transpose(2, 0, 1)
        candidates = (folder / f"{path.stem}.png" for folder in mask_folders)
        mask_path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if mask_path is None:
            continue
        label_map = cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
        if label_map is None:
            raise ValueError(f"{mask_path} cannot be read as a label map")
        if label_map.dtype != np.uint8:  # cut to 8 bits, labels would vanish or become one
            raise ValueError(f"{mask_path} must be a label map of 8 bits; got {label_map.dtype}")
        label_map = cv2.resize(label_map, (side, side), interpolation=cv2.INTER_NEAREST)
        for label, window in usable_segments(label_map):
            segments.append((i, len(labels), label))
            windows.append(window)
        labels.append(label_map)
    return PhotoPool(
        images=torch.from_numpy(images).to(device),
        aspects=torch.tensor(aspects, dtype=torch.float32, device=device),
        labels=torch.from_numpy(np.array(labels, np.uint8).reshape(-1, side, side)).to(device),
        segments=torch.tensor(segments, dtype=torch.long, device=device).reshape(-1, 3),
        windows=torch.tensor(windows, dtype=torch.float32, device=device).reshape(-1, 4),
    )


def usable_segments(label_map: np.ndarray) -> list[tuple[int, tuple[float, ...]]]:
    """Labels of complete objects, each with its window (center x, y, half width, height).

    A complete object is not tiny, fills 40 % of its box and touches at most one border of the
    image. Coordinates run from -1 to 1 over the image.
    """
    side = label_map.shape[0]
    found = []
    for label in np.unique(label_map):
        if label == 0:  # the background, where a map names one object
            continue
        rows, columns = np.nonzero(label_map == label)
        x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        w, h = x2 - x1, y2 - y1
        borders = sum((int(x1 == 0), int(y1 == 0), int(x2 == side), int(y2 == side)))
        small = min(w, h) < side / 16 or w * h < side**2 / 150
        if small or rows.size < 0.4 * w * h or borders > 1:
            continue
        window = np.array([x1 + x2 - side, y1 + y2 - side, w, h]) / side
        found.append((int(label), tuple(float(v) for v in window)))
    return found
