"""Photographs and label maps: reading, usable segments, and errors."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from spmtrack_core.training.config import SyntheticConfig
from spmtrack_core.training.photo_pool import read_photos, usable_segments

CPU = torch.device("cpu")


def test_segments_of_incomplete_objects_are_left_out():
    labels = np.full((64, 64), 1, np.uint8)  # most of the image
    labels[:20, :20] = 2  # a corner: two borders
    labels[30:32, 30:32] = 3  # tiny
    labels[40:60, 10:40] = 4  # an object
    labels[40:60, 50:60] = 0  # background by convention
    assert [label for label, _ in usable_segments(labels)] == [4]
    window = usable_segments(labels)[0][1]
    assert window == pytest.approx((50 / 64 - 1, 100 / 64 - 1, 30 / 64, 20 / 64))


@pytest.mark.parametrize(
    ("rows", "columns", "usable", "reason"),
    [
        (slice(1, 63), slice(1, 63), True, "photographed from near, complete"),
        (slice(0, 62), slice(1, 63), True, "one border"),
        (slice(0, 62), slice(0, 62), False, "two borders: cut off"),
        (slice(20, 40), slice(0, 64), False, "two opposite borders"),
    ],
)
def test_objects_at_several_borders_are_left_out(rows, columns, usable, reason):
    labels = np.zeros((64, 64), np.uint8)
    labels[rows, columns] = 1
    assert bool(usable_segments(labels)) == usable, reason


def test_photographs_keep_their_aspect(tmp_path):
    for i, (h, w) in enumerate([(20, 40), (30, 30), (40, 10)]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((h, w, 3), (0, 0, 200), np.uint8))
    pool = read_photos(SyntheticConfig(images=(str(tmp_path),), image_side=32), CPU)
    assert pool.aspects.tolist() == [2.0, 1.0, 0.25]
    assert pool.images.shape == (3, 3, 32, 32) and pool.segments.shape == (0, 3)
    assert pool.images[0, :, 5, 5].tolist() == [200, 0, 0]  # RGB
    fewer = read_photos(SyntheticConfig(images=(str(tmp_path),), image_side=32, max_images=2), CPU)
    assert fewer.aspects.tolist() == [2.0, 0.25]


def test_folders_of_photographs_may_start_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
        for i in range(2):
            image = np.zeros((40, 40), np.uint8)
            image[10:30, 10:30] = 1
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), image)
    config = SyntheticConfig(images=("~/photos",), masks=("~/masks",), image_side=32)
    assert len(read_photos(config, CPU).segments) == 2


@pytest.mark.parametrize(
    "field, value, error, text",
    [
        ("images", ("nowhere",), FileNotFoundError, "no folder of photographs nowhere"),
        ("masks", ("nowhere",), FileNotFoundError, "no folder of label maps nowhere"),
    ],
)
def test_missing_folders_are_named(tmp_path, field, value, error, text):
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((8, 8, 3), np.uint8))
    config = SyntheticConfig(images=(str(tmp_path),))
    with pytest.raises(error, match=text):
        read_photos(replace(config, **{field: value}), CPU)


def test_a_label_map_of_16_bits_is_an_error(tmp_path):
    """Cut to 8 bits, its labels 1 and 2 would be background."""
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((40, 40), i, np.uint16))
    config = SyntheticConfig(images=(str(tmp_path),), masks=(str(tmp_path),), image_side=32)
    with pytest.raises(ValueError, match=r"0\.png must be a label map of 8 bits; got uint16"):
        read_photos(config, CPU)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least 2 photographs; got 0"):
        read_photos(SyntheticConfig(images=(str(tmp_path),)), CPU)


def test_several_folders_are_one(tmp_path):
    """Photographs in the order of the folders; a label map lies in any of theirs."""
    for folder, value in (("a", 50), ("b", 200)):
        (tmp_path / folder).mkdir()
        image = np.full((32, 32, 3), value, np.uint8)
        cv2.imwrite(str(tmp_path / folder / f"{folder}.png"), image)
    (tmp_path / "none").mkdir()
    (tmp_path / "masks").mkdir()
    labels = np.zeros((32, 32), np.uint8)
    labels[8:24, 8:24] = 3
    cv2.imwrite(str(tmp_path / "masks" / "b.png"), labels)
    config = SyntheticConfig(
        images=(str(tmp_path / "a"), str(tmp_path / "b")),
        masks=(str(tmp_path / "none"), str(tmp_path / "masks")),
        image_side=32,
    )
    pool = read_photos(config, CPU)
    assert pool.images[:, 0, 0, 0].tolist() == [50, 200]
    assert pool.segments.tolist() == [[1, 0, 3]]
