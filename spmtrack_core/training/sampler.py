"""Choice of the frames of a sample: three references and the searches after them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spmtrack_core.tracking.references import REFERENCES
from spmtrack_core.training.config import VideoConfig

ATTEMPTS = 20

Frames = NDArray[np.int64]


def sample_frames(
    visible: NDArray[np.bool_],
    random: np.random.Generator,
    config: VideoConfig,
    searches: int = 2,
) -> tuple[Frames, Frames]:
    """Frame indices of the references (3,) and of the searches (S,), in their order of use.

    All of them show the target: a base frame, two others within ``reference_gap`` of it, and the
    searches within ``search_gap`` of these three, all before the first or all after the last. The
    frames are in order of time, or reversed. The first three are the references, so that the
    searches follow them, as in tracking. A frame may be drawn more than once.

    For a track with too few frames for this rule, or with frames too far apart, neighboring
    visible frames are taken, whatever their distance, and repeated evenly if there are too few.

    In a share ``absent_share``, the last search is a frame without the target (``visible`` is
    False), and the other frames are visible ones within ``search_gap`` on one side of it. If the
    track has no such frame, or the drawn one is too far from any visible frame, all are visible.

    Args:
        visible: (N,) whether the target is in the frame.
        random: source of all random numbers.
        config: gaps and shares.
        searches: number of searches S; 2 as published.

    Raises:
        ValueError: no frame is visible.

    """
    shown = np.flatnonzero(visible)
    if not len(shown):
        raise ValueError(f"none of the {len(visible)} frames of the track shows its target")
    reverse = random.random() < config.reverse
    frames = None
    if config.absent_share and random.random() < config.absent_share:
        frames = _up_to_an_absence(visible, shown, reverse, random, config, searches)
    if frames is None:
        frames = _one_sided(shown, random, config, searches)
        if frames is None:
            frames = _neighbors(shown, random, REFERENCES + searches)
        if reverse:
            frames = frames[::-1]
    return frames[:REFERENCES], frames[REFERENCES:]


def _one_sided(
    shown: Frames, random: np.random.Generator, config: VideoConfig, searches: int
) -> Frames | None:
    """(R + S,) sorted frames by the published rule; None if no attempt finds enough frames."""
    for _ in range(ATTEMPTS):
        base = int(random.integers(len(shown)))  # an index of ``shown``, as all below
        start, stop = _within(
            shown, shown[base] - config.reference_gap, shown[base] + config.reference_gap
        )
        if stop - start < 2:  # no frame but the base
            continue
        others = random.integers(start, stop - 1, REFERENCES - 1)
        others += others >= base
        places = np.sort(np.append(others, base))
        first, last = int(places[0]), int(places[-1])
        before, _ = _within(shown, shown[first] - config.search_gap, shown[first])
        _, after = _within(shown, shown[last], shown[last] + config.search_gap)
        # a side needs as many frames as there are searches, although one may be drawn twice
        sides = [
            side for side in ((before, first), (last + 1, after)) if side[1] - side[0] >= searches
        ]
        if sides:
            side = sides[int(random.integers(len(sides)))]
            places = np.append(places, random.integers(*side, searches))
            return shown[np.sort(places)]
    return None


def _neighbors(shown: Frames, random: np.random.Generator, times: int) -> Frames:
    """(T,) neighbors in ``shown``, sorted; a shorter ``shown`` is repeated evenly."""
    start = int(random.integers(max(1, len(shown) - times + 1)))
    places = np.linspace(0, min(len(shown), times) - 1, times)
    return shown[start + np.rint(places).astype(np.int64)]


def _up_to_an_absence(
    visible: NDArray[np.bool_],
    shown: Frames,
    reverse: bool,
    random: np.random.Generator,
    config: VideoConfig,
    searches: int,
) -> Frames | None:
    """(R + S,) frames in order, the last without the target; None if no visible frame is near."""
    absent = np.flatnonzero(~visible)
    if not len(absent):
        return None
    last = absent[random.integers(len(absent))]
    start, stop = _within(shown, last - config.search_gap, last + config.search_gap)
    middle = int(np.searchsorted(shown, last))
    sides = {False: shown[start:middle], True: shown[middle:stop][::-1]}
    side = sides[reverse] if len(sides[reverse]) else sides[not reverse]
    if not len(side):
        return None
    places = np.sort(random.integers(len(side), size=REFERENCES + searches - 1))
    return np.append(side[places], last)


def _within(shown: Frames, low: int, high: int) -> tuple[int, int]:
    """Start and stop of the indices of the sorted ``shown`` with ``low <= frame <= high``."""
    start, stop = np.searchsorted(shown, [low, high + 1])
    return int(start), int(stop)
