"""How good are boxes that are proposed for a point? IoU on the first frames of sequences.

    python benchmarks/propose.py SEQUENCES [--baselines]

The points are the middle of each known box, and random ones in the inner half of its width and
height. ``--baselines`` measures two simple ways as well: a square of a fifth of the shorter side,
and GrabCut at ten sizes, of which the most stable box is taken. Sequences whose names differ in a
last ``_a``, ``_b``, ``_c`` are parts of one video: one counts. The time is that of the processor:
``OMP_NUM_THREADS=1`` gives it on one thread, also beside other programs.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_sequences
from spmtrack_core.geometry.boxes import Boxes, iou_xyxy, xywh_to_xyxy
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.propose import SIZES, propose_box
from spmtrack_core.tracking.tracker import Tracker

CROP = 96  # px, of the images that GrabCut gets


def square(point: Boxes, frame_hw: tuple[int, int]) -> Boxes:
    """(4,) a box about a point, whatever the image shows."""
    side = min(frame_hw) / 5
    return np.array([*(point - side / 2), side, side])


def grabcut(frame: Image, point: Boxes) -> Boxes:
    """(4,) the foreground about a point, at the size at which it depends on the size the least."""
    boxes = np.array(
        [_foreground(frame, point, min(frame.shape[:2]) * size) for size in SIZES[:10]]
    )
    boxes_xyxy = xywh_to_xyxy(boxes)
    same = iou_xyxy(boxes_xyxy[1:], boxes_xyxy[:-1])
    return boxes[int(np.argmax(np.append(same, 0) + np.append(0, same)))]


def _foreground(frame: Image, point: Boxes, side: float) -> Boxes:
    """(4,) what GrabCut takes for foreground in a square about a point, where it lies there."""
    scale = CROP / (2 * side)  # the square is the middle of the crop
    move = np.array([[scale, 0, CROP / 2], [0, scale, CROP / 2]])
    move[:, 2] -= scale * point
    crop = cv2.warpAffine(frame, move, (CROP, CROP), borderMode=cv2.BORDER_REFLECT_101)
    mask, models = np.zeros((CROP, CROP), np.uint8), (np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.setRNGSeed(0)
    middle = (CROP // 4, CROP // 4, CROP // 2, CROP // 2)
    cv2.grabCut(crop, mask, middle, *models, 3, cv2.GC_INIT_WITH_RECT)
    foreground = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    _, labels, parts, _ = cv2.connectedComponentsWithStats(foreground)
    near = labels[CROP // 2 - 4 : CROP // 2 + 5, CROP // 2 - 4 : CROP // 2 + 5]
    if not near.any():
        return np.array([*(point - side / 2), side, side])
    x, y, w, h = parts[np.bincount(near[near > 0]).argmax()][:4]
    return np.array([*(point + (np.array([x, y]) - CROP / 2) / scale), w / scale, h / scale])


class Click(NamedTuple):
    """A point on a target whose box is known, and the boxes for it."""

    middle: bool
    seconds: float
    """Of the processor, for the proposed box."""
    ious: dict[str, float]
    """With the known box, by the way in which a box was made."""


def first_frames(root: str) -> Iterator[tuple[Image, Boxes]]:
    """First frame and box of each video in a folder of sequences."""
    seen = set()
    sequences, _ = open_sequences(DatasetConfig("folder", root))
    for sequence in sequences:
        video = re.sub(r"_[abc]$", "", sequence.name)
        if video not in seen and sequence.boxes_xywh is not None:
            seen.add(video)
            yield next(iter(sequence)), sequence.boxes_xywh[0]


def points(truth: Boxes, frame: Image, count: int, random: np.random.Generator) -> Boxes:
    """(1 + N, 2) the middle of a box, and ``count`` random points of its inner half."""
    offsets = np.vstack([np.zeros(2), random.uniform(-0.25, 0.25, (count, 2))])
    return np.clip(truth[:2] + truth[2:] * (0.5 + offsets), 0, np.array(frame.shape[1::-1]) - 1)


def clicks(root: str, tracker: Tracker, random_points: int, baselines: bool) -> list[Click]:
    """The middle and ``random_points`` points of each first box."""
    tracker.warm_up(5)
    random, found = np.random.default_rng(0), []
    for frame, truth in first_frames(root):
        for index, point in enumerate(points(truth, frame, random_points, random)):
            begun = time.process_time()
            boxes = {"proposed": np.array(propose_box(tracker, frame, (point[0], point[1])))}
            seconds = time.process_time() - begun
            if baselines:
                boxes["a square"] = square(point, frame.shape[:2])
                boxes["GrabCut"] = grabcut(frame, point)
            ious = {name: float(overlap(box, truth)) for name, box in boxes.items()}
            found.append(Click(index == 0, seconds, ious))
    return found


def overlap(boxes_xywh: Boxes, truth_xywh: Boxes) -> NDArray[np.float64]:
    """IoU of each box with the known one."""
    return iou_xyxy(xywh_to_xyxy(boxes_xywh), xywh_to_xyxy(truth_xywh))


def main() -> None:
    """Print mean IoU and share above 0.5 of the middles and of the random points."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root", help="folder of sequences")
    parser.add_argument("--weights", default="nano", help="weights of the tracker")
    parser.add_argument("--points", type=int, default=4, help="random points for each box")
    parser.add_argument("--baselines", action="store_true", help="measure simple ways as well")
    options = parser.parse_args()
    tracker = load_tracker(options.weights)
    found = clicks(options.root, tracker, options.points, options.baselines)
    middle = np.array([click.middle for click in found])
    for way in found[0].ious:
        ious = np.array([click.ious[way] for click in found])
        for where, chosen in (("middle", ious[middle]), ("inner half", ious[~middle])):
            mean, share = chosen.mean(), (chosen > 0.5).mean()
            print(f"{way}, {where}: mean IoU {mean:.3f}, above 0.5: {share:.0%} of {len(chosen)}")
    print(f"{np.median([click.seconds for click in found]):.2f} s of the processor for a point")


if __name__ == "__main__":
    main()
