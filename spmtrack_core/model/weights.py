"""Checkpoints: the network, the settings that rebuild it, and the story of its weights.

A checkpoint of this project is one safetensors file, whose metadata hold settings and story. It
has every tensor of the network, or the trained ones alone. The authors' checkpoints are read as
well; which of these a file is, its content tells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
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
    check_published,
    download_trunk,
    from_published,
    from_trunk,
    is_published,
    is_trunk,
    published_settings,
)
from spmtrack_core.model.spmtrack import SPMTrack, build_spmtrack, trainable_names
from spmtrack_core.model.tensors import check_finite, check_tensors, read_tensors
from spmtrack_core.model.tmoe import TMoELinear

FORMAT = "spmtrack-1"
ENTRY = "spmtrack"
"""Key of the metadata, in a file of this project."""
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
    trunk: Path | None = None
    """The file that the frozen tensors came from, where it is another one."""


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
    check_finite(tensors, f"what was to be saved as {path}")
    metadata = describe(
        FORMAT, model_config, tracker_config, story, trunk=fingerprint(model.state_dict())
    )
    try:
        write_beside(path, lambda beside: save_file(tensors, beside, metadata))
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from None


def describe(
    format: str,
    model_config: ModelConfig,
    tracker_config: TrackerConfig,
    story: Mapping[str, str] | None,
    **more: str,
) -> dict[str, str]:
    """Format, settings and story as the metadata of a file.

    One entry: several would be written in any order, and the same weights in other bytes.
    """
    about = {
        "format": format,
        "model": to_dict(model_config),
        "tracker": to_dict(tracker_config),
        "story": dict(story or {}),
    }
    return {ENTRY: json.dumps(about | more)}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Tells a trunk from another, whatever the precision of its maps; empty if it is unknown."""
    norms = [tensors.get(f"trunk.norm.{name}") for name in ("weight", "bias")]
    if any(norm is None or norm.is_meta for norm in norms):
        return ""
    numbers = torch.cat([norm.detach().float().cpu() for norm in norms if norm is not None])
    return hashlib.sha256(numbers.numpy().tobytes()).hexdigest()[:16]


def load_checkpoint(
    path: str | Path,
    trunk: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    overrides: Sequence[str] = (),
    frozen: bool = True,
) -> Checkpoint:
    """The network of a weight file, with its settings and story.

    Args:
        path: a file that ``save_checkpoint`` wrote, or the authors' (safetensors or torch).
        trunk: for files without the frozen tensors, the file that has them: DINOv2's, timm's, or
            a full checkpoint of this project. None: timm's pretrained weights, from the hub.
        dtype: that of the maps (``map_names``); everything else is float32.
        overrides: ``model.key=value`` and ``tracker.key=value`` in place of what the file says,
            or does not say: the authors' files tell no crop sizes and no number of heads.
        frozen: False leaves frozen tensors that the file does not have on the meta device.

    Raises:
        FileNotFoundError: a file is not there, or the hub cannot be reached.
        ValueError: a file is truncated, corrupt, from elsewhere, or does not fit its settings;
            a trunk was named for a file that has its own, or is not the one it was made on.

    """
    path = Path(path)
    stored, metadata = read_tensors(path)
    about = _about(metadata, path)
    if not about and not is_published(stored):
        known = ", as a trunk it can go with an adapters-only one" if is_trunk(stored) else ""
        raise ValueError(f"{path} is no {FORMAT} checkpoint of this package nor SPMTrack's{known}")
    story = about.get("story", {"source": f"published checkpoint {path.name}"})
    tree: dict[str, Any] = {part: about[part] for part in ("model", "tracker") if part in about}
    tree = tree or {"model": published_settings(stored, path)}
    swapped = tree.get("model", {}).get("swapped_positions", False)
    if overrides:
        override(tree, overrides)
        story = story | {"settings given": " ".join(overrides)}
    try:
        config = from_dict(CheckpointConfig, tree)
        with torch.device("meta"):
            model = build_spmtrack(config.model)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        given = " with those given" if overrides else ""
        raise ValueError(f"{path} has settings that cannot be used{given}: {error}") from None
    whole = bool({"trunk.norm.weight", "norm.weight"} & set(stored))
    if whole and config.model.swapped_positions != swapped:
        raise ValueError(f"{path} has a position table of its own: swapped_positions is too late")
    if whole and trunk is not None:
        raise ValueError(f"{path} has a trunk of its own: leave {trunk} out")
    if not about:
        check_published(stored, model, path)
    tensors: dict[str, Tensor] = {}
    source = None
    if not whole and frozen:
        # first, and in its final precision: its file is let go of before the other one is read
        source = download_trunk(config.model.trunk) if trunk is None else Path(trunk)
        tensors = in_precision(read_trunk(model, config.model, source), model, dtype)
        if about.get("trunk") and about["trunk"] != fingerprint(tensors):
            raise ValueError(f"{path} was made on another trunk than {source}")
        story = story | {"trunk": source.name}
    if not about:
        check_finite({name: stored[name] for name in stored if name != "use_rsexpert"}, path)
        stored = from_published(stored, model, path)
    tensors |= in_precision(stored, model, dtype)
    if dtype is torch.float16:
        check_finite(tensors, f"{path} in float16 (bfloat16 has the range)")
    load_tensors(model, tensors, str(path), model.state_dict() if frozen or whole else stored)
    return Checkpoint(model, config.model, config.tracker, story, source)


def mean_of(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The mean of weights of one network, with the settings of the first and the story of all.

    For runs that began alike it is often better than each ("Model soups", ICML 2022), above all
    on images unlike those that the last run saw. Raises ``ValueError`` for another network.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if other.model_config != first.model_config:
            raise ValueError(
                f"a mean needs weights of one network; got {other.model_config} beside "
                f"{first.model_config}"
            )
    states = [checkpoint.model.state_dict() for checkpoint in checkpoints]
    trunks = {fingerprint(state) for state in states}
    if first.model_config.trunk != "explicit" and len(trunks) > 1:
        raise ValueError("a mean needs weights on one trunk, all of them with it or all without")
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(tensor.dtype)
        for name, tensor in states[0].items()
    }
    with torch.device("meta"):
        model = build_spmtrack(first.model_config)
    model.load_state_dict(mean, assign=True)
    story = {"mean_of": json.dumps([checkpoint.story for checkpoint in checkpoints])}
    return first._replace(model=model, story=story)


def _about(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What a file of this project says of itself; empty for one from elsewhere."""
    try:
        about = json.loads(metadata.get(ENTRY, "{}"))
        return about if about.get("format") == FORMAT else {}
    except (ValueError, AttributeError):
        raise ValueError(f"{path} has settings that cannot be used: they are no JSON") from None


def read_trunk(
    model: SPMTrack, config: ModelConfig, trunk: str | Path | None = None
) -> dict[str, Tensor]:
    """The frozen tensors of ``model``, which may be on the meta device, from the file ``trunk``.

    See ``load_checkpoint`` for the files that will do and for what is raised.
    """
    path = download_trunk(config.trunk) if trunk is None else Path(trunk)
    stored, metadata = read_tensors(path)
    about = _about(metadata, path)
    if not about:
        if not is_trunk(stored):
            raise ValueError(f"{path} has none of the names of a DINOv2 trunk")
        check_finite({name: t for name, t in stored.items() if t.is_floating_point()}, path)
        return from_trunk(stored, model, config, path)
    frozen = set(model.state_dict()) - trainable_names(model)
    shapes = {name: tuple(model.state_dict()[name].shape) for name in frozen}
    check_tensors(shapes, stored, path, trainable_names(model))
    rows, columns = config.search_grid_hw
    if rows != columns and about["model"].get("swapped_positions") != config.swapped_positions:
        raise ValueError(f"{path} has its positions in another order: see swapped_positions")
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


def load_tensors(
    model: SPMTrack,
    tensors: Mapping[str, Tensor],
    source: str,
    wanted: Mapping[str, Tensor] | None = None,
) -> None:
    """Put ``tensors`` into ``model`` without a copy: all of them, or those named in ``wanted``.

    Raises ``ValueError`` that lists missing, unexpected and mis-shaped names of ``source``.
    """
    state = model.state_dict()
    names = state if wanted is None else wanted
    check_tensors({n: tuple(state[n].shape) for n in names if n in state}, tensors, source)
    model.load_state_dict(dict(tensors), assign=True, strict=False)
