"""The network: a pure function of its inputs, its parts, and the files its weights come from.

Importing timm would import torch's compiler, for two things that no tracker uses: 150 MiB and half
of the time to start. Here timm is imported without the compiler; ``torch.compile`` imports it when
it is called.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Context in which an import of timm does not import ``torch._dynamo``."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    # torchvision takes one function from this module, which only detection networks call
    utils: Any = types.ModuleType("torch._dynamo.utils")
    utils.is_compile_supported = _is_compile_supported
    # timm marks one function of its NaFlex networks by this decorator
    compiler: Any = torch.compiler
    disable = compiler.disable
    sys.modules[utils.__name__] = utils
    compiler.disable = _unmarked
    try:
        yield
    finally:
        compiler.disable = disable
        sys.modules.pop(utils.__name__, None)


def _is_compile_supported(device_type: str) -> bool:
    return importlib.import_module("torch._dynamo.utils").is_compile_supported(device_type)


def _unmarked(function: Callable | None = None, *_: object, **__: object) -> Callable:
    return function or _unmarked


try:
    with _without_compiler():
        import timm
except ImportError:  # a release of torchvision that needs more of the compiler
    import timm  # noqa: F401
