"""The command as a whole: what it lists and loads, and how errors end it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spmtrack_core.cli import COMMANDS, EXTRAS, load_command
from spmtrack_core.cli.compare import compare
from spmtrack_core.data.recording import write_boxes, write_image

EXTRA = (
    *("aiohttp", "matplotlib", "onnxruntime", "lightning", "lightning_fabric", "tensorboardX"),
    "skimage",
)
HEAVY = ("torch", "torchvision", "timm", "av", *EXTRA)


def spmtrack_alone(watched, *arguments):
    """``spmtrack`` in a Python of its own; which of the ``watched`` modules it has imported."""
    code = (
        "import atexit, sys\n"
        "from spmtrack_core.cli import main\n"
        f"atexit.register(lambda: print(*[m for m in {watched} if m in sys.modules]))\n"
        "main()"
    )
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[3]), COLUMNS="120")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    *out, imported = done.stdout.splitlines()
    return done.returncode, out, done.stderr, imported.split()


def test_help_lists_every_command_and_imports_none_of_them():
    code, out, err, imported = spmtrack_alone(HEAVY, "--help")
    assert (code, imported) == (0, []), err
    for name in COMMANDS:
        line = load_command(name).help.splitlines()[0]
        assert any(name in shown and line in shown for shown in out), name


def test_tracking_imports_no_extra_and_no_compiler(tmp_path, tiny_checkpoint):
    for index in range(3):
        write_image(tmp_path / f"{index}.png", np.full((60, 80, 3), 90, np.uint8))
    code, out, err, imported = spmtrack_alone(
        (*EXTRA, "torch._dynamo"),
        "track",
        str(tmp_path),
        "--box",
        "30",
        "20",
        "20",
        "16",
        "--weights",
        str(tiny_checkpoint),
        "--device",
        "cpu",
    )
    assert (code, imported) == (0, []), err
    assert out[0].startswith("3 frames")


@pytest.mark.parametrize(
    ("arguments", "words", "place"),
    [
        ("trak video.mp4", "No such command 'trak'", ""),
        ("track", "Missing argument", "track"),
        ("track video.mp4 --box 1 2 3", "'--box' requires 4 arguments", "track"),
        ("track video.mp4 --box 1 2 3 wide", "Invalid value for '--box'", "track"),
        ("live --prt 80", "No such option: --prt", "live"),
        ("eval table", "Missing argument", "eval table"),
    ],
)
def test_a_mistake_in_a_command_line_is_one_line(spmtrack, arguments, words, place):
    code, out, err = spmtrack(*arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("spmtrack: error: ") and words in err
    assert err.endswith(f" (see {' '.join(['spmtrack', *place.split()])} --help)\n")


def test_without_arguments_the_commands_are_listed(spmtrack):
    assert spmtrack() == spmtrack("--help")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(spmtrack, name):
    code, out, err = spmtrack(name, "--help")
    assert code == 0, err
    help_text = load_command(name).help
    assert help_text.splitlines()[0] in " ".join(out.split())
    assert help_text.splitlines()[0].endswith(".")


@pytest.mark.parametrize(
    ("full", "argument", "said"),
    [
        ("stderr", "trak", ""),  # a log, which costs no results
        ("stdout", "--version", "spmtrack: error: stdout cannot be written: No space left on "),
    ],
)
def test_a_full_disk_behind_an_outlet_is_no_traceback(full, argument, said):
    command = [sys.executable, "-m", "spmtrack_core.cli", argument]
    with open("/dev/full", "wb") as disk:
        outlets = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, full: disk}
        done = subprocess.run(command, **outlets, text=True, timeout=120)
    err = done.stderr or ""
    assert (done.returncode, err.startswith(said), err.count("\n")) == (2, True, bool(said)), err


def test_usage_errors_and_version(spmtrack):
    assert spmtrack("track")[0] == 2
    code, _, err = spmtrack("trak")
    assert (code, "track" in err) == (2, True)
    code, out, _ = spmtrack("--version")
    assert (code, out.startswith("spmtrack 0.")) == (0, True)


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


@pytest.fixture
def home(tmp_path, monkeypatch, tiny_checkpoint):
    """A home folder with a sequence, its results and weights; the working folder is another."""
    home, here = tmp_path / "home", tmp_path / "here"
    for index in range(3):
        write_image(home / "seq" / "a" / f"{index}.png", np.full((60, 80, 3), 90, np.uint8))
    for path in (home / "seq" / "a" / "groundtruth.txt", home / "results" / "a.txt"):
        write_boxes(path, np.array([[10.0, 10, 20, 20]] * 3))
    shutil.copy(tiny_checkpoint, home / "tiny.safetensors")
    (home / "exclude.txt").write_text("b\n")
    (home / "recipe.yaml").write_text("settings: {repetitions: 1}\n")
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    yield home
    assert os.listdir(here) == []


def test_a_tilde_after_an_equals_sign_is_the_home_folder(home, spmtrack):
    tracked = ["--weights=~/tiny.safetensors", "--device=cpu", "--as=~/recipe.yaml"]
    for output, more in (("out", tracked), ("scored", ["--rescore=~/results"])):
        code, _, err = spmtrack("eval", "folder", "--root=~/seq", f"--output=~/{output}", *more)
        assert code == 0, err
        assert (home / output / "results.json").is_file()
    code, _, err = spmtrack("eval", "table", "~/out", "~/scored", "--output=~/table")
    assert code == 0, err
    assert (home / "table" / "table.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--root=~/seq", "--output={home}/seq"), "seq is the folder of the dataset"),
        (("--root={home}/seq", "--output=~/seq"), "seq is the folder of the dataset"),
        (("--root=~/seq", "--output=~/out", "--exclude=~/exclude.txt"), "exclude.txt names none"),
    ],
)
def test_errors_of_paths_in_the_home_folder(home, spmtrack, arguments, named):
    code, _, err = spmtrack("eval", "folder", *(each.format(home=home) for each in arguments))
    assert (code, named in err) == (2, True), err


def test_every_path_of_a_command_may_begin_with_a_tilde(home, monkeypatch):
    """As options of several values, and those that may be repeated, hold them."""
    seen = {}

    def command(**arguments):
        seen.update(arguments)

    monkeypatch.setattr("spmtrack_core.cli.compare.compare", functools.wraps(compare)(command))
    arguments = ["synthetic", "--output=~/out", "--nano", "~/a.onnx", "~/b.onnx", "--vit=~/c.onnx"]
    load_command("compare").main([*arguments, "--trax=x=~/tracker"], standalone_mode=False)
    assert seen["output"] == home / "out"
    assert tuple(seen["nano"]) == (home / "a.onnx", home / "b.onnx")
    assert seen["vit"] == home / "c.onnx"
    assert (seen["root"], seen["trax"]) == (None, ["x=~/tracker"])
