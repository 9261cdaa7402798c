"""How good are boxes that are proposed for a point? IoU on the first frames of sequences.

    python benchmarks/propose.py SEQUENCES [--baselines] [--fit]

The points are the middle of each known box, and random ones in the inner half of its width and
height. ``--baselines`` measures two simple ways as well: a square of a fifth of the shorter side,
and GrabCut at the same ten sizes, of which the most stable box is taken. ``--fit`` fits the
weights of ``tracking/propose.py`` to these frames (ridge regression of the candidates' IoU) and
prints them and, by cross-validation over sequences, what they give. Sequences whose names differ
in a last ``_a``, ``_b``, ``_c`` are parts of one video: one counts.
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
from spmtrack_core.tracking.propose import (
    FEATURES,
    SIZES,
    WEIGHTS,
    Candidates,
    choose,
    find_candidates,
)

CROP = 96  # px, of the images that GrabCut gets
RIDGE = 1e-3
FOLDS = 5


def square(point: Boxes, frame_hw: tuple[int, int]) -> Boxes:
    """(4,) a box about a point, whatever the image shows."""
    side = min(frame_hw) / 5
    return np.array([*(point - side / 2), side, side])


def grabcut(frame: Image, point: Boxes) -> Boxes:
    """(4,) the foreground about a point, at the size at which it depends on the size the least."""
    boxes = np.array([_foreground(frame, point, min(frame.shape[:2]) * size) for size in SIZES])
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
    """A point on a target whose box is known."""

    sequence: str
    middle: bool
    truth_xywh: Boxes
    candidates: Candidates
    seconds: float
    baselines: dict[str, Boxes]
    """(4,) the boxes of other ways."""

    def ious(self) -> NDArray[np.float64]:
        """(S,) of the candidates with the known box."""
        boxes = xywh_to_xyxy(self.candidates.boxes_xywh)
        return iou_xyxy(boxes, xywh_to_xyxy(self.truth_xywh))

    def iou(self, weights: NDArray[np.float64]) -> float:
        """Of the proposed box with the known one."""
        chosen = xywh_to_xyxy(choose(self.candidates, weights))
        return float(iou_xyxy(chosen, xywh_to_xyxy(self.truth_xywh)))


def first_frames(root: str) -> Iterator[tuple[str, Image, Boxes]]:
    """Name, first frame and box of each video in a folder of sequences."""
    seen = set()
    sequences, _ = open_sequences(DatasetConfig("folder", root))
    for sequence in sequences:
        video = re.sub(r"_[abc]$", "", sequence.name)
        if video not in seen and sequence.boxes_xywh is not None:
            seen.add(video)
            yield video, next(iter(sequence)), sequence.boxes_xywh[0]


def clicks(root: str, weights: str, random_points: int, baselines: bool) -> list[Click]:
    """The middle and ``random_points`` points of each first box, with their candidates."""
    tracker, random = load_tracker(weights), np.random.default_rng(0)
    found = []
    for name, frame, box in first_frames(root):
        offsets = np.vstack([np.zeros(2), random.uniform(-0.25, 0.25, (random_points, 2))])
        for index, offset in enumerate(offsets):
            point = box[:2] + box[2:] * (0.5 + offset)
            point = np.clip(point, 0, np.array(frame.shape[1::-1]) - 1)
            begun = time.perf_counter()
            candidates = find_candidates(tracker, frame, (float(point[0]), float(point[1])))
            seconds = time.perf_counter() - begun
            others = {}
            if baselines:
                others["a square"] = square(point, frame.shape[:2])
                others["GrabCut"] = grabcut(frame, point)
            found.append(Click(name, index == 0, box, candidates, seconds, others))
    return found


def fit(found: list[Click]) -> NDArray[np.float64]:
    """The weights (a constant first) that predict the IoU of candidates best."""
    features = np.vstack([click.candidates.features for click in found])
    truth = np.concatenate([click.ious() for click in found])
    mean, spread = features.mean(0), features.std(0) + 1e-9
    scaled = np.column_stack([np.ones(len(features)), (features - mean) / spread])
    penalty = RIDGE * len(scaled) * np.diag([0.0] + [1.0] * features.shape[1])
    weights = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ truth)
    weights[1:] /= spread
    weights[0] -= weights[1:] @ mean
    return weights


def report(found: list[Click], ious: NDArray[np.float64], what: str) -> None:
    """Print mean IoU and share above 0.5 of the middles and of the random points."""
    middle = np.array([click.middle for click in found])
    for name, chosen in (("middle", ious[middle]), ("inner half", ious[~middle])):
        mean, share = chosen.mean(), (chosen > 0.5).mean()
        print(f"{what}, {name}: mean IoU {mean:.3f}, above 0.5: {share:.0%} of {len(chosen)}")


def main() -> None:
    """Measure, and fit if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root", help="folder of sequences")
    parser.add_argument("--weights", default="nano", help="weights of the tracker")
    parser.add_argument("--points", type=int, default=4, help="random points for each box")
    parser.add_argument("--baselines", action="store_true", help="measure simple ways as well")
    parser.add_argument("--fit", action="store_true", help="fit the weights of the features")
    options = parser.parse_args()
    found = clicks(options.root, options.weights, options.points, options.baselines)
    for name in found[0].baselines:
        pairs = [xywh_to_xyxy([click.baselines[name], click.truth_xywh]) for click in found]
        report(found, np.array([float(iou_xyxy(*pair)) for pair in pairs]), name)
    report(found, np.array([click.iou(WEIGHTS) for click in found]), "proposed")
    report(found, np.array([click.ious().max() for click in found]), "best candidate")
    print(f"{np.median([click.seconds for click in found]):.2f} s a point")
    if options.fit:
        names = sorted({click.sequence for click in found})
        folds = np.random.default_rng(1).permutation(len(names)) % FOLDS
        fold = dict(zip(names, folds.tolist(), strict=True))
        fitted = {
            each: fit([click for click in found if fold[click.sequence] != each])
            for each in set(fold.values())
        }
        ious = [click.iou(fitted[fold[click.sequence]]) for click in found]
        report(found, np.array(ious), "cross-validated")
        for name, weight in zip(("constant", *FEATURES), fit(found), strict=True):
            print(f"{name}: {weight:.3f}")


if __name__ == "__main__":
    main()
