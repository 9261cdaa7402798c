"""Imports run downwards only; what shares a floor stays apart."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = "spmtrack_core"

# each part and the parts of this project it may see, besides itself
GROUND = {"config", "files", "geometry"}
MAY_SEE = {
    f"{CORE}.config": set(),
    f"{CORE}.files": set(),
    f"{CORE}.geometry": set(),
    f"{CORE}.model": GROUND,
    f"{CORE}.data": GROUND,
    f"{CORE}.tracking": GROUND | {"model", "data"},
    f"{CORE}.training": GROUND | {"model", "data", "tracking"},
    f"{CORE}.evaluation": GROUND | {"model", "data", "tracking"},
    f"{CORE}.export": GROUND | {"model", "tracking"},
    f"{CORE}.cli": GROUND | {"model", "data", "tracking", "training", "evaluation", "export"},
    "spmtrack_ros": {"geometry", "tracking"},
}
# the programs that play and record video around the node
PLAYERS = {"spmtrack_ros/video_publisher.py", "spmtrack_ros/demo.py",
           "spmtrack_ros/recorder.py"}  # fmt: skip
FILES = sorted(p for part in (CORE, "spmtrack_ros") for p in (ROOT / part).rglob("*.py"))


def imports(tree: ast.AST):
    """Every project module that ``tree`` imports, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its floor"
            yield node.lineno, node.module or ""
            if node.module == CORE:
                yield from ((node.lineno, f"{CORE}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def part_of(path: str) -> str | None:
    module = path.removesuffix(".py").replace("/", ".")
    return next((part for part in MAY_SEE if f"{module}.".startswith(f"{part}.")), None)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_downwards(file):
    path = str(file.relative_to(ROOT))
    tree = ast.parse(file.read_text())
    part = part_of(path)
    if part is None:
        assert path == f"{CORE}/__init__.py", f"{path} stands on no floor"
        return
    allowed = {f"{CORE}.{name}" for name in MAY_SEE[part]}
    if path in PLAYERS:
        allowed |= {f"{CORE}.data", f"{CORE}.files"}
    for line, module in imports(tree):
        seen = part_of(module.replace(".", "/"))
        assert seen in (None, part) or seen in allowed, f"{path}:{line} imports {module}"
        if part == "spmtrack_ros" and module.startswith(CORE):
            # the package itself offers load_tracker and the version, no more
            assert seen or module == CORE or module.removeprefix(f"{CORE}.") in (
                "load_tracker", "__version__", "TrackState", "TrackResult",
            ), f"{path}:{line} imports {module}"  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_import_hides_inside_a_function(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for line, module in imports(node):
                pytest.fail(f"{file.name}:{line} imports {module} inside {node.name}")


def test_data_knows_no_torch():
    for file in (ROOT / CORE / "data").glob("*.py"):
        modules = {module.partition(".")[0] for _, module in imports(ast.parse(file.read_text()))}
        assert not modules & {"torch", "torchvision", "timm"}, file.name
