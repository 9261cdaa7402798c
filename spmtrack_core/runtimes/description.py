"""What a weight file says of itself beside its tensors: settings and provenance, as JSON.

Checkpoints keep it in the metadata of safetensors, exported networks in those of ONNX, converted
ones in OpenVINO's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from spmtrack_core.config import CheckpointConfig, ModelConfig, TrackerConfig
from spmtrack_core.settings import from_dict, to_dict

ENTRY = "spmtrack"
"""Key of the one metadata entry in a file of this project."""


class Described(Protocol):
    """What has settings and provenance, such as a checkpoint."""

    @property
    def model_config(self) -> ModelConfig: ...

    @property
    def tracker_config(self) -> TrackerConfig: ...

    @property
    def provenance(self) -> Mapping[str, str]: ...


class Description(NamedTuple):
    """Settings and provenance of a network."""

    model_config: ModelConfig
    tracker_config: TrackerConfig
    provenance: Mapping[str, str]


def describe(format: str, network: Described, **more: str) -> dict[str, str]:
    """Format, settings and provenance as the metadata of a file.

    One entry: safetensors writes several in any order, so equal weights would differ in bytes.
    """
    about = {
        "format": format,
        "model": to_dict(network.model_config),
        "tracker": to_dict(network.tracker_config),
        "provenance": dict(network.provenance),
    }
    return {ENTRY: json.dumps(about | more)}


def read_description(metadata: Mapping[str, str], format: str) -> dict[str, Any]:
    """The metadata of a file as a tree; empty for a file of another format.

    Its sections are mappings, where they are there, and its ``trunk`` is a text. Raises
    ``ValueError`` for metadata that are damaged.
    """
    try:
        about = json.loads(metadata.get(ENTRY, "{}"))
        if about.get("format") != format:
            return {}
    except (ValueError, AttributeError, RecursionError):
        raise ValueError("its settings cannot be used: they are not JSON") from None
    for part, kind in (("model", dict), ("tracker", dict), ("provenance", dict), ("trunk", str)):
        if not isinstance(about.get(part, kind()), kind):
            found = type(about[part]).__name__
            raise ValueError(
                f"its settings cannot be used: {part} must be {kind.__name__}; got {found}"
            )
    return about


def description_of(metadata: Mapping[str, str], format: str) -> Description:
    """Settings and provenance in the metadata of an exported or converted network.

    Raises ``ValueError`` for metadata of another format, and for damaged ones.
    """
    about = read_description(metadata, format)
    if not about:
        raise ValueError(f"it is no {format} network; spmtrack export writes them")
    try:
        config = from_dict(CheckpointConfig, {part: about[part] for part in ("model", "tracker")})
        return Description(config.model, config.tracker, about["provenance"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its settings cannot be used: {error}") from None
