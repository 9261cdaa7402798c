"""Imports run downwards only: no package sees one of its own floor or above.

7   cli
6   training    export    spmtrack_ros
5   evaluation  live
4   session
3   tracking
2   model       data
1   runtimes
0   geometry    config
-   settings    files
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = "spmtrack_core"
FLOORS = (
    ("settings", "files"),
    ("geometry", "config"),
    ("runtimes",),
    ("model", "data"),
    ("tracking",),
    ("session",),
    ("evaluation", "live"),
    ("training", "export"),
    ("cli",),
)
"""Parts of the core, from the ground up."""
NODE_SEES = {"tracking", "session", "live", "data", "geometry", "files"}
"""What the ROS 2 package sees of the core, besides its public names."""
OPTIONAL = {"cuda", "onnxruntime", "openvino", "tensorrt", "skimage"}
"""Packages of extras: imported where they are used, so that nothing else needs them."""
WITH_TORCH = {"spmtrack_core.tracking.torch_engines"}
"""Imported where PyTorch computes the network; with other runtimes torch stays out of memory."""
FILES = sorted(p for part in (CORE, "spmtrack_ros") for p in (ROOT / part).rglob("*.py"))


def imports(tree: ast.AST):
    """Every module that ``tree`` imports, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its floor"
            yield node.lineno, node.module or ""
            if node.module == CORE:
                yield from ((node.lineno, f"{CORE}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def part_of(module: str) -> str | None:
    """The part of the core that a module belongs to; None for the package itself and others."""
    package, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    return part if package == CORE and any(part in floor for floor in FLOORS) else None


def parts_below(part: str) -> set[str]:
    """``part`` and everything below its floor."""
    height = next(i for i, floor in enumerate(FLOORS) if part in floor)
    return {part}.union(*FLOORS[:height])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_downwards(file):
    path = str(file.relative_to(ROOT))
    module = path.removesuffix(".py").replace("/", ".")
    if module == f"{CORE}.__init__":  # the public names, by way of any floor
        return
    in_core = module.startswith(CORE)
    part = part_of(module)
    assert part or not in_core, f"{path} stands on no floor"
    allowed = parts_below(part) if part else NODE_SEES
    for line, imported in imports(ast.parse(file.read_text())):
        seen = part_of(imported)
        assert seen is None or seen in allowed, f"{path}:{line} imports {imported}"
        above = in_core and imported.startswith("spmtrack_ros")
        assert not above, f"{path}:{line} imports {imported}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_import_hides_inside_a_function(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for line, module in imports(node):
                if module.partition(".")[0] not in OPTIONAL and module not in WITH_TORCH:
                    pytest.fail(f"{file.name}:{line} imports {module} inside {node.name}")


@pytest.mark.parametrize("part", ["data", "geometry", "runtimes", "session"])
def test_what_needs_no_torch_knows_none(part):
    for file in (ROOT / CORE / part).glob("*.py"):
        modules = {module.partition(".")[0] for _, module in imports(ast.parse(file.read_text()))}
        assert not modules & {"torch", "torchvision", "timm"}, file.name
