"""The clip of the end-to-end fixture, and trackers of it on the host or as on a device."""

from __future__ import annotations

import numpy as np
import torch
from golden_model import GOLDEN, golden_config, golden_model

from spmtrack_core.config import TrackerConfig
from spmtrack_core.tracking.cuda_engine import CudaEngine
from spmtrack_core.tracking.torch_engines import torch_engine
from spmtrack_core.tracking.tracker import Tracker

FRAMES = np.load(GOLDEN / "e2e_frames.npz")["frames"]


def e2e_tracker(rule="half_segments", precision="float32", model=None):
    """A tracker with the settings of the end-to-end fixture."""
    config = TrackerConfig(reference_rule=rule, lost_threshold=0.0)
    model = golden_model("e2e_params") if model is None else model
    engine = torch_engine(model, golden_config("e2e_params"), precision=precision)
    return Tracker(engine, config)


def on_device(tracker):
    """``tracker`` with the engine of CUDA devices, here on the CPU without a graph."""
    network = network_of(tracker)
    tracker.engine = CudaEngine(network, tracker.model_config, torch.device(tracker.device))
    return tracker


def network_of(tracker):
    """The module that PyTorch runs, on the host or on a device."""
    return getattr(tracker.engine.model, "network", tracker.engine.model)


def rows_of(results):
    return np.array([(*result.box_xywh, result.confidence) for result in results])
