"""The datasets that can be trained and evaluated on, and how one of them is opened.

A new dataset is one reader, ``find(root, split)``, and one line in ``READERS``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from spmtrack_core.config import DatasetConfig
from spmtrack_core.data import (
    coco,
    folder,
    got10k,
    lasot,
    mot,
    nfs,
    otb2015,
    tnl2k,
    trackingnet,
    uav123,
    vasttrack,
)
from spmtrack_core.data.clips import Clip, Entry, Track, visible
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.data.tracks import Tracks, load_tracks, save_tracks
from spmtrack_core.files import cache_folder, read_text, user_path, write_beside
from spmtrack_core.geometry.boxes import Boxes, clip_xyxy, xywh_to_xyxy

READERS: dict[str, Callable[[Path, str], list[Entry]]] = {
    "lasot": lasot.find,
    "trackingnet": trackingnet.find,
    "got10k": got10k.find,
    "coco": coco.find,
    "vasttrack": vasttrack.find,
    "lasot_ext": lasot.find_ext,
    "tnl2k": tnl2k.find,
    "nfs": nfs.find,
    "uav123": uav123.find,
    "uav20l": uav123.find_20l,
    "otb2015": otb2015.find,
    "mot": mot.find,
    "folder": folder.find,
}
"""The datasets by name. A reader lists the parts of a split below a root, and reads them later."""
VERSION = 5
"""Version of the index; raise it whenever a reader finds something else in the same files."""


def open_tracks(config: DatasetConfig, cache: Path | None = None) -> Tracks:
    """The tracks of a dataset, for random access; from an index, or the first time from its files.

    The index holds names, boxes and where the frames are. It lies in ``cache``, by default
    ``$XDG_CACHE_HOME/spmtrack`` or ``~/.cache/spmtrack``, and is made again when a watched file or
    folder of the dataset changes. Broken sequences are left out and named in ``skipped``: frames
    and boxes of different numbers, boxes that do not parse, no visible target, a first frame that
    cannot be read (a still image: that does not exist).

    Raises ``FileNotFoundError`` or ``ValueError`` for an unknown dataset, a root that is not this
    dataset, an ``exclude`` that names nothing in it, and a dataset without a usable sequence.
    """
    root, entries = _find(config)
    excluded = _names(config, "exclude")
    only = sorted(_names(config, "only"))
    identity = [config.name, str(root), config.split, sorted(excluded), only]
    fingerprint = hashlib.sha256(json.dumps([VERSION, identity]).encode())
    for entry in entries:
        for path in entry.watched:
            try:
                status = os.stat(path)
                text = f"{path} {status.st_mtime_ns} {status.st_size}\n"
            except OSError:
                text = f"{path} -\n"
            fingerprint.update(text.encode("utf-8", "surrogateescape"))
    key = fingerprint.hexdigest()

    if cache is None:
        cache = cache_folder()
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    file = cache / f"{config.name}-{name}.npz"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = open(file.with_suffix(".lock"), "w")
        # the processes of one training run start together: one reads, the others wait for it
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise ValueError(
            f"cannot keep the index of {root}: {error}; set XDG_CACHE_HOME to another folder"
        ) from None
    with lock:
        tracks = _cached(file, key)
        if tracks is None:
            clips, skipped = _read_clips(config, root, entries, excluded)
            if any(track.first_only for clip in clips for track in clip.tracks):
                raise ValueError(
                    f"split {config.split} of {config.name} has one box a sequence: it can be "
                    "evaluated, but not trained on"
                )
            tracks = Tracks.pack(config.name, root, clips, skipped)
            write_beside(file, lambda path: save_tracks(path, tracks, key))
    return tracks


def open_sequences(config: DatasetConfig) -> tuple[list[FrameSequence], list[str]]:
    """Every track of a dataset as a sequence, to evaluate on; no index is read or written.

    The texts are ``name: reason`` of each sequence that is left out: broken, or not showing its
    target in the first frame. Raises ``ValueError`` for a dataset of still images and where no
    sequence is left; else as ``open_tracks``.
    """
    root, entries = _find(config)
    clips, skipped = _read_clips(config, root, entries, _names(config, "exclude"))
    annotations = [track for clip in clips for track in clip.tracks]
    tracks = Tracks.pack(config.name, root, clips, [])
    if all(len(track.boxes_xywh) == 1 for track in annotations):
        raise ValueError(f"{config.name} in {root} holds still images; evaluation needs videos")
    sequences = []
    for index, track in enumerate(annotations):
        boxes = track.shown_xywh
        if visible(boxes[:1]).all():
            # the boxes as they were read: Tracks stores them in float32
            boxes = boxes[:1] if track.first_only else boxes
            sequence = replace(tracks.sequence(index), boxes_xywh=boxes, annotation=track)
            sequences.append(sequence)
        else:
            skipped.append(f"{tracks.track_name(index)}: its first frame does not show its target")
    return sequences, skipped


def open_annotations(config: DatasetConfig) -> tuple[list[Track], list[str]]:
    """The annotation of every sequence, without its images: to score boxes that exist already.

    The texts are ``name: reason`` of each sequence whose annotation cannot be read. Raises as
    ``open_tracks`` does, and ``ValueError`` for a dataset with several targets a clip.
    """
    root, entries = _find(config)
    excluded, tracks, faults = _names(config, "exclude"), [], []
    for entry in entries:
        if entry.annotation is None:
            raise ValueError(f"results on {config.name} cannot be scored without its images")
        if entry.name in excluded:
            continue
        try:
            tracks.append(entry.annotation())
        except (ValueError, OSError) as error:
            faults.append(_one_line(entry.name, error))
    if not tracks:
        first = f", first {faults[0]}" if faults else ""
        raise ValueError(f"{root} holds no {config.name} annotation that can be used{first}")
    return tracks, faults


def _find(config: DatasetConfig) -> tuple[Path, list[Entry]]:
    """The root of a dataset, and its parts, or those named by ``only``."""
    if config.name not in READERS:
        raise ValueError(f"dataset must be one of {', '.join(READERS)}; got {config.name!r}")
    root = user_path(config.root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder at {root} (root of dataset {config.name})")
    root = root.resolve()
    entries, only = READERS[config.name](root, config.split), _names(config, "only")
    if only:
        entries = [entry for entry in entries if entry.name in only]
        if not entries:
            raise ValueError(f"{config.only} names none of the sequences in {root}")
    return root, entries


def _names(config: DatasetConfig, setting: str) -> set[str]:
    """The names in the file of ``exclude`` or ``only``; blank lines and comments (#) left out."""
    if getattr(config, setting) is None:
        return set()
    path = user_path(getattr(config, setting))
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path} ({setting} of dataset {config.name})")
    lines = read_text(path).splitlines()
    return {line.partition("#")[0].strip() for line in lines} - {""}


def _cached(file: Path, key: str) -> Tracks | None:
    """The tracks in an index file; None if it was made under another key, is broken or missing."""
    try:
        return load_tracks(file, key)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _read_clips(
    config: DatasetConfig, root: Path, entries: list[Entry], excluded: set[str]
) -> tuple[list[Clip], list[str]]:
    """The usable clips of a dataset, and ``name: reason`` for each of the others."""
    kept = [entry for entry in entries if entry.name not in excluded]
    left_out = len(entries) - len(kept)
    clips: list[Clip] = []
    skipped: list[str] = []
    with ThreadPoolExecutor(8) as pool:  # waiting for disks, mostly
        for found, faults, count in pool.map(lambda entry: _read(root, entry, excluded), kept):
            clips += found
            skipped += faults
            left_out += count
    if excluded and not left_out:
        raise ValueError(
            f"{config.exclude} names none of the sequences of {root}; expected names such as "
            f"{clips[0].name if clips else entries[0].name}, one a line; got {min(excluded)!r}"
        )
    if not clips:
        first = f"; {len(skipped)} were left out, first {skipped[0]}" if skipped else ""
        raise ValueError(f"{root} holds no {config.name} sequence that can be used{first}")
    return clips, skipped


def _read(root: Path, entry: Entry, excluded: set[str]) -> tuple[list[Clip], list[str], int]:
    """The usable clips of an entry, what is wrong with the others, and how many are excluded."""
    clips: list[Clip] = []
    skipped: list[str] = []
    left_out = 0
    try:
        for clip in entry.read():
            if isinstance(clip, str):
                skipped.append(clip)
                continue
            if clip.name in excluded:
                left_out += 1
                continue
            try:
                clips.append(_checked(root, clip))
            except (ValueError, OSError) as error:
                skipped.append(_one_line(clip.name, error))
    except (ValueError, OSError) as error:
        skipped.append(_one_line(entry.name, error))
    return clips, skipped, left_out


def _fits(boxes_xywh: Boxes, frame_hw: tuple[int, ...]) -> bool:
    """Whether the boxes of a track can be those of targets in frames of this size, in px."""
    shown = boxes_xywh[visible(boxes_xywh)]
    seen = clip_xyxy(xywh_to_xyxy(shown), (frame_hw[0], frame_hw[1]))
    sides = seen[:, 2:] - seen[:, :2]
    return bool((sides > 0).all(1).any() and np.median(sides.min(1)) >= 2)


def _one_line(name: str, error: Exception) -> str:
    return f"{name}: {' '.join(str(error).split())}"


def _checked(root: Path, clip: Clip) -> Clip:
    """The clip with those of its tracks that show a target; an error if it cannot be used."""
    tracks = [track for track in clip.tracks if visible(track.shown_xywh).any()]
    if not tracks:
        raise ValueError("no frame shows a target")
    clip = replace(clip, tracks=tracks)
    if clip.length > 1 or not clip.files:
        first = Tracks.pack("", root, [clip], []).read(0, 0)
        tracks = [track for track in tracks if _fits(track.shown_xywh, first.shape[:2])]
        if not tracks:
            raise ValueError(
                f"its boxes lie outside of its {first.shape[1]} x {first.shape[0]} px, or have "
                "less than 2 px: they must be in pixels"
            )
        clip = replace(clip, tracks=tracks)
    elif not Path(root, clip.path, *clip.files).is_file():
        # stills are many: opening them all takes longer than what it saves
        raise FileNotFoundError(f"no image at {Path(root, clip.path, *clip.files)}")
    return clip
