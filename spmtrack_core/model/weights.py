"""Checkpoints: the network, its settings, and the provenance of its weights.

A checkpoint of this project is one safetensors file with all tensors of the network, or the
trained ones alone; its metadata store settings and provenance. The authors' checkpoints are read
as well. The file type is detected from its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from spmtrack_core.config import CheckpointConfig, ModelConfig, TrackerConfig
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
from spmtrack_core.runtimes.description import describe, read_description
from spmtrack_core.settings import from_dict, override

FORMAT = "spmtrack-1"
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Checkpoint:
    """A network with its settings and the provenance of its weights."""

    model: SPMTrack
    model_config: ModelConfig
    tracker_config: TrackerConfig
    provenance: Mapping[str, str] = field(default_factory=dict)
    """How the weights were made, as free text by topic."""
    trunk: Path | None = None
    """The file of the frozen tensors, where the weight file has none."""
    trunk_mark: str = ""
    """``fingerprint`` of the trunk that the weights need, also where ``model`` has none."""


def choose_precision(name: str) -> torch.dtype:
    """The torch type of ``float32``, ``bfloat16`` or ``float16``; else ``ValueError``."""
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {name!r}")
    return PRECISIONS[name]


def save_checkpoint(
    path: str | Path,
    checkpoint: Checkpoint,
    dtype: torch.dtype = torch.float32,
    adapters_only: bool = False,
) -> None:
    """Write a checkpoint; the file appears only when it is complete.

    ``dtype`` is that of linear layers and convolutions (``layer_names``), everything else stays in
    float32; ``adapters_only`` leaves the frozen tensors out. Raises ``OSError`` where ``path``
    cannot be written and ``ValueError``, before that, for weights that are not finite.
    """
    model = checkpoint.model
    kept = trainable_names(model) if adapters_only else set(model.state_dict())
    stored = {name: tensor for name, tensor in model.state_dict().items() if name in kept}
    tensors = {n: t.cpu().contiguous() for n, t in in_precision(stored, model, dtype).items()}
    check_finite(tensors, f"the network to be saved as {path}")
    metadata = describe(FORMAT, checkpoint, trunk=trunk_mark(checkpoint))
    try:
        write_beside(path, lambda beside: save_file(tensors, beside, metadata))
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from None


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Identifies a trunk, whatever the precision of its linear layers; empty if unknown."""
    norms = [tensors.get(f"trunk.norm.{name}") for name in ("weight", "bias")]
    if any(norm is None or norm.is_meta for norm in norms):
        return ""
    numbers = torch.cat([norm.detach().float().cpu() for norm in norms if norm is not None])
    return hashlib.sha256(numbers.numpy().tobytes()).hexdigest()[:16]


def trunk_mark(checkpoint: Checkpoint) -> str:
    """``fingerprint`` of the trunk in the network, or of the one that its adapters need."""
    return fingerprint(checkpoint.model.state_dict()) or checkpoint.trunk_mark


def load_checkpoint(
    path: str | Path,
    trunk: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    overrides: Sequence[str] = (),
    frozen: bool = True,
) -> Checkpoint:
    """The network of a weight file, with its settings and provenance.

    Args:
        path: a file that ``save_checkpoint`` wrote, or the authors' (safetensors or torch).
        trunk: for files without the frozen tensors, the file that has them: DINOv2's, timm's, or
            a full checkpoint of this project. None: timm's pretrained weights, from the hub.
        dtype: that of linear layers and convolutions; everything else is float32.
        overrides: ``model.key=value`` and ``tracker.key=value`` in place of what the file stores.
            The authors' files store neither crop sizes nor the number of heads.
        frozen: False leaves frozen tensors that the file does not have on the meta device, unless
            ``trunk`` is given.

    Raises:
        FileNotFoundError: a file is not there, or the hub cannot be reached.
        ValueError: a file is truncated, corrupt, from elsewhere, or does not fit its settings; a
            trunk was given for a file that has its own, or another trunk than the weights need.

    """
    path = Path(path)
    stored, about = _read(path)
    if not about and not is_published(stored):
        hint = "; it is a trunk, for adapters-only weights" if is_trunk(stored) else ""
        raise ValueError(f"{path} is neither a {FORMAT} checkpoint nor one of SPMTrack{hint}")
    config, model = _build(stored, about, overrides, path)
    complete = _has_trunk(stored)
    if complete and trunk is not None:
        raise ValueError(f"{path} has a trunk of its own: leave {trunk} out")
    if about:
        names = model.state_dict() if complete else trainable_names(model)
        check_tensors(_shapes(model, names), stored, path)
    else:
        check_published(stored, model, path)
    mark, source = about.get("trunk", ""), None
    filled = complete or frozen or trunk is not None
    below: dict[str, Tensor] = {}
    if filled and not complete:  # while the pages of the smaller file are still on disk
        source = download_trunk(config.model.trunk) if trunk is None else Path(trunk)
        below = in_precision(read_trunk(model, config.model, source), model, dtype)
        if mark and mark != fingerprint(below):
            raise ValueError(f"{path} was trained on another trunk than {source}")
    if about:
        check_finite(stored, path)
    else:
        stored = from_published(stored, model, path)
    tensors = in_precision(stored, model, dtype) | below
    del stored, below  # closes the file and frees what was converted
    if dtype is torch.float16:
        check_finite(tensors, f"{path} in float16 (bfloat16 has the range)")
    load_tensors(model, tensors, path, None if filled else trainable_names(model))
    provenance = about.get("provenance", {"source": f"published checkpoint {path.name}"})
    if overrides:
        provenance = provenance | {"settings given": " ".join(overrides)}
    if source is not None:
        provenance = provenance | {"trunk": source.name}
    return Checkpoint(model, config.model, config.tracker, provenance, source, mark)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a weight file and its description, which is empty for files of others."""
    stored, metadata = read_tensors(path)
    try:
        return stored, read_description(metadata, FORMAT)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _build(
    stored: Mapping[str, Tensor], about: dict[str, Any], overrides: Sequence[str], path: Path
) -> tuple[CheckpointConfig, SPMTrack]:
    """Settings of a weight file, with ``overrides``, and their network on the meta device.

    The settings come from the description, or follow from the tensors of the authors' files.
    """
    tree: dict[str, Any]
    if about:
        tree = {part: about[part] for part in ("model", "tracker") if part in about}
    else:
        tree = {"model": published_settings(stored, path)}
    swapped = tree.get("model", {}).get("swapped_positions", False)
    override(tree, overrides)
    try:
        config = from_dict(CheckpointConfig, tree)
        with torch.device("meta"):
            model = build_spmtrack(config.model)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        given = " with those given" if overrides else ""
        reason = str(error).partition("\n")[0]  # torch adds its stack
        raise ValueError(f"{path} has settings that cannot be used{given}: {reason}") from None
    if _has_trunk(stored) and config.model.swapped_positions != swapped:
        raise ValueError(f"{path} has a position table of its own: swapped_positions is too late")
    return config, model


def _shapes(model: SPMTrack, names: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of ``model`` with these ``names``."""
    return {name: tuple(t.shape) for name, t in model.state_dict().items() if name in names}


def _has_trunk(stored: Mapping[str, Tensor]) -> bool:
    """Whether a file has the frozen tensors, under this project's names or the authors'."""
    return bool({"trunk.norm.weight", "norm.weight"} & set(stored))


def mean_of(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The mean of weights of one network: settings of the first, provenance of all.

    The mean of runs with one start is often better than each of them ("Model soups", ICML 2022),
    above all on images unlike the training images. Raises ``ValueError`` for different networks.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if other.model_config != first.model_config:
            raise ValueError(
                f"a mean needs weights of one network; got {other.model_config} beside "
                f"{first.model_config}"
            )
    states = [checkpoint.model.state_dict() for checkpoint in checkpoints]
    with_trunk = {bool(fingerprint(state)) for state in states}
    # the trunks of explicit networks are trained, and averaged too where they are there
    averaged = first.model_config.trunk == "explicit" and with_trunk == {True}
    marks = set(map(trunk_mark, checkpoints)) - {""}  # some adapters do not tell their trunk
    if len(with_trunk) > 1 or (len(marks) > 1 and not averaged):
        raise ValueError("a mean needs weights on one trunk, all of them with it or all without")
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(tensor.dtype)
        for name, tensor in states[0].items()
    }
    with torch.device("meta"):
        model = build_spmtrack(first.model_config)
    model.load_state_dict(mean, assign=True)
    provenance = {"mean_of": json.dumps([dict(each.provenance) for each in checkpoints])}
    mark = max(marks, default="")
    return replace(first, model=model, provenance=provenance, trunk_mark=mark)


def read_trunk(model: SPMTrack, config: ModelConfig, path: str | Path) -> dict[str, Tensor]:
    """The frozen tensors of ``model``, which may be on the meta device, from a file.

    The file may be DINOv2's, timm's, or a full checkpoint of this project. Raises as
    ``load_checkpoint`` does.
    """
    path = Path(path)
    stored, about = _read(path)
    if not about:
        if not is_trunk(stored):
            raise ValueError(f"{path} has none of the names of a DINOv2 trunk")
        return from_trunk(stored, model, config, path)
    frozen = set(model.state_dict()) - trainable_names(model)
    check_tensors(_shapes(model, frozen), stored, path, trainable_names(model))
    check_finite({name: stored[name] for name in frozen}, path)
    rows, columns = config.search_grid_hw
    swapped = about.get("model", {}).get("swapped_positions")
    if rows != columns and swapped != config.swapped_positions:
        raise ValueError(f"{path} has its positions in another order: see swapped_positions")
    return {name: stored[name] for name in frozen}


def layer_names(model: nn.Module) -> set[str]:
    """Names of the parameters of linear layers and convolutions, which autocast rounds.

    Rounded once, when they are loaded, they give the same numbers in half the memory. Norms,
    tokens and the position table are added, not multiplied, and keep their precision.
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
    """``tensors`` with linear layers and convolutions in ``dtype`` and all others in float32.

    Where one tensor must be converted, all are copied, so that the file they are mapped from can
    be closed; otherwise none is.
    """
    layers = layer_names(model)
    wanted = {name: dtype if name in layers else torch.float32 for name in tensors}
    copy = any(tensor.dtype != wanted[name] for name, tensor in tensors.items())
    return {n: t.detach().to(wanted[n], copy=copy) for n, t in tensors.items()}


def load_tensors(
    model: SPMTrack,
    tensors: Mapping[str, Tensor],
    source: object,
    names: Collection[str] | None = None,
) -> None:
    """Put ``tensors`` into ``model`` without a copy: all of its tensors, or those of ``names``.

    Raises ``ValueError`` that lists missing, unexpected and mis-shaped names of ``source``.
    """
    check_tensors(_shapes(model, names or model.state_dict()), tensors, source)
    model.load_state_dict(dict(tensors), assign=True, strict=False)
