"""Files of named tensors: read without running code from them, and compared name by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spmtrack_core.files import one_line

Shapes = Mapping[str, tuple[int, ...]]
_REAL = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file or a torch pickle; the content decides which.

    Tensors of safetensors files and of zipped pickles are mapped into memory, not copied, and read
    when they are used. A pickle may have its tensors at the top, or under ``model``,
    ``state_dict`` or ``net``; plain numbers become tensors. Raises ``FileNotFoundError`` for a
    missing file, and ``ValueError`` with its name for one that is truncated, corrupt, or contains
    more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] != b"{":
        if start[:2] != b"PK" and start[:1] != b"\x80":
            raise ValueError(f"{path} is neither a safetensors file nor one of torch")
        return _read_pickle(path, mapped=start[:2] == b"PK"), {}
    try:
        with safe_open(path, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}, (
                stored.metadata() or {}
            )
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from None


def _read_pickle(path: Path, mapped: bool) -> dict[str, Tensor]:
    mapped = mapped and not path.name.endswith(".safetensors")  # torch would go by the name
    try:
        with path.open("rb") as file:
            source = path if mapped else file
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged file raises errors of many kinds
        unsafe = isinstance(error, UnpicklingError)
        if unsafe and re.search("Unsupported (global|class)", str(error), re.IGNORECASE):
            raise ValueError(
                f"{path} is damaged or contains more than tensors, which would run code of the "
                "file: it is not read; save its state_dict alone"
            ) from None
        reason = one_line(error).rpartition("WeightsUnpickler error: ")[2]  # after torch's advice
        raise ValueError(f"{path} is not a complete torch file: {reason[:120]}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} contains a {type(content).__name__}, expected tensors by name")
    for name in ("model", "state_dict", "net"):
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if isinstance(content.get("network"), Mapping):  # checkpoint.pt of spmtrack train
        raise ValueError(f"{path} is the state of a run: its weights are in weights.safetensors")
    tensors = {}
    for name, value in content.items():
        if isinstance(value, bool | int | float):
            value = torch.tensor(value)
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(f"{path} contains a {kind} at {name}, expected a tensor")
        tensors[str(name)] = value
    if all(name.startswith("module.") for name in tensors):  # saved from several processes
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def check_tensors(
    wanted: Shapes, tensors: Mapping[str, Tensor], source: object, ignored: Collection[str] = ()
) -> None:
    """Compare names and shapes of ``tensors`` with those ``wanted``.

    Names in ``ignored`` may be present or absent. Raises ``ValueError`` that lists the missing,
    unexpected and mis-shaped tensors of ``source``, and those of other types than real numbers.
    """
    faults = []
    for label, names in (
        ("missing", [name for name in wanted if name not in tensors]),
        ("unexpected", [name for name in tensors if name not in wanted and name not in ignored]),
        (
            "mis-shaped",
            [
                f"{name} {tuple(tensors[name].shape)} instead of {tuple(shape)}"
                for name, shape in wanted.items()
                if name in tensors and tensors[name].shape != tuple(shape)
            ],
        ),
        (
            "not of float32, float64, float16 or bfloat16",
            [name for name in wanted if name in tensors and not _is_plain(tensors[name])],
        ),
    ):
        if names:
            faults.append(f"{label}: {_listed(names)}")
    if faults:
        raise ValueError(f"{source} does not fit the network; {'; '.join(faults)}")


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype in _REAL and tensor.layout is torch.strided


def check_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise ``ValueError`` that lists the tensors of ``source`` with NaN or infinite numbers.

    Tensors on the meta device have no numbers.
    """
    stored = {name: tensor for name, tensor in tensors.items() if not tensor.is_meta}
    broken = [name for name, tensor in stored.items() if not _is_finite(tensor)]
    if broken:
        raise ValueError(f"{source} is not finite: {_listed(broken)}")


def _is_finite(tensor: Tensor) -> bool:
    # a finite sum has only finite parts, and takes a tenth of the time
    total = tensor.sum(dtype=torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(tensor).all())


def _listed(names: Sequence[str]) -> str:
    """The first eight names, and the number of the rest."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{', '.join(names[:8])}{more}"
