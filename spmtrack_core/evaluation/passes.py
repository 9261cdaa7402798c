"""Passes of a tracker over sequences, and what of them is done already."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import spmtrack_core
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation.results import ResultFolder, SequenceRun, run_name
from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.geometry.image import Image
from spmtrack_core.tracking.loop import TrackedFrame, track_in_step
from spmtrack_core.tracking.result import TrackState, VideoTracker
from spmtrack_core.tracking.tracker import Tracker


@dataclass(frozen=True)
class Passes:
    """How sequences are tracked."""

    identity: str = ""
    """Stands for the tracker and its settings: results of another one are not taken over."""
    repetitions: int = 1
    integer_boxes: bool = False
    exact_references: bool = False
    fresh: bool = False
    """Track again what was tracked before, by this run or by another one in the same folder."""
    batch: int = 1
    """Sequences that are tracked at once, with one pass of the network for all of them."""


Notify = Callable[[str, int, str | None], object]
"""Called with the name of a sequence, frames that are done, and why it cannot be tracked."""


def check_folder(sequences: Sequence[FrameSequence], folder: ResultFolder, passes: Passes) -> None:
    """Raise ``ValueError`` where ``folder`` holds results that another run made of ``sequences``.

    A fresh run gives them up instead: each stays until a new one replaces it. Raises
    ``ValueError`` also where two passes would have the same files.
    """
    names = Counter(sequence.name for sequence in sequences)
    if twins := [name for name, count in names.items() if count > 1]:
        raise ValueError(
            f"{names[twins[0]]} sequences are called {twins[0]}, and would share their files; "
            "expected a name of its own for each: rename or leave out the others"
        )
    owners: dict[str, str] = {}
    for sequence in sequences:
        for repetition in range(1, passes.repetitions + 1):
            name = run_name(sequence.name, repetition)
            who = f"repetition {repetition} of {sequence.name}"
            if (other := owners.setdefault(name, who)) != who:
                raise ValueError(
                    f"{other} and {who} would both be {name}.txt; rename one of the sequences, or "
                    f"set repetitions=1 (it is {passes.repetitions})"
                )
            if not _is_of_another(folder, name, sequence, passes):
                continue
            if not passes.fresh:
                raise ValueError(
                    f"{folder.root} holds {name} of another run (other weights, settings, "
                    "version, frames or boxes); choose another --output, or, for eval, --fresh "
                    "to replace what is there"
                )
            with folder.claim(name) as mine:  # nobody writes it just now
                if mine and _is_of_another(folder, name, sequence, passes):
                    folder.give_up(name)


def _is_of_another(
    folder: ResultFolder, name: str, sequence: FrameSequence, passes: Passes
) -> bool:
    """Whether a result is complete and of another run; not for a sequence that is broken."""
    key = folder.key(name)
    try:
        return key is not None and key != key_of(sequence, passes)
    except (OSError, ValueError):
        return False


def track_all(
    tracker: VideoTracker,
    sequences: Sequence[FrameSequence],
    folder: ResultFolder,
    passes: Passes,
    notify: Notify,
    since: float | None = None,
) -> None:
    """Track what is not in ``folder`` yet and what no other process works on.

    A sequence that could not be tracked at or after the time ``since`` is not tried again. Only
    this project's ``Tracker`` takes several sequences at once.
    """
    since = time.time() if since is None else since
    follow, count = lambda frames, _: [tracker.update(frames[0])], 1
    if isinstance(tracker, Tracker):
        follow, count = tracker.follow_each, passes.batch
    with ExitStack() as locks:  # of passes that an interruption leaves open
        waiting = _missing(tracker, sequences, folder, passes, notify, since, locks)
        for each, tracked in track_in_step(follow, waiting, count):
            if isinstance(tracked, TrackedFrame):
                each.add(tracked)
                notify(each.sequence.name, 1, None)
                continue
            with each.lock:
                try:
                    folder.write(each.name, each.result(tracked), each.key)
                except (OSError, ValueError) as error:
                    folder.fail(each.name, str(error))
                    notify(each.sequence.name, 0, str(error))


def _missing(
    tracker: VideoTracker,
    sequences: Sequence[FrameSequence],
    folder: ResultFolder,
    passes: Passes,
    notify: Notify,
    since: float,
    locks: ExitStack,
) -> Iterator[_Pass]:
    """The passes that are to be made, each locked; one at a time, as they are asked for."""
    for sequence in sequences:
        try:
            truth, key = truth_of(sequence), key_of(sequence, passes)
        except (OSError, ValueError) as error:
            with folder.claim(sequence.name) as mine:
                if mine:
                    folder.fail(sequence.name, str(error))
                    notify(sequence.name, 0, str(error))
            continue
        frames = sequence.length or len(truth)
        for repetition in range(1, passes.repetitions + 1):
            name = run_name(sequence.name, repetition)
            with ExitStack() as lock:
                if not lock.enter_context(folder.claim(name)):
                    continue
                if folder.failure(name, since) is not None:
                    continue
                oldest = since if passes.fresh else 0.0
                if folder.read(name, key, frames, oldest) is not None:
                    notify(sequence.name, frames, None)
                    continue
                held = locks.enter_context(lock.pop_all())
                yield _Pass(tracker, sequence, passes, name, key, truth, held)


@dataclass
class _Pass:
    """One pass over a sequence."""

    tracker: VideoTracker
    sequence: FrameSequence
    passes: Passes
    name: str
    key: str
    truth: Boxes
    lock: ExitStack
    """Closed at the end."""
    tracked: list[tuple[Any, ...]] = field(default_factory=list)
    """Box, seconds, confidence and whether the target is lost, of each frame."""
    too_long: bool = False

    @property
    def expected(self) -> int:
        """Frames that the sequence should have."""
        length = self.sequence.length
        return length if len(self.truth) == 1 and length else len(self.truth)

    @property
    def box_xywh(self) -> Sequence[float]:
        box: list[float] = self.truth[0].tolist()
        return box

    def frames(self) -> Iterator[Image]:
        for index, frame in enumerate(self.sequence):
            if index == self.expected:
                self.too_long = True
                return
            yield frame

    def start(self, frame: Image) -> Any:
        if not isinstance(self.tracker, Tracker):
            return self.tracker.init(frame, self.box_xywh)
        config = self.tracker.config
        if self.passes.exact_references:
            self.tracker.config = replace(config, exact_frames=self.expected)
        try:
            return self.tracker.start(frame, self.box_xywh)
        finally:
            self.tracker.config = config

    def add(self, tracked: TrackedFrame) -> None:
        """Keep the result of the next frame."""
        box, confidence, state = tracked.result
        self.tracked.append((box, tracked.seconds, confidence, state is TrackState.LOST))

    def result(self, error: Exception | None) -> SequenceRun:
        """All frames; ``ValueError`` for one that is broken and for another number of frames."""
        if error is not None:
            raise ValueError(f"frame {len(self.tracked) + 1}: {error}")
        if self.too_long:
            raise ValueError(f"has more frames than its {self.expected} boxes")
        if len(self.tracked) != self.expected:
            raise ValueError(f"has {len(self.tracked)} frames for {self.expected} boxes")
        boxes, seconds, confidence, lost = zip(*self.tracked, strict=True)
        found = np.array(boxes, float)
        if self.passes.integer_boxes:
            found[1:] = whole_boxes(found[1:])
        batch = self.passes.batch if isinstance(self.tracker, Tracker) else 1
        columns = np.array(seconds), np.array(confidence), np.array(lost, bool)
        return SequenceRun(found, *columns, batch)


def truth_of(sequence: FrameSequence) -> Boxes:
    """The boxes of all frames, or the first alone where a server has the others."""
    truth, annotation = sequence.boxes_xywh, sequence.annotation
    first_only = annotation is not None and annotation.first_only
    if truth is None or (len(truth) == 1 and sequence.length != 1 and not first_only):
        raise ValueError("has no boxes to compare with")
    return truth


def key_of(sequence: FrameSequence, passes: Passes) -> str:
    """Digest of what makes a result: tracker, settings, version, boxes, first frame, and the names
    and sizes of the files that the frames are in.

    How many sequences were tracked at once is no part: that changes roundings, as the device does.
    """
    first = next(iter(sequence), None)
    if first is None:
        raise ValueError("has no frame")
    made = passes.identity, passes.integer_boxes, passes.exact_references
    about = spmtrack_core.__version__, *made, sequence.length, first.shape
    digest = hashlib.sha256(repr(about).encode())
    digest.update(np.asarray(sequence.boxes_xywh).tobytes())
    digest.update(first.tobytes())
    for path in sequence.files() if sequence.files else ():
        digest.update(os.fsencode(f"{path.name} {path.stat().st_size}\n"))
    return digest.hexdigest()


def whole_boxes(boxes_xywh: Boxes) -> Boxes:
    """(N, 4) boxes of whole numbers, as the authors send them to servers: the left and upper edge
    are rounded down, the right and lower edge up, unless they are less than 0.0001 px beyond.

    >>> whole_boxes(np.array([[1.6, 2.6, 10.1, 10.1]])).tolist()
    [[1.0, 2.0, 11.0, 11.0]]
    """
    low = np.floor(boxes_xywh[:, :2])
    high = np.floor(boxes_xywh[:, :2] + boxes_xywh[:, 2:] + 0.9999)
    return np.concatenate([low, high - low], 1)
