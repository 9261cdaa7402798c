"""The worst sequences of a run as contact sheets: frames with both boxes, and IoU over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.plots import save
from spmtrack_core.evaluation.scoring import SequenceScore
from spmtrack_core.geometry.drawing import draw_box
from spmtrack_core.geometry.image import Image

WORST, FRAMES = 10, 8
SIDE = 320
"""Longer side of a frame on a sheet, px."""
TRUE, FOUND = (40, 200, 60), (230, 60, 40)


def write_sheets(
    folder: Path, sequences: Mapping[str, FrameSequence], scores: Sequence[SequenceScore]
) -> None:
    """One PNG for each of the ten sequences with the lowest mean IoU, numbered from the worst.

    Frames are spread evenly over the sequence; the true box is green, the tracker's red.
    """
    known = [score for score in scores if not np.isnan(score.mean_iou)]
    worst = sorted(known, key=lambda score: score.mean_iou)[:WORST]
    for path in folder.glob("[0-9][0-9] *.png"):  # of a run before
        path.unlink()
    for rank, score in enumerate(worst, 1):
        name = score.track.name.replace("/", "-")
        save(folder / f"{rank:02d} {name}.png", _sheet(sequences[score.track.name], score))


def _sheet(sequence: FrameSequence, score: SequenceScore) -> Figure:
    run, truth = score.runs[0], score.track.shown_xywh
    chosen = np.unique(np.linspace(0, len(truth) - 1, FRAMES).round().astype(int)).tolist()
    figure = Figure(figsize=(14, 7), layout="constrained")
    grid = figure.add_gridspec(3, FRAMES // 2, height_ratios=(3, 3, 2))
    for place, (index, frame) in enumerate(_frames(sequence, chosen)):
        axes = figure.add_subplot(grid[divmod(place, FRAMES // 2)])
        axes.imshow(_drawn(frame, truth[index], run.boxes_xywh[index]))
        axes.set_title(f"frame {index + 1}", fontsize="small")
        axes.axis("off")
    axes = figure.add_subplot(grid[2, :])
    frames = np.arange(1, len(truth) + 1)
    if (absent := np.isnan(score.iou[0])).any():
        axes.fill_between(frames, 0, 1, where=absent, color="0.9", label="absent")
    axes.plot(frames, score.iou[0], lw=1, label="IoU")
    if not np.isnan(run.confidence[1:]).all():
        axes.plot(frames, run.confidence, lw=0.8, alpha=0.6, label="confidence")
    axes.set(xlim=(1, max(len(truth), 2)), ylim=(0, 1), xlabel="frame")
    axes.legend(fontsize="small", loc="lower left")
    axes.grid(alpha=0.3)
    title = f"{score.track.name}: mean IoU {score.mean_iou:.3f} (true box green, tracker red)"
    figure.suptitle(title, fontsize="medium")
    return figure


def _frames(sequence: FrameSequence, chosen: Sequence[int]) -> list[tuple[int, Image]]:
    """The frames of these indices."""
    if sequence.read_frame is not None:
        return [(index, sequence.read_frame(index)) for index in chosen]
    frames = enumerate(islice(sequence, chosen[-1] + 1))
    return [(index, frame) for index, frame in frames if index in chosen]


def _drawn(frame: Image, truth_xywh: np.ndarray, found_xywh: np.ndarray) -> Image:
    """A small copy of a frame with both boxes."""
    scale = SIDE / max(frame.shape[:2])
    shape = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
    image = cv2.resize(frame, shape, interpolation=cv2.INTER_AREA)
    image = draw_box(image, truth_xywh * scale, color=TRUE)
    return draw_box(image, found_xywh * scale, color=FOUND)
