"""How many threads of the CPU the network gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spmtrack_core.config import ModelConfig
from spmtrack_core.tracking import host_engine
from spmtrack_core.tracking.host_engine import HostEngine
from spmtrack_core.tracking.loading import load_tracker


class Network:
    """Takes the seconds that ``seconds`` has for its number of threads, on a clock of its own."""

    runtime, device, reference_shapes = "none", "cpu", ((4, 8),)
    no_state = np.zeros((1, 1, 8), np.float32)

    def __init__(self, seconds, threads):
        self.seconds, self.threads, self.clock = seconds, threads, 0.0

    def __call__(self, *_):
        self.clock += self.seconds[self.threads]


@pytest.mark.parametrize(
    ("seconds", "given", "limit", "chosen", "reason"),
    [
        ({1: 1.0, 2: 0.9, 3: 0.8}, 0, "", 1, "a second core for a tenth of the time"),
        ({1: 1.0, 2: 1.3, 4: 0.1}, 0, "", 1, "no look beyond what does not help"),
        ({1: 1.0, 2: 0.6, 4: 0.5, 8: 0.1}, 0, "", 2, "four save too little on two"),
        ({1: 1.0, 2: 0.5, 4: 0.25, 5: 0.15, 6: 0.1}, 0, "", 5, "all but one of six cores"),
        ({1: 1.0, 2: 0.6, 3: 0.45}, 0, "3", 3, "a third thread adds two thirds of one's work"),
        ({2: 0.1}, 0, "", 1, "one of two cores, not measured: the other is for the camera"),
        ({1: 1.0, 2: 0.1}, 0, "2", 2, "both cores, where OMP_NUM_THREADS says so"),
        ({2: 0.1}, 0, "0", 1, "no thread at all makes no network"),
        ({0: 1.0}, 0, "", 1, "one core, not measured"),
        ({4: 1.0}, 3, "1", 3, "a given number is kept, and nothing measured"),
        ({1: 1.0, 2: 0.5, 3: 0.3, 4: 0.1}, 0, "3", 3, "no more than OMP_NUM_THREADS says"),
        ({1: 1.0, 2: 0.5}, 0, "8", 2, "OMP_NUM_THREADS above the cores"),
        ({1: 1.0, 2: 0.5, 3: 0.3}, 0, "4,2", 2, "numbers of nested threads say nothing of these"),
    ],
)
def test_threads_are_taken_while_each_adds_half_of_the_first_ones_work(
    seconds, given, limit, chosen, reason, monkeypatch
):
    network = Network(seconds, given)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(max(seconds) or 1)))
    monkeypatch.setattr(host_engine, "CPU_QUOTA", Path("/none"))
    monkeypatch.setattr(host_engine, "time", SimpleNamespace(perf_counter=lambda: network.clock))
    engine = HostEngine(network, ModelConfig())
    engine.choose_threads()
    assert engine.threads == chosen, reason


@pytest.mark.parametrize(
    ("quota", "expected", "reason"),
    [
        ("200000 100000\n", 2, "a container with two of the cores, as docker --cpus=2 makes it"),
        ("150000 100000\n", 2, "a core and a half"),
        ("1000 100000\n", 1, "less than a core"),
        ("max 100000\n", 16, "a container without a limit"),
        ("6400000 100000\n", 16, "more than there are"),
        ("nonsense", 16, "another kernel's file"),
        (None, 16, "no container"),
    ],
)
def test_a_container_has_the_cores_of_its_share(quota, expected, reason, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(host_engine, "CPU_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert host_engine.cores() == expected, reason


POLICY = """
import os
from spmtrack_core import load_tracker
tracker = load_tracker({weights!r}, "cpu", threads=2)
tracker.warm_up()
import torch
print(os.environ["OMP_WAIT_POLICY"], tracker.runtime, tracker.threads)
"""


@pytest.mark.parametrize("asked", ["", "active"])
def test_threads_of_pytorch_sleep_while_they_wait_unless_told_otherwise(tiny_checkpoint, asked):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": asked} if asked else {}
    command = [sys.executable, "-c", POLICY.format(weights=str(tiny_checkpoint))]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert told.stdout.split() == [asked or "passive", "torch", "2"]


def test_other_networks_of_the_process_keep_their_threads(tiny_checkpoint, monkeypatch):
    tracker, seen = load_tracker(tiny_checkpoint, "cpu", threads=3), []
    network = tracker.engine.model.network
    monkeypatch.setattr(
        network, "forward", lambda *_: seen.append(torch.get_num_threads()) or 1 / 0
    )
    usual = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        tracker.warm_up()
    assert (seen, torch.get_num_threads()) == ([3], usual)
