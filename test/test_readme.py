"""What README and docs promise exists: targets, commands, topics, files and the Python lines."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spmtrack_core.cli import app
from spmtrack_core.data.scene import scene
from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.settings import from_dict
from spmtrack_core.tracking.loading import BUNDLED_WEIGHTS
from spmtrack_core.training.config import TrainConfig
from test.nano_recipe import runs_of_nano, settings_of

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INTERFACE = (ROOT / "docs" / "ros.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands(program: str) -> list[str]:
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.startswith(f"{program} ")]


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = {command.split()[1] for command in commands("make")}
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_python_lines_track(capsys):
    (code,) = blocks("python")
    sequence = scene()
    frames = iter(sequence)
    x, y, w, h = sequence.boxes_xywh[0]
    names = {"frame": next(frames), "next_frame": next(frames), "x": x, "y": y, "w": w, "h": h}
    names["boxes"] = [(x, y, w, h), (10, 20, 60, 40)]
    exec(code, names)
    for result in (names["result"], *names["results"]):
        assert np.isfinite(result.box_xywh).all()
        assert 0 <= result.confidence <= 1
    assert len(names["results"]) == 2


@pytest.mark.parametrize("command", commands("spmtrack"))
def test_every_spmtrack_command_is_understood(command, tmp_path, monkeypatch):
    """Runs on the built-in scene in place of the reader's own video."""
    arguments = shlex.split(command)[1:]
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "track":
        arguments = ["synthetic" if word == "video.mp4" else word for word in arguments]
        arguments += ["--max-frames", "4"]
    else:  # too long to run here: its options must exist at least
        arguments = [arguments[0], "--help"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


def test_every_topic_and_service_of_the_node_graph_is_documented():
    (graph,) = blocks("mermaid")
    edges = " ".join(re.findall(r'-- "(.+?)" -->', graph))
    names = re.findall(r"[~/]*[a-z_]+", edges.replace("<br/>", " ").replace("(service)", ""))
    assert len(names) >= 9
    for name in names:
        assert re.search(rf"^\| `{re.escape(name)}` ", INTERFACE, re.MULTILINE), name


def test_every_topic_and_service_in_the_docs_is_in_the_node():
    texts = []
    for path in (ROOT / "spmtrack_ros").glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        texts += [node.value for node in nodes if isinstance(node, ast.Constant)]
    words = set(re.findall(r"\w+", " ".join(text for text in texts if isinstance(text, str))))
    types = r"\w+_msgs/\w+|std_srvs/\w+|spmtrack_ros/\w+"
    names = re.findall(rf"^\| `(\S+)` \| (?:{types}) \|", INTERFACE, re.MULTILINE)
    assert len(names) >= 15
    for name in names:
        assert set(re.findall(r"\w+", name)) <= words, name


def test_every_parameter_of_the_node_is_documented():
    pytest.importorskip("rclpy", reason="the node's parameters need ROS 2")
    parameters = importlib.import_module("spmtrack_ros.parameters")
    rows = re.findall(r"^\| `(\w+)` \| (\S+|all zero) \| (live)? ?\|", INTERFACE, re.MULTILINE)
    shown = {name: (default.strip("`"), bool(live)) for name, default, live in rows}
    present = {
        row.name: (_yaml(row.default), row.metadata["live"])
        for row in dataclasses.fields(parameters.TrackerParameters)
    }
    assert shown == present


def test_every_encoding_is_documented():
    encodings = importlib.import_module("spmtrack_core.data.image_messages").ENCODINGS
    assert set(encodings) <= set(re.findall(r"\w+", INTERFACE.lower().replace("\\", "")))


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return json.dumps(value) if isinstance(value[0], str) else "all zero"
    return str(value)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_finished_and_their_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target
    for name in re.findall(r"\brecipes/\w+\.yaml", text):
        assert (ROOT / name).exists(), name
    assert not re.findall(r"^[A-Z]+_[A-Z_]+$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_prose_are_narrow(page):
    """At most 100 columns outside tables; a line that is one link may be longer."""
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        table, link = line.startswith("|"), re.fullmatch(r"[^\s]*\]\(\S+\)\S*", line.strip())
        assert len(line) <= 100 or table or link, f"{page}:{number} has {len(line)} columns"


@pytest.mark.parametrize(
    ("folder", "link", "expected"),
    [
        ("", "[a](docs/ros.md#no-image)", "[a](ros.md#no-image)"),
        ("", "![a](docs/demo.webp)", "![a](demo.webp)"),
        ("", "[a](LICENSE)", "[a](URL/blob/main/LICENSE)"),
        ("", "[a](https://ros.org/x.md)", "[a](https://ros.org/x.md)"),
        ("docs", "[a](nano.md)", "[a](nano.md)"),
        ("docs", "[a](../recipes/nano.yaml)", "[a](URL/blob/main/recipes/nano.yaml)"),
        ("docs", "![a](../benchmarks/x.png)", "![a](benchmarks/x.png)"),
        ("docs", "[a](#memory)", "[a](#memory)"),
    ],
)
def test_links_of_the_documentation_site(folder, link, expected, monkeypatch):
    pytest.importorskip("mkdocs", reason="mkdocs builds the documentation site")
    monkeypatch.syspath_prepend(ROOT / "tools")
    docs_site = importlib.import_module("docs_site")
    assert docs_site.site_links(link, folder, "URL") == expected


def test_the_bundled_weights_tell_how_they_were_made_and_nothing_of_a_machine():
    provenance = load_checkpoint(BUNDLED_WEIGHTS / "nano.safetensors").provenance
    assert not re.search(r"/(tmp|home|root|work)/", " ".join(provenance.values()))
    runs = [provenance, *json.loads(provenance["before"])]  # the last first
    for about, command in zip(runs, reversed(runs_of_nano()), strict=True):
        settings = settings_of(command)
        told = command if settings.start_from else command[:2]  # the first ended by time
        assert about["command"].startswith(" ".join(["spmtrack", *told]))
        used = from_dict(TrainConfig, json.loads(about["config"]))
        for part in ("model", "synthetic", "videos", "stem", "optimizer", "lr", "batch_size"):
            assert getattr(used, part) == getattr(settings, part), part
        assert used.seed == settings.seed and about["steps"] == str(settings.steps)
