"""The command as a whole: what it lists and loads, and how errors end it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spmtrack_core.cli import COMMANDS, EXTRAS, load_command

EXTRA = ("matplotlib", "onnxruntime", "lightning", "lightning_fabric", "tensorboardX", "skimage")
HEAVY = ("torch", "torchvision", "timm", "av", *EXTRA)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, in which nothing is imported yet."""
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[3]), COLUMNS="120")
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip


def test_help_lists_every_command_and_loads_none_of_them():
    done = python(
        "import atexit, sys\n"
        "from spmtrack_core.cli import main\n"
        f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules]))\n"
        "main()",
        "--help",
    )
    assert done.returncode == 0, done.stderr
    *listing, loaded = done.stdout.strip().splitlines()
    assert loaded == "[]"
    for name in COMMANDS:
        line = load_command(name).help.splitlines()[0]
        assert any(name in shown and line in shown for shown in listing), name


def test_a_tracker_loads_no_extra():
    done = python(
        "import sys, spmtrack_core.tracking.loading, spmtrack_core.data.video\n"
        f"print([module for module in {EXTRA} if module in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(spmtrack, name):
    code, out, err = spmtrack(name, "--help")
    assert code == 0, err
    help_text = load_command(name).help
    assert help_text.splitlines()[0] in " ".join(out.split())
    assert help_text.splitlines()[0].endswith(".")


def test_usage_errors_and_version(spmtrack):
    assert spmtrack("track")[0] == 2
    code, _, err = spmtrack("trak")
    assert (code, "track" in err) == (2, True)
    code, out, _ = spmtrack("--version")
    assert (code, out.startswith("spmtrack 0.")) == (0, True)


def test_an_error_of_the_user_is_one_line():
    done = python("from spmtrack_core.cli import main; main()", "track", "absent.mp4")
    assert done.returncode == 2
    assert done.stderr.startswith("spmtrack: error: no video")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_extra_is_one_line_with_its_cure(spmtrack, monkeypatch, package):
    def missing(name):
        raise ModuleNotFoundError(f"No module named '{package}.part'", name=f"{package}.part")

    monkeypatch.setattr("spmtrack_core.cli.load_command", missing)
    code, out, err = spmtrack("eval", "synthetic", "--output", "x")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{package} is not installed: pip install 'spmtrack_ros[{EXTRAS[package]}]'" in err


def test_the_built_in_scene_needs_its_photographs(spmtrack, monkeypatch, tiny_checkpoint):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    code, _, err = spmtrack("track", "synthetic", "--weights", tiny_checkpoint)
    assert code == 2
    assert err.endswith("skimage is not installed: pip install 'spmtrack_ros[demo]'\n")
