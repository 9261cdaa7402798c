"""Without a tracker: score the result files of any tracker, and check a dataset on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_annotations, open_sequences
from spmtrack_core.data.clips import Track, cut_track
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.data.toolkits import read_attributes
from spmtrack_core.evaluation.conventions import COUNTS
from spmtrack_core.evaluation.report import Facts, told_once, write_report
from spmtrack_core.evaluation.results import SequenceRun, read_results
from spmtrack_core.evaluation.scoring import fingerprint, score_sequence
from spmtrack_core.geometry.boxes import Boxes


def rescore(
    config: DatasetConfig, results: Path, output: Path, attributes: Path | None = None
) -> dict[str, Any]:
    """Score the files in ``results``, a folder or a zip, as ``runner.run`` does its own.

    The annotations are read, the images are not. Files may count pixels from 0 or as the dataset
    does; their first boxes tell. Raises ``FileNotFoundError`` or ``ValueError`` for a dataset or
    results that cannot be used, and ``ValueError`` for the ``output`` of a run.
    """
    if (output / "done").is_dir():
        raise ValueError(f"{output} holds a run and its report; choose another --output")
    tracks, faults = open_annotations(config)
    found, broken = read_results(results, [track.name for track in tracks])
    faults += [f"{name}: {reason}" for name, reason in broken.items()]
    usable = [track for track in tracks if track.name in found and track.name not in broken]
    faults += [
        f"{track.name}: no result file"
        for track in tracks
        if track.name not in found and track.name not in broken
    ]
    origin = _origin(usable, found)
    notes = []
    if origin:
        notes.append(f"the result files count pixels from {origin:g}, as the dataset does")
    usable = [_attributed(config.name, track, attributes) for track in usable]
    if config.name == "nfs":
        usable = [_without_spare(track, found[track.name]) for track in usable]
    scores = []
    for track in usable:
        runs = [_as_run(boxes - [origin, origin, 0, 0]) for boxes in found[track.name]]
        score = score_sequence(config.name, track, runs)
        if score.curves:
            scores.append(score)
        else:  # too short for every convention
            shortest = min(len(boxes) for boxes in found[track.name])
            faults.append(f"{track.name}: {shortest} boxes for {len(track.boxes_xywh)} frames")
    usable = [score.track for score in scores]
    split = "" if config.name == "folder" else config.split
    facts = Facts(config.name, split, {"rescored": str(results)}, notes)
    return write_report(output, _label(results), scores, [], faults, fingerprint(usable), facts)


def _label(results: Path) -> str:
    """What the tracker is called: as the folder or the zip of its results."""
    place = results.resolve()
    name = place.name if place.is_dir() else place.stem
    return place.parent.name if name in ("results", "boxes") else name


def check_dataset(config: DatasetConfig) -> tuple[list[str], list[str]]:
    """Lines about the sequences of a dataset on disk, and what is wrong with it.

    Every annotation is read, every image counted and the first of each sequence opened. The
    sequences of a whole split are counted, not those that ``exclude`` or ``only`` leaves.
    """
    sequences, faults = open_sequences(config)
    frames = sum(sequence.length or 0 for sequence in sequences)
    lines = [f"{config.name} {config.split}: {len(sequences)} sequences, {frames} frames"]
    expected = COUNTS.get((config.name, config.split))
    whole = config.exclude is None and config.only is None
    if whole and expected is not None and len(sequences) + len(faults) != expected:
        total = len(sequences) + len(faults)
        faults.append(f"{total} sequences on disk; the dataset has {expected}")
    notes = told_once(
        (sequence.name, note)
        for sequence in sequences
        if sequence.annotation
        for note in sequence.annotation.notes
    )
    lines += [f"note: {note}" for note in notes]
    lines += [f"wrong: {fault}" for fault in faults] or ["nothing is wrong"]
    return lines, faults


def with_attributes(
    dataset: str, sequences: Sequence[FrameSequence], folder: Path | None
) -> list[FrameSequence]:
    """The sequences with the attributes of the files in ``folder``, where one is given."""
    return [
        replace(sequence, annotation=_attributed(dataset, sequence.annotation, folder))
        if sequence.annotation and folder
        else sequence
        for sequence in sequences
    ]


def _attributed(dataset: str, track: Track, folder: Path | None) -> Track:
    if folder is None:
        return track
    return replace(track, attributes=read_attributes(dataset, folder, track.name))


def _without_spare(track: Track, runs: Sequence[Boxes]) -> Track:
    """A track of NfS without its last box where the results have one less: some of its videos have
    a box more than images.
    """
    length = len(track.boxes_xywh)
    if {len(run) for run in runs} != {length - 1}:
        return track
    note = f"{length - 1} result boxes for {length} true ones: the last true box is dropped"
    return cut_track(track, length - 1, note)


def _origin(tracks: Sequence[Track], found: dict[str, list[Boxes]]) -> float:
    """What the files count pixels from: their first boxes are the given ones."""
    origins = {track.origin for track in tracks} - {0.0}
    if not origins:
        return 0.0
    origin = origins.pop()
    first = np.array([found[track.name][0][0, :2] for track in tracks])
    given = np.array([track.boxes_xywh[0, :2] for track in tracks])
    distance = np.abs(first - given).sum(1)
    shifted = np.abs(first - given - origin).sum(1)
    change = shifted - distance
    change = change[~np.isnan(change)]  # a first box may be NaN: the target is given, not found
    return origin if len(change) and float(np.median(change)) < 0 else 0.0


def _as_run(boxes_xywh: Boxes) -> SequenceRun:
    unknown = np.full(len(boxes_xywh), np.nan)
    return SequenceRun(boxes_xywh, unknown, unknown, np.zeros(len(boxes_xywh), bool))
