"""Result files for the servers: the zip of a run, and the check of files that exist already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_sequences
from spmtrack_core.data.sequence import FrameSequence, read_boxes
from spmtrack_core.evaluation.rescore import COUNTS
from spmtrack_core.evaluation.results import ResultFolder, read_results, run_name
from spmtrack_core.evaluation.submission import Expected, check, write_zip


def submission(
    dataset: str,
    sequences: Sequence[FrameSequence],
    left_out: Sequence[str],
    folder: ResultFolder,
    repetitions: int,
) -> str:
    """Write ``submission.zip`` into the folder of a run, and return its summary.

    Raises ``ValueError`` for sequences that were left out, and for boxes that the server would
    reject or score too low.
    """
    results, seconds = {}, {}
    for sequence in sequences:
        names = [run_name(sequence.name, each + 1) for each in range(repetitions)]
        paths = [folder.root / "boxes" / f"{name}.txt" for name in names]
        if all(path.is_file() for path in paths):
            results[sequence.name] = [read_boxes(path) for path in paths]
            times = [folder.root / "time" / f"{name}.txt" for name in names]
            seconds[sequence.name] = [np.loadtxt(path, ndmin=1) for path in times]
    faults = [*left_out, *check(dataset, _expected(sequences), results)]
    if faults:
        raise ValueError(f"no submission: {len(faults)} faults, first {faults[0]}")
    path = Path(folder.root) / "submission.zip"
    digest = write_zip(path, dataset, results, seconds)
    return (
        f"wrote {path}: {_counted(dataset, len(results))}, {repetitions} repetition(s), "
        f"{path.stat().st_size / 1e6:.1f} MB, sha256 {digest}"
    )


def check_submission(config: DatasetConfig, results: Path) -> str:
    """Check result files for the server of a dataset, a folder or a zip; return a summary.

    Raises ``FileNotFoundError`` or ``ValueError`` for a dataset or files that cannot be read, and
    for boxes that the server would reject or score too low.
    """
    sequences, faults = open_sequences(config)
    found, broken = read_results(results, [each.name for each in sequences])
    faults += [f"{name}: {reason}" for name, reason in broken.items()]
    faults += check(config.name, _expected(sequences), found)
    if faults:
        raise ValueError(f"{results} has {len(faults)} faults, first {faults[0]}")
    return f"{results} can be uploaded: {_counted(config.name, len(found))}, nothing is wrong"


def _expected(sequences: Sequence[FrameSequence]) -> list[Expected]:
    return [
        Expected(each.name, each.length or 0, np.asarray(each.boxes_xywh[0]))
        for each in sequences
        if each.boxes_xywh is not None
    ]


def _counted(dataset: str, count: int) -> str:
    """The number of sequences, and what a server does without the others of its split."""
    total = COUNTS[dataset, "test"]
    if count == total:
        return f"{count} sequences"
    return f"{count} of {total} sequences (the server scores the others 0)"
