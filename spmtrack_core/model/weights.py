"""Weight files: safetensors alone, so that loading a checkpoint never runs code.

A checkpoint of this project holds every tensor of the network; its metadata holds the settings
that rebuild network and tracker and the story of how the weights were made. Published names of
parameters exist in this file and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spmtrack_core.config import ModelConfig, TrackerConfig, from_dict, to_dict
from spmtrack_core.files import write_beside
from spmtrack_core.model.spmtrack import SPMTrack, build_spmtrack

FORMAT = "spmtrack-1"

_PUBLISHED_NAMES = (  # published -> own, applied in order
    (r"^track_query$", "target_token"),
    (r"^query_embed$", "target_embed"),
    (r"^token_type_embed$", "token_types"),
    (r"^head\.cls_mlp\.", "head.score."),
    (r"^head\.reg_mlp\.", "head.box."),
    (r"^(patch_embed|pos_embed|blocks|norm)\b", r"trunk.\1"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"\.linear\.(weight|bias)$", r".\1"),
    (r"\.tmoe\.expert_route\.weight$", ".router"),
    (r"\.tmoe\.shared_expert$", ".shared"),
    (r"\.tmoe\.compress_expert", ".down"),
    (r"\.tmoe\.routed_experts", ".experts"),
)


def save_checkpoint(
    path: str | Path,
    model: SPMTrack,
    model_config: ModelConfig,
    tracker_config: TrackerConfig,
    story: Mapping[str, str] | None = None,
    half: bool = False,
) -> None:
    """Write every tensor of ``model`` with its settings; the file appears only when complete.

    ``story`` is free text on how the weights were made (command, data, figures); ``half`` stores
    fp16. Raises ``OSError`` where ``path`` cannot be written.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "model": json.dumps(to_dict(model_config)),
        "tracker": json.dumps(to_dict(tracker_config)),
        "story": json.dumps(dict(story or {})),
    }
    write_beside(path, lambda beside: save_file(tensors, beside, metadata))


def load_checkpoint(
    path: str | Path,
) -> tuple[SPMTrack, ModelConfig, TrackerConfig, dict[str, str]]:
    """The network of a file that ``save_checkpoint`` wrote, in float32, with settings and story.

    Raises ``FileNotFoundError`` without the file and ``ValueError``, naming the file, for one that
    is truncated, corrupt, from elsewhere, or whose tensors do not fit its own settings.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is no {FORMAT} checkpoint of this package")
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from None
    try:
        model_config = from_dict(ModelConfig, json.loads(metadata["model"]))
        tracker_config = from_dict(TrackerConfig, json.loads(metadata["tracker"]))
        story = json.loads(metadata.get("story", "{}"))
        with torch.device("meta"):
            model = build_spmtrack(model_config)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} has settings that cannot be used: {error}") from None
    load_tensors(model, tensors, str(path))
    return model, model_config, tracker_config, story


def load_tensors(model: SPMTrack, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put ``tensors`` into ``model`` without a copy.

    Raises ``ValueError`` that lists missing, unexpected and mis-shaped names of ``source``.
    """
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(tensors))
    unexpected = sorted(set(tensors) - set(wanted))
    misshaped = sorted(
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in set(wanted) & set(tensors)
        if tensors[name].shape != wanted[name].shape
    )
    faults = [
        f"{label}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
        for label, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("mis-shaped", misshaped),
        )
        if names
    ]
    if faults:
        raise ValueError(f"{source} does not fit the network; {'; '.join(faults)}")
    model.load_state_dict(dict(tensors), assign=True)


def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of the published implementation as tensors of ``SPMTrack``.

    Experts, one tensor each there, are stacked: ``experts`` (out, E, r), ``down`` (1 or E, r, in).
    """
    own: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _PUBLISHED_NAMES:
            name = re.sub(pattern, replacement, name)
        numbered = re.fullmatch(r"(.*\.(?:down|experts))\.(\d+)", name)
        if numbered:
            stacks.setdefault(numbered[1], {})[int(numbered[2])] = tensor
        else:
            own[name] = tensor.unsqueeze(0) if name.endswith(".down") else tensor
    for name, parts in stacks.items():
        own[name] = torch.stack(
            [parts[index] for index in sorted(parts)], dim=0 if name.endswith(".down") else 1
        )
    return own
