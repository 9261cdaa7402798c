"""Loads PyTorch's compiler before OSMesa: both bring LLVM, and the other order crashes."""

from __future__ import annotations

from contextlib import suppress

with suppress(ImportError):  # builds of PyTorch for the CPU have no Triton
    import triton  # noqa: F401
