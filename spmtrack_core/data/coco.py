"""COCO 2017: stills; every object of some size is a track of one frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spmtrack_core.data.clips import Clip, Entry, Track
from spmtrack_core.files import read_text

MIN_SIDE = 10.0  # px; below, there is nothing to learn an appearance from


def find(root: Path, split: str) -> list[Entry]:
    """The one annotation file of the split, ``train`` or ``val``.

    Raises ``ValueError`` for another split, ``FileNotFoundError`` without the file or the images.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split of coco must be train or val, got {split!r}")
    annotations = root / "annotations" / f"instances_{split}2017.json"
    folders = (root / f"{split}2017", root / "images" / f"{split}2017")
    images = next((folder for folder in folders if folder.is_dir()), None)
    if not annotations.is_file() or images is None:
        raise FileNotFoundError(
            f"{root} is no COCO 2017: expected {annotations.relative_to(root)} and images in "
            f"{' or '.join(str(folder.relative_to(root)) for folder in folders)}"
        )
    read = partial(_read, root, images, annotations)
    return [Entry(annotations.stem, (annotations, images), read)]


def _read(root: Path, images: Path, annotations: Path) -> Iterator[Clip | str]:
    """One clip for every image with objects; crowds and objects below ``MIN_SIDE`` left out.

    An annotation that is broken is left out and named by its id.
    """
    try:
        content = json.loads(read_text(annotations), object_hook=_without_outline)
        files = {image["id"]: str(image["file_name"]) for image in content["images"]}
        notes = list(content.pop("annotations"))
    except (KeyError, TypeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"{annotations} is no COCO annotation file: {error!r}") from None
    tracks: dict[int | str, list[Track]] = {}
    for index, note in enumerate(notes):
        number = note.get("id", f"at {index}") if isinstance(note, dict) else f"at {index}"
        try:
            if note.get("iscrowd"):
                continue
            image = note["image_id"]
            name = f"{Path(files[image]).stem}/{number}"
            box = np.array(note["bbox"], np.float64)  # xywh
            if box.shape != (4,) or not np.isfinite(box).all():
                raise ValueError(f"bbox must be four numbers, got {note['bbox']!r}")
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            yield f"annotation {number}: {error if type(error) is ValueError else repr(error)}"
            continue
        if min(box[2:]) >= MIN_SIDE:
            tracks.setdefault(image, []).append(Track(name, box[None]))
    folder = images.relative_to(root).as_posix()
    for image in sorted(tracks, key=lambda image: files[image]):
        file = files[image]
        yield Clip(Path(file).stem, folder, 1, tracks[image], files=(file,))


def _without_outline(value: dict[str, Any]) -> dict[str, Any]:
    """Outlines are most of the file, and would take gigabytes if all were kept while reading."""
    value.pop("segmentation", None)
    return value
