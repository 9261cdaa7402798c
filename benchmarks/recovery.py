"""Loss and return of a target: clips that are cut, with recovery and without.

    python benchmarks/recovery.py CLIPS --weights nano [--only NAMES.txt] [--lost 0.25 0.3]

Each clip is cut on purpose: after a third of it, frames of another video follow for a while, and
then the rest of the clip, mirrored, so that the target returns elsewhere. With ``--quarters`` a
clip takes a quarter of a frame of twice its size and returns in another one; three other videos
take the rest. Printed for ``recovery`` none and scan:

- the share of clips whose target is found again within ten frames of its return (a box with an IoU
  above 0.5 that is not LOST), or at all; the same for targets that return outside of the search
  region around their last place, and the share of frames after the cut with a wrong box that is
  not LOST;
- the share of frames without the target that are LOST, the share of right boxes before the cut
  that are LOST, and the ROC AUC of the confidence for right boxes;
- the time per frame while the target is lost and while it is not.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_tracks
from spmtrack_core.evaluation.metrics import confidence_auc, good_boxes
from spmtrack_core.geometry.boxes import xywh_to_xyxy
from spmtrack_core.geometry.crop import crop_transform
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.result import TrackState
from spmtrack_core.tracking.tracker import Tracker

WITHIN = 10
"""Frames."""


def cut(
    frames: list[Image], boxes_xywh: np.ndarray, others: list[Image]
) -> Iterator[tuple[Image, np.ndarray]]:
    """Frames and boxes (4,) of a clip with ``others`` in it; NaN for a target that is absent."""
    third = len(frames) // 3
    yield from zip(frames[:third], boxes_xywh[:third], strict=True)
    for frame in others:
        yield frame, np.full(4, np.nan)
    for frame, (x, y, w, h) in zip(frames[third:], boxes_xywh[third:], strict=True):
        yield np.ascontiguousarray(frame[:, ::-1]), np.array([frame.shape[1] - x - w, y, w, h])


def judge(tracker: Tracker, clip: list[tuple[Image, np.ndarray]]) -> dict[str, list[float]]:
    """Track a cut clip; see above."""
    tracker.init(clip[0][0], clip[0][1].tolist())
    absent = [index for index, (_, box) in enumerate(clip) if not np.isfinite(box).all()]
    results, seconds = [], []
    for frame, _ in clip[1:]:
        started = time.perf_counter()
        results.append(tracker.update(frame))
        seconds.append(time.perf_counter() - started)
    good = good_boxes([r.box_xywh for r in results], [box for _, box in clip[1:]])
    claimed = np.array([r.state is not TrackState.LOST for r in results])
    # results start with frame 1: these are the first frame without the target, and after it
    gone, back = absent[0] - 1, absent[-1]
    after = np.flatnonzero((good & claimed)[back:])
    found = float(after.size > 0 and after[0] < WITHIN)
    later = float(after.size > 0)
    config, search_hw = tracker.config, tracker.model_config.search_hw
    last_xyxy, returned_xyxy = xywh_to_xyxy(np.stack([clip[gone][1], clip[back + 1][1]]))
    region = crop_transform(last_xyxy, config.search_area_factor, search_hw, config.min_side)
    left, top, right, bottom = region.to_crop(returned_xyxy)
    center = np.array([top + bottom, left + right]) / 2
    elsewhere = ((center < 0) | (center > search_hw)).any()
    return {
        "found again": [found],
        "found again at all": [later],
        "found again elsewhere": [found] if elsewhere else [],
        "frames until found again": [int(after[0]) + 1] if after.size else [],
        "wrong box, not LOST": (claimed & ~good)[gone:].tolist(),
        "LOST while absent": (~claimed)[gone:back].tolist(),
        "LOST before": (~claimed)[:gone][good[:gone]].tolist(),
        "confidence": [r.confidence for r in results],
        "good": good.tolist(),
        "ms, lost": [1e3 * s for s, c in zip(seconds, claimed, strict=True) if not c],
        "ms, not lost": [1e3 * s for s, c in zip(seconds, claimed, strict=True) if c],
    }


def in_quarters(
    clip: list[tuple[Image, np.ndarray]], others: list[list[Image]], places: tuple[int, int]
) -> Iterator[tuple[Image, np.ndarray]]:
    """A cut clip in one quarter of a larger frame, 0..3, until it is cut; then in another.

    The videos ``others`` take the quarters that are left; frames without the target have four.
    """
    h, w = clip[0][0].shape[:2]
    place = places[0]
    for index, (frame, box) in enumerate(clip):
        if not np.isfinite(box).all():
            place = places[1]
        quarters = [cv2.resize(video[index % len(video)], (w, h)) for video in others]
        quarters.insert(place, frame)
        row, column = divmod(place, 2)
        whole = np.vstack([np.hstack(quarters[:2]), np.hstack(quarters[2:])])
        yield whole, box + np.array([column * w, row * h, 0, 0])


def other_videos(
    clips: list[tuple[list[Image], np.ndarray, str]], index: int, count: int
) -> list[list[Image]]:
    """Frames of the nearest clips before ``index``, of other videos: NAME_a and NAME_b are one.

    Raises ``ValueError`` for too few videos.
    """
    found: dict[str, list[Image]] = {}
    for offset in range(len(clips)):
        frames, _, name = clips[index - offset]
        found.setdefault(re.sub("_[a-z]$", "", name), frames)
    if len(found) <= count:
        raise ValueError(
            f"the {len(clips)} clips are of {len(found)} videos; expected {count + 1}"
        )
    return list(found.values())[1 : count + 1]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", help="folder of clips with groundtruth.txt")
    parser.add_argument("--weights", default="nano")
    parser.add_argument("--runtime", default="torch", help="see load_tracker")
    parser.add_argument("--only", help="text file of the clips to use")
    parser.add_argument("--absent", type=int, default=8, help="frames without the target")
    parser.add_argument("--quarters", action="store_true", help="in frames of twice the size")
    parser.add_argument("--threshold", type=float, nargs="*", help="recovery_threshold")
    parser.add_argument("--lost", type=float, nargs="*", help="lost_threshold")
    options = parser.parse_args()
    tracks = open_tracks(DatasetConfig("folder", options.clips, only=options.only))
    clips = []
    for index in range(len(tracks)):
        boxes = tracks.boxes_xywh(index)
        frames = [tracks.read(index, k) for k in range(len(boxes))]
        clips.append((frames, boxes, tracks.sequence(index).name))
    tracker = load_tracker(options.weights, device="cpu", runtime=options.runtime)
    given = tracker.config
    settings = [
        replace(given, lost_threshold=lost, recovery=recovery, recovery_threshold=threshold)
        for lost in options.lost or [given.lost_threshold]
        for recovery, thresholds in (
            ("none", [given.recovery_threshold]),
            ("scan", options.threshold or [given.recovery_threshold]),
        )
        for threshold in thresholds
    ]
    for config in settings:
        tracker.config = config
        sums: dict[str, list[float]] = {}
        for index, (frames, boxes, _) in enumerate(clips):
            if not np.isfinite(boxes).all():
                continue
            h, w = frames[0].shape[:2]
            other, *rest = other_videos(clips, index, 4 if options.quarters else 1)
            clip = list(
                cut(frames, boxes, [cv2.resize(f, (w, h)) for f in other[: options.absent]])
            )
            if options.quarters:
                first = index % 4
                clip = list(in_quarters(clip, rest, (first, (first + 1 + index // 4 % 3) % 4)))
            for name, values in judge(tracker, clip).items():
                sums.setdefault(name, []).extend(values)
        if not sums:
            parser.error(f"no clip of {options.clips} shows its target in all of its frames")
        confidence, good = np.array(sums.pop("confidence")), np.array(sums.pop("good"), bool)
        text = f"{len(sums['found again elsewhere'])} clips return elsewhere, median "
        text += f"frames until found again {np.median(sums.pop('frames until found again')):.0f}, "
        text += ", ".join(
            f"{name} {np.mean(values):.3f}" for name, values in sums.items() if values
        )
        print(
            f"lost_threshold {config.lost_threshold}, {config.recovery} "
            f"{config.recovery_threshold}: {text}, "
            f"ROC AUC {confidence_auc(confidence, good):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
