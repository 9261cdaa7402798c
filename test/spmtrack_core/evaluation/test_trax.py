"""TraX: messages, both sides talking to each other, and the registry of the VOT toolkit."""

from __future__ import annotations

import configparser
import faulthandler
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spmtrack_core.data.recording import write_image
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.evaluation import trax
from spmtrack_core.evaluation.runner import run_all
from spmtrack_core.evaluation.trax import TraxTracker, compose, parse, region_box, serve
from spmtrack_core.evaluation.vot import add_tracker
from spmtrack_core.tracking.result import TrackResult, TrackState

ROOT = Path(__file__).parents[3]
STILL = """
import sys
from spmtrack_core.evaluation.trax import serve
from spmtrack_core.tracking.result import TrackResult, TrackState

class Still:
    def init(self, frame, box_xywh):
        self.box = tuple(box_xywh)
    def update(self, frame):
        print("noise", flush=True)
        x, y, w, h = self.box
        self.box = x + float(frame.mean()), y, w, h
        return TrackResult(self.box, 0.25, TrackState.TRACKING)

serve(Still, sys.stdin, sys.stdout, "still")
"""


@given(st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), min_size=1))
def test_any_text_survives_as_an_argument(text):
    line = compose("status", "a" + text)
    assert "\n" not in line
    message = parse("some noise before " + line)
    assert message is not None
    assert [*message.arguments, *message.properties] != []
    if not message.properties:
        assert message.arguments == ("a" + text,)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("no message", None),
        ("@@TRAX:quit", ("quit", (), {})),
        (
            '@@TRAX:initialize "file:///a%20b.jpg" "1,2,3,4"',
            ("initialize", ("file:///a%20b.jpg", "1,2,3,4"), {}),
        ),
        (r'@@TRAX:state "" "a.b=x\"y\\z\nw"', ("state", ("",), {"a.b": 'x"y\\z\nw'})),
        ("@@TRAX:hello trax.version=3", ("hello", (), {"trax.version": "3"})),
    ],
)
def test_lines_are_parsed(line, expected):
    assert parse(line) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2,3,4", (1, 2, 3, 4)),
        ("0,0,4,1,5,6,1,5", (0, 0, 5, 6)),
        ("1.5,2,3,4,0,9", (0, 2, 3, 7)),
    ],
)
def test_regions_become_boxes(text, expected):
    assert region_box(text) == expected


@pytest.mark.parametrize("text", ["", "0", "m0,0,3", "1,2,3", "1,2,3,4,5"])
def test_other_regions_are_refused(text):
    with pytest.raises(ValueError, match="a rectangle or a polygon"):
        region_box(text)


@pytest.fixture
def still(tmp_path):
    script = tmp_path / "still.py"
    script.write_text(STILL)
    tracker = TraxTracker(f"{sys.executable} {script}")
    yield tracker
    tracker.close()


def test_both_sides_understand_each_other(still, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for _ in range(2):  # a second target needs no second process
        still.init(np.zeros((20, 30, 3), np.uint8), (1, 2, 3, 4))
        result = still.update(np.full((20, 30, 3), 5, np.uint8))
        assert result == TrackResult((6.0, 2.0, 3.0, 4.0), 0.25, TrackState.TRACKING)


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("/absent/tracker", "cannot start '/absent/tracker': No such file or dir"),
        ("true", "ended with exit code 0 before its hello"),
        ("echo '@@TRAX:quit \"trax.reason=no weights\"'", "answered quit no weights"),
        ("'unbalanced", "cannot start"),
    ],
)
def test_a_command_that_does_not_speak_trax_is_named(command, match):
    with pytest.raises(ValueError, match=match):
        TraxTracker(command).init(np.zeros((4, 4, 3), np.uint8), (0, 0, 2, 2))


HANGS = """
import sys, time
from spmtrack_core.evaluation.trax import compose
print(compose("hello", trax_version=3), flush=True)
print(compose("state", "1,2,3,4"), flush=True)
time.sleep(1000)
"""


@pytest.fixture
def bounded(monkeypatch):
    """No answer takes long, and a wait that has no end ends with a traceback."""
    monkeypatch.setattr(trax, "ANSWER", 0.5)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize(
    "command",
    [
        "cat",  # repeats what it is told: nothing
        "sleep 1000",
        "yes",  # says something all the time
        "sh -c 'sleep 1000; true'",  # a script that has the tracker as a child
    ],
)
def test_a_command_that_sends_nothing_of_trax_is_ended(bounded, command, monkeypatch):
    tracker = TraxTracker(command)
    expected = f"{command!r} sent no hello of TraX for 0.5 s"
    for _ in range(2):
        with pytest.raises(ValueError, match=re.escape(expected)):
            tracker.init(np.zeros((4, 4, 3), np.uint8), (0, 0, 2, 2))
        monkeypatch.setattr(subprocess, "Popen", None)  # the next sequence waits for nothing
    tracker.close()


def test_a_tracker_that_hangs_is_ended_and_started_again(bounded, tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text(HANGS)
    monkeypatch.setattr(trax, "ANSWER", 5.0)  # Python starts within
    tracker = TraxTracker(f"{sys.executable} {tmp_path / 'hangs.py'}")
    frame = np.zeros((4, 4, 3), np.uint8)
    seen = set()
    for _ in range(2):
        tracker.init(frame, (0, 0, 2, 2))
        process = tracker._process
        seen.add(process.pid)
        monkeypatch.setattr(trax, "ANSWER", 0.3)
        with pytest.raises(ValueError, match=r"sent no state of TraX for 0\.3 s"):
            tracker.update(frame)
        assert process.returncode is not None
        with pytest.raises(ValueError, match="has ended"):
            tracker.update(frame)
        monkeypatch.setattr(trax, "ANSWER", 5.0)
    assert len(seen) == 2
    tracker.close()


def test_a_tracker_has_ended_when_the_next_one_runs(still, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    running = []

    class Watching:
        def init(self, frame, box_xywh):
            running.append(still._process)

        def update(self, frame):
            return TrackResult((1.0, 2.0, 3.0, 4.0), 0.5, TrackState.TRACKING)

    frames = [np.zeros((20, 30, 3), np.uint8)] * 3
    boxes = np.array([[1.0, 2, 3, 4]] * 3)
    sequence = FrameSequence("a", lambda: iter(frames), 3, None, boxes)
    run_all({"a": ("a", still), "b": ("b", Watching())}, [sequence], tmp_path)
    assert running == [None]


def test_a_server_refuses_what_is_no_request(tmp_path):
    write_image(tmp_path / "1.png", np.zeros((4, 4, 3), np.uint8))
    line = compose("state", (tmp_path / "1.png").as_uri())
    with pytest.raises(ValueError, match="expected initialize, frame or quit; got 'state'"):
        serve(lambda: None, io.StringIO(line), io.StringIO(), "none")


def test_the_workspace_gets_the_tracker_beside_others(tmp_path, spmtrack):
    code, _, err = spmtrack("eval", "vot", "--workspace", tmp_path)
    assert (code, "vot initialize" in err) == (2, True)
    (tmp_path / "config.yaml").write_text("stack: vot2022/shorttermbox\n")
    (tmp_path / "trackers.ini").write_text("[Other]\nlabel = Other\ncommand = other\n")
    more = "tracker.window_weight=0.3", "tracker.buffer_frames=4096"  # no exact references
    code, out, err = spmtrack("eval", "vot", "--workspace", tmp_path, "--as", "paper", *more)
    assert code == 0, err
    assert "vot --registry" in out and "evaluate" in out
    registry = configparser.ConfigParser(interpolation=None)
    registry.read(tmp_path / "trackers.ini")
    assert registry.sections() == ["Other", "spmtrack_nano"]
    command = registry["spmtrack_nano"]["command"]
    assert "--serve" in command and "window_weight=0.3" in command and "--as paper" in command


def test_a_broken_registry_is_named(tmp_path):
    (tmp_path / "config.yaml").touch()
    (tmp_path / "trackers.ini").write_text("no section")
    with pytest.raises(ValueError, match="is not a tracker registry"):
        add_tracker(tmp_path, "nano", [])


def toolkit() -> str | None:
    """The command of vot-toolkit, in an environment of its own."""
    return os.environ.get("SPMTRACK_VOT") or shutil.which("vot")


@pytest.mark.slow
@pytest.mark.skipif(toolkit() is None, reason="no vot-toolkit: name its vot in SPMTRACK_VOT")
def test_the_official_toolkit_runs_the_tracker(tmp_path, spmtrack, tiny_checkpoint, monkeypatch):
    for name in ("left", "right"):
        folder = tmp_path / "sequences" / name
        random = np.random.default_rng(0)
        for number in range(1, 9):
            image = random.integers(0, 255, (60, 80, 3)).astype(np.uint8)
            write_image(folder / "color" / f"{number:08d}.jpg", image)
        (folder / "groundtruth.txt").write_text("10,10,20,20\n" * 8)
        (folder / "sequence").write_text(
            "channels.color=color/%08d.jpg\nfps=25\nformat=default\nheight=60\nlength=8\n"
            f"name={name}\nwidth=80\n"
        )
        (folder / "anchor.value").write_text("1\n" + "0\n" * 6 + "-1\n")
    (tmp_path / "sequences" / "list.txt").write_text("left\nright\n")
    (tmp_path / "config.yaml").write_text(
        "registry:\n- ./trackers.ini\nstack: vot2022/shorttermbox\n"
    )
    code, _, err = spmtrack(
        "eval", "vot", "--workspace", tmp_path, "--weights", tiny_checkpoint, "--device", "cpu"
    )
    assert code == 0, err
    command = [toolkit(), "--registry", tmp_path / "trackers.ini", "evaluate"]
    done = subprocess.run(
        [*map(str, command), "--workspace", str(tmp_path), "spmtrack_tiny"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = list((tmp_path / "results" / "spmtrack_tiny").rglob("*.bin"))
    results += list((tmp_path / "results" / "spmtrack_tiny").rglob("*_*.txt"))
    assert len({path.parent.name for path in results}) == 2, results
