"""Result files: those of a run of ours, and those of any tracker, to be scored again.

A run of ours is a folder with ``boxes/``, ``time/``, ``confidence/`` and ``state/``, one text file
a sequence in each, and ``done/``, which says what each file was made with.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import tempfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spmtrack_core.data.images import natural_key
from spmtrack_core.data.recording import write_boxes
from spmtrack_core.data.sequence import read_boxes
from spmtrack_core.files import read_text, write_beside, write_text
from spmtrack_core.geometry.boxes import Boxes

KINDS = ("boxes", "time", "confidence", "state")
PREFIXES = re.compile(r"(?:uav|nfs|tpl|otb|lasot|tnl2k)_", re.IGNORECASE)
"""What other toolkits put before the name of a sequence."""
OTHERS = re.compile(r".*[-_](?:times?|confidences?|scores?|all_scores|all_boxes)", re.IGNORECASE)
"""What they write beside boxes."""
REPEATED = re.compile(r"(.+)_(0\d\d)(?:_tracking_result)?")
"""A folder with one repetition of a tracker, as pytracking and SPMTrack's own code name it."""


class SequenceRun(NamedTuple):
    """What a tracker did on one sequence of N frames."""

    boxes_xywh: Boxes
    """(N, 4) px; the first is the given one."""
    seconds: NDArray[np.float64]
    """(N,) time of the tracker, the first with its start; NaN where unknown."""
    confidence: NDArray[np.float64]
    """(N,) NaN where the tracker has none: in the first frame always."""
    lost: NDArray[np.bool_]
    """(N,) whether the tracker reported its target as lost."""
    batch: int = 1
    """Sequences that were tracked at once; ``seconds`` are a frame's share of the time."""


class ResultFolder:
    """The files of a run in ``root``, which several processes may write at the same time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, run: SequenceRun, key: str) -> None:
        """Keep what was done on a sequence; ``key`` says what made it."""
        self.give_up(name)  # an interruption leaves files of two runs, and no note
        paths = self._paths(name)
        write_boxes(paths[0], run.boxes_xywh)
        for path, column in zip(paths[1:3], run[1:3], strict=True):
            write_beside(path, partial(np.savetxt, X=column, fmt="%.6f"))
        words = "".join("lost\n" if lost else "tracking\n" for lost in run.lost)
        write_text(paths[3], words)
        self._note(name, {"key": key, "time": time.time(), "batch": run.batch})

    def read(self, name: str, key: str, frames: int, since: float = 0.0) -> SequenceRun | None:
        """What a run with the same ``key`` left of a sequence; None if that is not complete, or
        older than the time ``since``.
        """
        noted = self._noted(name)
        if noted.get("key") != key or noted.get("time", 0.0) < since:
            return None
        boxes, seconds, confidence, state = self._paths(name)
        try:
            lost = np.array(read_text(state).split()) == "lost"
            times, scores = (np.loadtxt(path, ndmin=1) for path in (seconds, confidence))
            run = SequenceRun(read_boxes(boxes), times, scores, lost, int(noted.get("batch", 1)))
        except (OSError, ValueError, TypeError):
            return None
        return run if all(len(column) == frames for column in run[:4]) else None

    def key(self, name: str) -> str | None:
        """What made the result of a sequence; None where there is no complete one."""
        return self._noted(name).get("key")

    def give_up(self, name: str) -> None:
        """Let no run take over the result of a sequence; a later one replaces the files."""
        self._note_of(name).unlink(missing_ok=True)

    def fail(self, name: str, reason: str) -> None:
        """Keep why a sequence could not be tracked, beside the result of an earlier attempt."""
        self._note(name, {**self._noted(name), "error": reason, "failed": time.time()})

    def failure(self, name: str, since: float) -> str | None:
        """Why a sequence could not be tracked at or after a time; None if it could, or earlier."""
        noted = self._noted(name)
        return noted.get("error") if noted.get("failed", 0.0) >= since else None

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """True while this process alone works on a sequence; False if another one does.

        The lock of a process that ends, by whatever cause, is free again. Raises ``OSError`` where
        the file system has no locks.
        """
        path = self.root / "done" / f".{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError as error:
                raise OSError(
                    f"{path} cannot be locked: {error.strerror}; choose an output on a file "
                    "system with locks (flock)"
                ) from None
            yield True

    def _paths(self, name: str) -> list[Path]:
        return [self.root / kind / f"{name}.txt" for kind in KINDS]

    def _note_of(self, name: str) -> Path:
        return self.root / "done" / f"{name}.json"

    def _note(self, name: str, noted: dict[str, object]) -> None:
        write_text(self._note_of(name), json.dumps(noted) + "\n")

    def _noted(self, name: str) -> dict:
        try:
            noted = json.loads(self._note_of(name).read_text(encoding="utf-8"))
            return noted if isinstance(noted, dict) else {}
        except (OSError, ValueError):
            return {}


def run_name(sequence: str, repetition: int) -> str:
    """Name of the files of one pass over a sequence; repetitions count from 1."""
    return sequence if repetition == 1 else f"{sequence}_{repetition:03d}"


def read_results(
    path: Path, names: Sequence[str]
) -> tuple[dict[str, list[Boxes]], dict[str, str]]:
    """Boxes of any tracker by sequence, one array a repetition, from a folder or a zip.

    A file belongs to a sequence by its name: ``<name>.txt``, with a prefix such as ``uav_``, or
    numbered as GOT-10k does (``<name>/<name>_001.txt``) or by its folder (``REPEATED``). Results
    on other datasets may lie beside it. The second dict has the reason for each file that cannot
    be read. Raises ``FileNotFoundError`` without the path, and ``ValueError`` for one that is
    damaged, holds no result of these sequences, or those of several trackers.
    """
    with unpacked(Path(path)) as folder:
        return _read_folder(folder, Path(path), names)


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A folder with the text files of a zip until the end; ``path`` itself where it is a folder.

    Raises ``FileNotFoundError`` without the path and ``ValueError`` for a zip that is damaged.
    """
    if path.is_dir():
        yield path
        return
    if not path.exists():
        raise FileNotFoundError(f"no folder or zip of result files at {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is neither a folder nor a complete zip")
    with tempfile.TemporaryDirectory(prefix="spmtrack-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.endswith(".txt") and "__MACOSX" not in member:
                        archive.extract(member, folder)  # drops .. and absolute parts of names
        # RuntimeError: encrypted, or of a method that is not supported
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"{path} cannot be unpacked: {error}") from None
        yield Path(folder)


def _read_folder(
    root: Path, shown: Path, names: Sequence[str]
) -> tuple[dict[str, list[Boxes]], dict[str, str]]:
    found: dict[str, list[Boxes]] = {}
    faults: dict[str, str] = {}
    # a run of ours has other files with these names beside its boxes, or below (compare)
    runs = [root / "boxes"] if (root / "boxes").is_dir() else [*root.glob("*/boxes")]
    boxes = {run.parent: run for run in runs if run.is_dir()}
    files = [
        file
        for file in root.rglob("*.txt")
        if not file.name.startswith(".")
        and all(boxes.get(above, above) in file.parents for above in file.parents)
    ]
    passes: dict[tuple[str, int], Path] = {}
    trackers: dict[str, tuple[Path, Path]] = {}
    for name, tracker, number, file in _owned(files, names):
        first, other = trackers.setdefault(name, (tracker, file))
        if tracker == first:
            other = passes.setdefault((name, number), file)
        if tracker != first or other is not file:
            both = " and ".join(str(each.relative_to(root)) for each in (other, file))
            raise ValueError(
                f"{shown} holds {both}: expected the files of one tracker, repetitions "
                f"as {name}_001.txt, {name}_002.txt"
            )
        try:
            found.setdefault(name, []).append(read_boxes(file))
        except ValueError as error:
            faults[name] = str(error).replace(str(root), str(shown))
    if not found and not faults:
        example = min((file.name for file in files), default="no .txt file")
        raise ValueError(
            f"{shown} holds no result of these sequences: expected names such as "
            f"{names[0]}.txt; got {example}"
        )
    return found, faults


def _owned(files: Sequence[Path], names: Sequence[str]) -> Iterator[tuple[str, Path, int, Path]]:
    """Sequence, folder of the tracker, repetition and file; ``S_*`` for repetitions in ``S_001``.

    Of each tracker only the files whose names fit best: authors pack their results on all datasets
    together, so that ``nfs_bird_2.txt`` lies beside ``bird-2.txt`` of LaSOT.
    """
    known, exact = {_plain(name): name for name in names}, set(names)
    fitting: dict[tuple[str, Path], list[tuple[int, int, Path]]] = {}
    for file in sorted(files, key=lambda file: (natural_key(file.name), file)):
        stem = file.stem.rpartition("\\")[2]  # in zips made on Windows
        if owner := _owner(stem, exact, known):
            name, number, rank = owner
            tracker = file.parent
            if number is None:
                number = 1
                if repeated := REPEATED.fullmatch(tracker.name):
                    tracker, number = tracker.with_name(f"{repeated[1]}_*"), int(repeated[2])
            fitting.setdefault((name, tracker), []).append((rank, number, file))
    for (name, tracker), ranked in fitting.items():
        best = min(rank for rank, *_ in ranked)
        yield from ((name, tracker, number, file) for rank, number, file in ranked if rank == best)


def _owner(
    stem: str, exact: set[str], known: dict[str, str]
) -> tuple[str, int | None, int] | None:
    """The sequence that a file belongs to, its number as a repetition if it has one, and how badly
    the name fits; None if to none.
    """
    plain = PREFIXES.sub("", stem, count=1)
    for rank, text in enumerate((stem, plain)):
        if text in exact:
            return text, None, rank
    for text in (stem, plain):
        if (name := known.get(_plain(text))) is not None:
            return name, None, 2
    numbered = re.fullmatch(r"(.+)_(\d{3})", stem)
    if numbered and not OTHERS.fullmatch(stem):
        owner = _owner(numbered[1], exact, known)
        return owner and (owner[0], int(numbered[2]), owner[2])
    return None


def _plain(name: str) -> str:
    """A name without what systems and toolkits write differently: ``Jogging-1``, ``jogging.1``."""
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", name).casefold())
