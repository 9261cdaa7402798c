"""Settings as frozen dataclasses: a range beside each field, strict YAML, ``key=value``.

A class of settings derives from ``Settings`` and gives a field its range by ``setting``:

>>> @dataclass(frozen=True)
... class Example(Settings):
...     rate: float = setting(0.1, above=0)
>>> from_dict(Example, {"rate": -1})
Traceback (most recent call last):
ValueError: rate must be above 0; got -1.0
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The values that a number, or each number of a tuple, may have. Never NaN nor infinite."""

    minimum: float | None = None
    """Smallest value."""
    maximum: float | None = None
    """Largest value."""
    above: float | None = None
    """The value must be larger."""
    below: float | None = None
    """The value must be smaller."""

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        lower, upper = (self.minimum, self.above), (self.maximum, self.below)
        if lower != (None, None) and upper != (None, None):
            opening, closing = "[(", "])"
            low, high = self.minimum is None, self.maximum is None
            smallest, largest = lower[low], upper[high]
            return f"in {opening[low]}{smallest:g}, {largest:g}{closing[high]}"
        words = {
            "at least": self.minimum,
            "at most": self.maximum,
            "above": self.above,
            "below": self.below,
        }
        limits = [f"{word} {limit:g}" for word, limit in words.items() if limit is not None]
        return " and ".join(limits) or "a number"


def setting(
    default: Any,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A dataclass field with the range of its values, or the ``choices`` for its text.

    None is allowed wherever the field's type allows it.
    """
    allowed = tuple(choices) or Range(minimum, maximum, above, below)
    return dataclasses.field(default=default, metadata={"allowed": allowed})


@dataclass(frozen=True)
class Settings:
    """Base of every class of settings. Raises ``ValueError`` for a value out of its range."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_setting(field.name, getattr(self, field.name), field.metadata.get("allowed"))


def check_setting(name: str, value: Any, allowed: Range | Collection[str] | None) -> None:
    """Raise ``ValueError`` for a ``value`` that is not ``allowed``; None always is."""
    values = value if isinstance(value, tuple) else (value,)
    if isinstance(allowed, Range):
        wrong = [each for each in values if each is not None and each not in allowed]
        infinite = wrong and not math.isfinite(wrong[0])
        expected = f"finite and {allowed}" if infinite else str(allowed)
    elif allowed:
        wrong = [each for each in values if each is not None and each not in allowed]
        expected = f"one of {', '.join(allowed)}"
    else:
        return
    if wrong:
        raise ValueError(f"{name} must be {expected}; got {wrong[0]!r}")


# PyYAML lets errors of Python through for malformed tags, dates and nesting
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)


class _Loader(yaml.SafeLoader):
    """Rejects a key that stands twice: YAML takes the last and drops what the first says."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: list[Any] = []
        for key, _ in node.value:
            if key.value in seen:
                text = f"the key {key.value} stands twice"
                text += "; expected a list, <<: [*a, *b]" * (key.value == "<<")
                raise yaml.MarkedYAMLError(problem=text, problem_mark=key.start_mark)
            seen.append(key.value)
        return node


def load_yaml(path: str | Path, cls: type[T], overrides: Sequence[str] = ()) -> T:
    """Read ``path`` into the dataclass ``cls``; ``overrides`` are ``key=value``, dotted if nested.

    Raises ``FileNotFoundError`` without the file, and ``ValueError`` for an unknown key, a value
    of the wrong type or out of its range, a malformed override, or a file that is not YAML.
    """
    return from_dict(cls, read_yaml(path, overrides))


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Keys and values of ``path`` with ``overrides``, for ``from_dict``; errors as above."""
    try:
        tree = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Loader) or {}
    except OSError as error:
        raise type(error)(f"{path} cannot be read: {error.strerror or error}") from None
    except _NOT_YAML as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must contain keys and values; got {type(tree).__name__}")
    override(tree, overrides)
    return tree


def override(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put every ``key=value`` of ``overrides`` into ``tree``; keys are dotted, values YAML.

    Raises ``ValueError`` for an override that is malformed or goes through a value.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"an override must be key=value; got {text!r}")
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"override {text!r}: {parent} has no keys")
        try:
            node[leaf] = yaml.safe_load(value)
        except _NOT_YAML:
            raise ValueError(f"override {text!r} has a value that is not YAML") from None


def from_dict(cls: type[T], tree: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass ``cls`` from plain values, as found in YAML or JSON.

    Raises ``ValueError`` naming the key for unknown keys, values of the wrong type and values out
    of their range.
    """
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    known = {field.name for field in fields}
    unknown = sorted(str(key) for key in set(tree) - known)
    if unknown:
        section = f" under {where.rstrip('.')}" if where else ""
        raise ValueError(
            f"unknown key {unknown[0]!r}{section}; expected one of {', '.join(sorted(known))}"
        )
    for field in fields:
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in tree:
            raise ValueError(f"{where.rstrip('.') or cls.__name__} needs {field.name}")
    values = {key: _value(hints[key], value, where + key) for key, value in tree.items()}
    return cls(**values)


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain values for YAML and JSON; ``from_dict`` is the inverse."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def _plain(value: Any) -> Any:
    """``value`` with lists in place of tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _value(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``hint``, or ``ValueError`` naming the key ``where``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = next(a for a in arguments if a is not type(None))
        return _value(inner, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value, where + ".")
    if origin is tuple and arguments[-1] is Ellipsis and isinstance(value, arguments[0]):
        value = (value,)  # one value may stand for a list of one
    if origin is tuple and isinstance(value, list | tuple):
        inner_hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner_hints) == len(value):
            return tuple(_value(h, v, where) for h, v in zip(inner_hints, value, strict=True))
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as text
        except ValueError:
            pass
    simple = origin is None and isinstance(hint, type)  # tuple[int, int] is a type to Python 3.10
    if simple and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name = getattr(hint, "__name__", None) if origin is None else str(hint)
    raise ValueError(f"{where} must be {name or hint}; got {value!r}")
