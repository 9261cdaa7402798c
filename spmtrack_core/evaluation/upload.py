"""Result files for the servers: the zip of a run, and the check of files that exist already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data.catalog import open_sequences
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.conventions import COUNTS
from spmtrack_core.evaluation.passes import Passes, key_of
from spmtrack_core.evaluation.results import ResultFolder, run_name, unpacked
from spmtrack_core.evaluation.submission import (
    Expected,
    check,
    empty_boxes,
    read_submission,
    write_zip,
)


def submission(
    dataset: str,
    sequences: Sequence[FrameSequence],
    left_out: Sequence[str],
    folder: ResultFolder,
    passes: Passes,
) -> list[str]:
    """Write ``submission.zip`` into the folder of a run; return its summary and warnings.

    The boxes are those that these ``passes`` made; ``left_out`` are the sequences that the report
    leaves out. Raises ``ValueError`` for such a sequence, and for boxes that the server would
    reject or score too low.
    """
    faults, results, seconds = list(left_out), {}, {}
    for sequence in () if faults else sequences:
        key, frames = key_of(sequence, passes), sequence.length or 0
        names = [run_name(sequence.name, each + 1) for each in range(passes.repetitions)]
        runs = [run for name in names if (run := folder.read(name, key, frames))]
        if len(runs) == len(names):
            results[sequence.name] = [run.boxes_xywh for run in runs]
            seconds[sequence.name] = [run.seconds for run in runs]
    faults = faults or check(dataset, _expected(sequences), results)
    if faults:
        raise ValueError(f"no submission: {len(faults)} faults, first {faults[0]}")
    path = folder.root / "submission.zip"
    digest = write_zip(path, dataset, results, seconds)
    summary = (
        f"wrote {path}: {_counted(dataset, len(results))}, {passes.repetitions} repetition(s), "
        f"{path.stat().st_size / 1e6:.1f} MB, sha256 {digest}"
    )
    return [summary, *empty_boxes(results)]


def check_submission(config: DatasetConfig, results: Path) -> list[str]:
    """Check result files for the server of a dataset: a zip, or a folder of what it will hold.

    Returns a summary and warnings. Raises ``FileNotFoundError`` or ``ValueError`` for a dataset or
    files that cannot be read, and for boxes that the server would reject or score too low.
    """
    sequences, faults = open_sequences(config)
    expected = _expected(sequences)
    with unpacked(results) as folder:
        found, wrong = read_submission(config.name, folder, [each.name for each in expected])
    faults += wrong
    faults += check(config.name, [each for each in expected if each.name in found], found)
    if faults:
        raise ValueError(f"{results} has {len(faults)} faults, first {faults[0]}")
    warnings = empty_boxes(found)
    packed = ", packed without the folder itself," if results.is_dir() else ""
    summary = f"{results}{packed} can be uploaded: {_counted(config.name, len(found))}"
    return [summary, *warnings] if warnings else [f"{summary}, nothing is wrong"]


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
