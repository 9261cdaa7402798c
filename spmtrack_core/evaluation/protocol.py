"""Settings of an evaluation run: those of the weights, of a recipe such as the paper's, or yours.

A recipe is a YAML file with ``settings`` and ``cases`` that depend on dataset and network;
``paper.yaml`` beside this file is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.files import user_path
from spmtrack_core.settings import Settings, from_dict, override, read_yaml, setting, to_dict

RECIPES = Path(__file__).parent
CONDITIONS = ("dataset", "split", "trunk", "search")


@dataclass(frozen=True)
class EvalConfig(Settings):
    """How a tracker is evaluated; the tracker's settings belong to the run, not to the weights."""

    precision: str = setting("float32", choices=("float32", "bfloat16", "float16"))
    """Of the network's matrix multiplications."""
    runtime: str = setting(
        "torch", choices=("torch", "openvino", "auto", "onnxruntime", "tensorrt")
    )
    """What computes the network; ``auto``: OpenVINO where it is installed, on the CPU. An exported
    file takes ``onnxruntime`` or ``tensorrt`` unless it is told ``openvino``."""
    batch: int = setting(0, minimum=0, maximum=1024)
    """Sequences that are tracked at once, with one pass of the network for all of them; 0: one on
    the CPU, several on a CUDA device (``workers.batch_for``)."""
    repetitions: int = setting(1, minimum=1, maximum=100)
    """Passes over every sequence; scores are means over them."""
    integer_boxes: bool = False
    """Write whole numbers, as the authors do for the servers of GOT-10k and TrackingNet: the
    left and upper edge are rounded down, the right and lower edge up."""
    exact_references: bool = False
    """Keep every past frame that the reference rule will choose, whatever memory it takes."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


@dataclass(frozen=True)
class Protocol:
    """The settings of a run, and how they differ from those of its recipe."""

    recipe: str
    """``paper``, the path of a recipe, or ``weights``: the settings stored with them."""
    config: EvalConfig
    differences: tuple[str, ...]
    """``key: value (instead of value)`` of each setting that is not the recipe's."""
    from_paper: tuple[str, ...]
    """The same against the paper's recipe."""


def make_protocol(
    recipe: str | None,
    overrides: Sequence[str],
    dataset: str,
    split: str,
    tracker: TrackerConfig | None = None,
    model: ModelConfig | None = None,
) -> Protocol:
    """The settings for one dataset; ``overrides`` are ``key=value`` and win over the recipe.

    ``tracker`` and ``model`` are the settings stored with the weights; without them (before the
    weights are read) only what does not depend on them is of use. Raises ``FileNotFoundError`` for
    a recipe that does not exist and ``ValueError`` for one that is malformed, for a setting that
    is unknown or out of its range, and for an override of the buffer beside exact references.
    """
    facts = {"dataset": dataset, "split": split}
    if model is not None:
        facts |= {"trunk": model.trunk, "search": str(model.search_hw[0])}
    stored = {"tracker": to_dict(tracker or TrackerConfig())}
    wanted = _recipe_tree(recipe, facts) if recipe else {}
    tree = _merged(stored, wanted)
    override(tree, overrides)
    config, expected = (_in_force(each) for each in (tree, _merged(stored, wanted)))
    if config.exact_references:
        _check_buffer(overrides)
    paper = _recipe_tree("paper", facts)
    return Protocol(
        recipe or "weights",
        config,
        tuple(_differences(to_dict(config), to_dict(expected))),
        tuple(_differences(to_dict(config), paper)),
    )


def _check_buffer(overrides: Sequence[str]) -> None:
    """Raise ``ValueError`` for a setting of the buffer that exact references do without."""
    given: dict[str, Any] = {"tracker": {}}
    override(given, overrides)
    for name in ("reference_stride", "buffer_frames"):
        if name in given["tracker"]:
            raise ValueError(
                f"tracker.{name}={given['tracker'][name]} has no effect with exact references; "
                "leave it out, or add exact_references=false"
            )


def _in_force(tree: Mapping[str, Any]) -> EvalConfig:
    """The settings that a tracker has, whatever gives way to its policy."""
    config: EvalConfig = from_dict(EvalConfig, tree)
    return replace(config, tracker=config.tracker.in_force())


def _recipe_tree(recipe: str, facts: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a recipe for these facts."""
    path = user_path(recipe)
    if not path.is_file() and path.suffix not in (".yaml", ".yml"):
        path = RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"no recipe {recipe!r}: expected paper, or the path of a YAML file"
        )
    content = read_yaml(path)
    unknown = set(content) - {"settings", "cases"}
    if unknown:
        raise ValueError(f"{path} must hold settings and cases; got {min(unknown)!r}")
    tree, cases = content.get("settings") or {}, content.get("cases") or []
    if not isinstance(tree, dict) or not isinstance(cases, list):
        raise ValueError(f"{path}: settings must be keys and values, cases a list")
    for case in cases:
        parts = case if isinstance(case, dict) else {}
        when, above = parts.get("when"), parts.get("settings") or {}
        if not (isinstance(when, dict) and isinstance(above, dict)) or set(when) - set(CONDITIONS):
            raise ValueError(
                f"{path}: a case has when, with any of {', '.join(CONDITIONS)}, and settings; "
                f"got {case!r}"
            )
        if all(facts.get(key) == str(value) for key, value in when.items()):
            tree = _merged(tree, above)
    return tree


def _merged(base: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``above``, key by key at every depth."""
    tree = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in above.items():
        below = tree.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        tree[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return tree


def _differences(
    got: Mapping[str, Any], expected: Mapping[str, Any], where: str = ""
) -> Iterator[str]:
    """Settings of ``got`` that are not as in ``expected``, for the keys of the latter.

    How many sequences are tracked at once is none: it changes no more than roundings.
    """
    for key, value in expected.items():
        if key == "batch":
            continue
        if isinstance(value, dict):
            yield from _differences(got[key], value, f"{where}{key}.")
        elif got[key] != value:
            yield f"{where}{key}: {got[key]} (instead of {value})"
