"""Zips for the servers of GOT-10k and TrackingNet, checked by their rules before the upload."""

from __future__ import annotations

import fnmatch
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spmtrack_core.files import sha256_of, write_beside
from spmtrack_core.geometry.boxes import Boxes

SERVERS = ("got10k", "trackingnet")
"""Datasets whose test split has one box a sequence."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every member, so that the same boxes make the same file."""


@dataclass(frozen=True)
class Expected:
    """One sequence of a test split."""

    name: str
    frames: int
    first_xywh: NDArray[np.float64]
    """(4,) the given box."""


def check(
    dataset: str, expected: Sequence[Expected], results: Mapping[str, Sequence[Boxes]]
) -> list[str]:
    """What a server would score too low or reject, one line each; empty if nothing.

    The servers themselves report no error for a file that is missing, short or misnamed: the score
    is lower.
    """
    faults = []
    names = {each.name for each in expected}
    for each in expected:
        passes = results.get(each.name, ())
        if not passes:
            faults.append(f"{each.name}: no boxes")
        for number, boxes in enumerate(passes, 1):
            where = each.name if len(passes) == 1 else f"{each.name}, repetition {number}"
            if len(boxes) != each.frames:
                faults.append(f"{where}: {len(boxes)} boxes for {each.frames} frames")
            if not np.isfinite(boxes).all():
                faults.append(f"{where}: a box has a value that is not finite")
            elif (boxes[:, 2:] < 0).any():
                line = int(np.flatnonzero((boxes[:, 2:] < 0).any(1))[0]) + 1
                faults.append(f"{where}, line {line}: a box has a negative size")
            # results may be whole numbers, which widen a box by less than 2
            if np.abs(boxes[0] - each.first_xywh).max() >= 2:
                first = ",".join(f"{value:g}" for value in each.first_xywh)
                faults.append(f"{where}: the first box is not the given one ({first})")
    faults += [f"{name}: not a sequence of this test split" for name in set(results) - names]
    if dataset == "trackingnet":  # the server looks for names that contain the expected one
        faults += [
            f"{short}: also part of the name {long}; the server rejects both"
            for short in sorted(names)
            for long in sorted(set(results))
            if short != long and f"{short}.txt" in f"{long}.txt"
        ]
    return faults


def read_submission(
    dataset: str, folder: Path, names: Sequence[str]
) -> tuple[dict[str, list[Boxes]], list[str]]:
    """Boxes by sequence, one array a repetition, as the server of ``dataset`` reads them.

    ``folder`` is what the zip holds. The list has a line for each file that the server would not
    find or could not read: it takes the layout of ``write_zip``, and commas between numbers. The
    server of GOT-10k also takes one folder above all others, that of TrackingNet any folders, as
    SPMTrack's own code writes them.
    """
    # servers pass over what macOS adds
    paths = [path for path in folder.rglob("*.txt") if "__MACOSX" not in path.parts]
    above = {path.relative_to(folder).parts[0] for path in paths}
    if dataset == "got10k" and len(above) == 1 and not above & set(names):
        folder = folder / above.pop()
    files = sorted(path.relative_to(folder).as_posix() for path in paths)
    results: dict[str, list[Boxes]] = {}
    faults: list[str] = []
    for name in names:
        if dataset == "got10k":
            boxes = fnmatch.filter(files, f"{name}/{name}_[0-9][0-9][0-9].txt")
            boxes = boxes or [f"{name}/{name}_001.txt"]
            needed, twins = [*boxes, f"{name}/{name}_time.txt"], []
        else:  # the server looks for paths that contain the expected name
            found = [each for each in files if f"{name}.txt" in each]
            boxes = [each for each in found if Path(each).name == f"{name}.txt"][:1]
            boxes = needed = boxes or [f"{name}.txt"]
            twins = [each for each in found if each not in boxes]
        missing = [each for each in needed if each not in files]
        wrong = [f"{name}: no {each} (names, capitals and folders count)" for each in missing]
        wrong += [
            f"{name}: also part of the name {each}; the server rejects both" for each in twins
        ]
        try:
            if not wrong:
                columns = [_read_columns(folder, each, 4 * (each in boxes)) for each in needed]
                results[name] = columns[: len(boxes)]
        except ValueError as error:
            wrong = [f"{name}: {error}"]
        faults += wrong
    return results, faults


def _read_columns(folder: Path, file: str, columns: int = 0) -> Boxes:
    """(N, columns) numbers of a file; 0: as many columns as its first line has.

    Raises ``ValueError`` for what a server could not read; ``read_boxes`` takes much more.
    """
    rows = []
    for number, line in enumerate((folder / file).read_text("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split(",")]
        except ValueError:
            row = []
        columns = columns or len(row) or 1
        if len(row) != columns:
            raise ValueError(
                f"{file}, line {number}: expected numbers between commas, {columns} a line; "
                f"got {line[:60]!r}"
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{file} is empty")
    return np.array(rows)


def empty_boxes(results: Mapping[str, Sequence[Boxes]]) -> list[str]:
    """A warning of boxes without an area, which a server takes; empty if there are none."""
    found = [
        (name, number, line)
        for name, passes in results.items()
        for number, boxes in enumerate(passes, 1)
        for line in np.flatnonzero((np.asarray(boxes)[:, 2:] == 0).any(1)) + 1
    ]
    if not found:
        return []
    name, number, line = found[0]
    first = f"{name}, repetition {number}, line {line}"
    return [f"warning: {len(found)} boxes have no area, and so an overlap of 0; first {first}"]


def write_zip(
    path: Path,
    dataset: str,
    results: Mapping[str, Sequence[Boxes]],
    seconds: Mapping[str, Sequence[NDArray[np.float64]]] | None = None,
) -> str:
    """Write the zip that the server of ``dataset`` takes; return its SHA-256.

    GOT-10k: ``<name>/<name>_001.txt`` and so on, and ``<name>/<name>_time.txt`` with a column a
    repetition. TrackingNet: ``<name>.txt`` of the first repetition, without folders.
    """
    members: dict[str, str] = {}
    for name in sorted(results):
        for number, boxes in enumerate(results[name], 1):
            text = "".join(",".join(f"{value:.10g}" for value in box) + "\n" for box in boxes)
            if dataset == "got10k":
                members[f"{name}/{name}_{number:03d}.txt"] = text
            elif number == 1:
                members[f"{name}.txt"] = text
        if dataset == "got10k":
            # a repetition that took the same boxes may have no time of its own
            times = (seconds or {}).get(name) or [np.full(len(results[name][0]), 1e-3)]
            table = np.nan_to_num(np.stack(list(times), 1), nan=1e-3)
            rows = (",".join(f"{value:.6f}" for value in row) + "\n" for row in table)
            members[f"{name}/{name}_time.txt"] = "".join(rows)

    def write(beside: Path) -> None:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, text in members.items():
                archive.writestr(zipfile.ZipInfo(member, EPOCH), text, zipfile.ZIP_DEFLATED)

    write_beside(path, write)
    return sha256_of(path)
