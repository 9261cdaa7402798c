"""From a run on a split without truth to the zip for its server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spmtrack_core.data.sequence import FrameSequence, read_boxes
from spmtrack_core.evaluation.results import ResultFolder, run_name
from spmtrack_core.evaluation.submission import Expected, check, write_zip


def submission(
    dataset: str, sequences: Sequence[FrameSequence], folder: ResultFolder, repetitions: int
) -> str:
    """Write ``submission.zip`` into the folder of a run, and return its summary.

    Raises ``ValueError`` for boxes that the server would reject or score too low.
    """
    expected, results, seconds = [], {}, {}
    for sequence in sequences:
        truth = sequence.boxes_xywh
        if truth is None:
            continue
        expected.append(Expected(sequence.name, sequence.length, np.asarray(truth[0])))
        names = [run_name(sequence.name, each + 1) for each in range(repetitions)]
        paths = [folder.root / "boxes" / f"{name}.txt" for name in names]
        if all(path.is_file() for path in paths):
            results[sequence.name] = [read_boxes(path) for path in paths]
            times = [folder.root / "time" / f"{name}.txt" for name in names]
            seconds[sequence.name] = [np.loadtxt(path, ndmin=1) for path in times]
    faults = check(dataset, expected, results)
    if faults:
        raise ValueError(f"no submission: {len(faults)} faults, first {faults[0]}")
    path = Path(folder.root) / "submission.zip"
    digest = write_zip(path, dataset, results, seconds)
    return (
        f"wrote {path}: {len(results)} sequences, {repetitions} repetition(s), "
        f"{path.stat().st_size / 1e6:.1f} MB, sha256 {digest}"
    )
