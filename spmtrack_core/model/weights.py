"""Checkpoints: the network, the settings that rebuild it, and the story of its weights.

A checkpoint of this project is one safetensors file, whose metadata hold settings and story. It
has every tensor of the network, or the trained ones alone. The authors' checkpoints are read as
well; which of these a file is, its content tells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spmtrack_core.config import (
    CheckpointConfig,
    ModelConfig,
    TrackerConfig,
    from_dict,
    override,
    to_dict,
)
from spmtrack_core.files import write_beside
from spmtrack_core.model.published import (
    download_trunk,
    from_published,
    from_trunk,
    is_published,
    is_trunk,
    published_settings,
)
from spmtrack_core.model.spmtrack import SPMTrack, build_spmtrack, trainable_names
from spmtrack_core.model.tensors import check_tensors, read_tensors
from spmtrack_core.model.tmoe import TMoELinear

FORMAT = "spmtrack-1"
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Checkpoint(NamedTuple):
    """What a weight file holds."""

    model: SPMTrack
    model_config: ModelConfig
    tracker_config: TrackerConfig
    story: dict[str, str]
    """Free text on how the weights were made."""


def save_checkpoint(
    path: str | Path,
    model: SPMTrack,
    model_config: ModelConfig,
    tracker_config: TrackerConfig,
    story: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
    adapters_only: bool = False,
) -> None:
    """Write ``model`` with its settings; the file appears only when it is complete.

    ``dtype`` is that of the maps (``map_names``), everything else stays in float32;
    ``adapters_only`` leaves the frozen tensors out. Raises ``OSError`` where ``path`` cannot be
    written and ``ValueError``, before it is, for weights that are not finite.
    """
    kept = trainable_names(model) if adapters_only else set(model.state_dict())
    stored = {name: tensor for name, tensor in model.state_dict().items() if name in kept}
    tensors = {n: t.cpu().contiguous() for n, t in in_precision(stored, model, dtype).items()}
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"not finite, so not saved: {', '.join(broken[:8])}")
    metadata = {"format": FORMAT, **settings_metadata(model_config, tracker_config, story)}
    write_beside(path, lambda beside: save_file(tensors, beside, metadata))


def settings_metadata(
    model_config: ModelConfig, tracker_config: TrackerConfig, story: Mapping[str, str] | None
) -> dict[str, str]:
    """Settings and story as the metadata of a file, one JSON text each."""
    return {
        "model": json.dumps(to_dict(model_config)),
        "tracker": json.dumps(to_dict(tracker_config)),
        "story": json.dumps(dict(story or {})),
    }


def load_checkpoint(
    path: str | Path,
    trunk: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    overrides: Sequence[str] = (),
) -> Checkpoint:
    """The network of a weight file, with its settings and story.

    Args:
        path: a file that ``save_checkpoint`` wrote, or the authors' (safetensors or torch).
        trunk: for files without the frozen tensors, the file that has them: DINOv2's, timm's, or
            a full checkpoint of this project. None: timm's pretrained weights, from the hub.
        dtype: that of the maps (``map_names``); everything else is float32.
        overrides: ``model.key=value`` and ``tracker.key=value`` in place of what the file says,
            or does not say: the authors' files tell no crop sizes and no number of heads.

    Raises:
        FileNotFoundError: a file is not there, or the hub cannot be reached.
        ValueError: a file is truncated, corrupt, from elsewhere, or does not fit its settings;
            a trunk was named for a file that has its own.

    """
    path = Path(path)
    stored, metadata = read_tensors(path)
    own = metadata.get("format") == FORMAT
    if not own and not is_published(stored):
        known = ", as a trunk it can go with an adapters-only one" if is_trunk(stored) else ""
        raise ValueError(f"{path} is no {FORMAT} checkpoint of this package nor SPMTrack's{known}")
    try:
        if own:
            tree = {part: json.loads(metadata[part]) for part in ("model", "tracker")}
            story = json.loads(metadata.get("story", "{}"))
        else:
            tree = {"model": published_settings(stored, path)}
            story = {"source": f"published checkpoint {path.name}"}
        override(tree, overrides)
        config = from_dict(CheckpointConfig, tree)
        with torch.device("meta"):
            model = build_spmtrack(config.model)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} has settings that cannot be used: {error}") from None
    tensors: dict[str, Tensor] = {}
    if not {"trunk.norm.weight", "norm.weight"} & set(stored):
        # first, and in its final precision: its file is let go of before the other one is read
        frozen = read_trunk(model, config.model, trunk)
        tensors = in_precision(frozen, model, dtype)
        del frozen
    elif trunk is not None:
        raise ValueError(f"{path} has a trunk of its own: leave {trunk} out")
    if not own:
        stored = from_published(stored, model, path)
    tensors |= in_precision(stored, model, dtype)
    load_tensors(model, tensors, str(path))
    return Checkpoint(model, config.model, config.tracker, story)


def read_trunk(
    model: SPMTrack, config: ModelConfig, trunk: str | Path | None = None
) -> dict[str, Tensor]:
    """The frozen tensors of ``model``, which may be on the meta device, from the file ``trunk``.

    See ``load_checkpoint`` for the files that will do and for what is raised.
    """
    path = download_trunk(config.trunk) if trunk is None else Path(trunk)
    stored, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        if not is_trunk(stored):
            raise ValueError(f"{path} has none of the names of a DINOv2 trunk")
        return from_trunk(stored, model, config, path)
    frozen = set(model.state_dict()) - trainable_names(model)
    shapes = {name: tuple(model.state_dict()[name].shape) for name in frozen}
    check_tensors(shapes, stored, path, trainable_names(model))
    return {name: stored[name] for name in frozen}


def map_names(model: nn.Module) -> set[str]:
    """Parameters of linear maps and convolutions: what autocast rounds before it multiplies.

    Rounded once instead, they give the same numbers in half the memory. Norms, tokens and the
    position table are added, not multiplied, and keep their precision.
    """
    return {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, TMoELinear | nn.Linear | nn.Conv2d)
        for name, _ in module.named_parameters(recurse=False)
    }


def in_precision(
    tensors: Mapping[str, Tensor], model: nn.Module, dtype: torch.dtype
) -> dict[str, Tensor]:
    """``tensors`` with the maps of ``model`` in ``dtype`` and the others in float32.

    Where anything must be converted, everything is copied, so that a file that ``tensors`` are
    mapped from is let go of; else nothing is.
    """
    maps = map_names(model)
    wanted = {name: dtype if name in maps else torch.float32 for name in tensors}
    copy = any(tensor.dtype != wanted[name] for name, tensor in tensors.items())
    return {n: t.detach().to(wanted[n], copy=copy) for n, t in tensors.items()}


def load_tensors(model: SPMTrack, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put ``tensors`` into ``model`` without a copy.

    Raises ``ValueError`` that lists missing, unexpected and mis-shaped names of ``source``.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_tensors(shapes, tensors, source)
    model.load_state_dict(dict(tensors), assign=True)
