"""Single steps of a tracker: each begins beside the true box, so that errors do not add up.

    python benchmarks/steps.py CLIPS [--only NAMES.txt] [--weights nano FILE] [--overlap 1 0.7]

Before each frame, the target's box is set to the true box of the frame before, with an error: a
normal deviate of 5 % of a side on each edge, the same for all settings. Printed for each of the
weights and each ``box_overlap``, for the box of a clip as it is and for its upper part: the mean
IoU of the boxes found, each clip counted once; and how it differs from that of the first line of
its kind, as the mean over the clips, its standard error, and the number of clips with a gain.

Users track whole clips; but there a small change of the box is lost in what chance does to a few
of them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_tracks
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.disturb import DISTURBANCES
from spmtrack_core.evaluation.metrics import mean_iou
from spmtrack_core.geometry.boxes import xywh_to_xyxy
from spmtrack_core.tracking.loading import load_tracker
from spmtrack_core.tracking.tracker import Tracker

ERROR = 0.05
"""Standard deviation of the error of an edge, as a share of the side."""


def single_steps(tracker: Tracker, sequence: FrameSequence) -> float:
    """The mean IoU of the steps of a clip; NaN without one whose target is seen."""
    truth, frames = np.asarray(sequence.boxes_xywh), iter(sequence)
    rng = np.random.default_rng(1)
    target = tracker.start(next(frames), truth[0].tolist())
    found = []
    for before, frame in zip(truth, frames, strict=False):
        error = ERROR * rng.normal(size=4) * np.tile(before[2:], 2)
        if np.isfinite(before).all():
            target.box_xyxy = xywh_to_xyxy(before) + error
        found.append(tracker.follow(frame, [target])[0].box_xywh)
    return mean_iou(found, truth[1 : len(found) + 1])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", help="folder of clips with groundtruth.txt")
    parser.add_argument("--only", help="text file of the clips to use")
    parser.add_argument("--weights", nargs="+", default=["nano"])
    parser.add_argument("--overlap", type=float, nargs="+", help="box_overlap, else the weights'")
    parser.add_argument("--runtime", default="torch", help="see load_tracker")
    options = parser.parse_args()
    tracks = open_tracks(DatasetConfig("folder", options.clips, only=options.only))
    clips = [
        tracks.sequence(index)
        for index in range(len(tracks))
        if np.isfinite(tracks.boxes_xywh(index)[0]).all()
    ]
    first: dict[str, np.ndarray] = {}
    for weights in options.weights:
        tracker = load_tracker(weights, device="cpu", runtime=options.runtime)
        given = tracker.config
        for overlap in options.overlap or [given.box_overlap]:
            # a search elsewhere would take time alone: the next step begins at the true box
            tracker.config = replace(given, box_overlap=overlap, recovery="none")
            for kind, change in {"whole": None, "upper part": DISTURBANCES["upper part"]}.items():
                chosen = [change(clip) if change else clip for clip in clips]
                ious = np.array([single_steps(tracker, clip) for clip in chosen])
                gain = ious - first.setdefault(kind, ious)
                error = np.nanstd(gain) / np.isfinite(gain).sum() ** 0.5
                print(
                    f"{weights}, box_overlap {overlap:g}, {kind}: mean IoU "
                    f"{np.nanmean(ious):.3f}, difference {np.nanmean(gain):+.3f} (standard error "
                    f"{error:.3f}), more in {(gain > 0).sum()} of {len(gain)} clips",
                    flush=True,
                )


if __name__ == "__main__":
    main()
