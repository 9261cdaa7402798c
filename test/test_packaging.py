"""What a robot installs is enough for a robot, and the files that describe it agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import spmtrack_core
from spmtrack_core.cli import EXTRAS

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="tomli reads pyproject.toml on Python 3.10")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()
MODULES = {
    "av": "av",
    "cv2": "opencv-contrib-python-headless",
    "huggingface_hub": "timm",  # which requires it
    "numpy": "numpy",
    "PIL": "pillow",
    "rich": "rich",
    "safetensors": "safetensors",
    "timm": "timm",
    "torch": "torch",
    "torchvision": "torchvision",
    "typer": "typer",
    "yaml": "PyYAML",
    # extras
    "aiohttp": "aiohttp",
    "lightning_fabric": "lightning-fabric",
    "matplotlib": "matplotlib",
    "mcap": "mcap",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "onnxscript": "onnxscript",
    "rosbags": "rosbags",
    "skimage": "scikit-image",
    "tensorboardX": "tensorboardX",
    "zstandard": "zstandard",
}
"""Modules that the packages import, and the distribution on PyPI that brings each."""
OF_NVIDIA = {"tensorrt", "cuda"}  # must fit the driver; docs/export.md
ROSDEP_KEYS = {
    "numpy": "python3-numpy",
    "opencv-contrib-python-headless": "python3-opencv",
    "pillow": "python3-pil",
    "PyYAML": "python3-yaml",
    "rich": "python3-rich",
    "timm": "python3-timm-pip",
    "torch": "python3-torch",
    "torchvision": "python3-torchvision",
    "typer": "python3-typer",
}
"""Of the distributions that a robot needs. safetensors and av have no key."""


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement).group() for requirement in requirements}


def imported(folder: str) -> set[str]:
    """Top-level modules that the Python files under a folder import, anywhere in the file."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"spmtrack_core", "spmtrack_ros"}


def test_one_version():
    assert "version" in PROJECT["dynamic"]  # setuptools reads spmtrack_core.__version__
    version = spmtrack_core.__version__
    assert PACKAGE.findtext("version") == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    releases = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == version


def test_every_import_of_the_core_is_declared():
    core = names(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    used = ("bag", "demo", "eval", "live", "onnx", "openvino", "train")
    declared = core.union(*(names(extras[extra]) for extra in used))
    modules = imported("spmtrack_core") - OF_NVIDIA
    assert modules <= set(MODULES), "name the distribution of a new module above"
    assert {MODULES[module] for module in modules} <= declared
    assert core <= set(MODULES.values()), "a robot installs what nothing imports"


def test_package_xml_declares_what_the_node_imports():
    declared = {element.text for element in PACKAGE if element.tag.endswith("depend")}
    ros = (imported("spmtrack_ros") | imported("launch")) - set(MODULES)
    assert ros <= declared
    core = names(PROJECT["dependencies"])
    assert set(ROSDEP_KEYS) == core - {"safetensors", "av"}
    assert set(ROSDEP_KEYS.values()) <= declared


def test_the_command_names_the_extra_of_every_module():
    core = names(PROJECT["dependencies"])
    optional = {module for module, name in MODULES.items() if name not in core}
    assert optional <= set(EXTRAS)
    for module in optional:
        assert MODULES[module] in names(PROJECT["optional-dependencies"][EXTRAS[module]]), module


WITHOUT_EXTRAS = """
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec


def find_installed(name, path=None, target=None):
    return None if name.partition(".")[0] in {extras} else find_spec(name, path, target)


PathFinder.find_spec = find_installed
from spmtrack_core.cli import main

main()
"""


def test_a_robot_tracks_without_extras(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), noise)
    code = WITHOUT_EXTRAS.format(extras=set(EXTRAS))
    box = ["--box", "40", "40", "40", "30"]
    done = subprocess.run(
        [sys.executable, "-c", code, "track", str(tmp_path), *box, "--output", tmp_path / "v.mp4"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "v.mp4").exists()
