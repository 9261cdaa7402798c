"""Evaluates the same weights with one part of the network removed at a time.

The weights were trained with all parts. So the figures show what tracking relies on, not how good
a network would be that was trained without a part.

python benchmarks/ablation.py folder --root SEQUENCES --output ablation
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import typer
from rich.console import Console
from torch import nn

from spmtrack_core.cli import run_command
from spmtrack_core.cli.evaluate import check_output_folder, open_scored, report_left_out
from spmtrack_core.cli.options import Dataset, Device, Exclude, OutputFolder, Root, Split, Weights
from spmtrack_core.evaluation.plots import plot_comparison
from spmtrack_core.evaluation.runner import label_of, run_all
from spmtrack_core.evaluation.tables import comparison
from spmtrack_core.geometry.image import Image
from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.model.tmoe import TMoELinear
from spmtrack_core.model.weights import load_checkpoint
from spmtrack_core.tracking.loading import find_weights
from spmtrack_core.tracking.references import ReferenceBuffer
from spmtrack_core.tracking.result import TrackResult, VideoTracker
from spmtrack_core.tracking.target import Target
from spmtrack_core.tracking.torch_engines import choose_device, torch_engine
from spmtrack_core.tracking.tracker import Tracker


def ablation(
    dataset: Dataset,
    output: OutputFolder,
    root: Root = None,
    split: Split = "test",
    exclude: Exclude = None,
    weights: Weights = "nano",
    device: Device = "auto",
) -> None:
    """Evaluate weights as they are, and with one part of the network removed at a time."""
    check_output_folder(output, root)
    sequences, left_out = open_scored(dataset, root, split, exclude)
    path = find_weights(weights)
    trackers = {}  # by folder: label, tracker
    for removed, tracker in ablations(path, device).items():
        suffix = f", {removed}" if removed else ""
        trackers[path.stem + suffix] = label_of(path) + suffix, tracker
    reports = run_all(trackers, sequences, output, left_out=left_out)
    plot_comparison(output / "comparison.png", reports)
    Console().print(comparison(reports))
    typer.echo(f"wrote {output / 'comparison.json'} and {output / 'comparison.png'}")
    report_left_out(reports)


class Forgetful:
    """A ``VideoTracker`` that applies ``forget`` to its target before each frame."""

    def __init__(self, tracker: Tracker, forget: Callable[[Target], None]) -> None:
        self.tracker, self.forget = tracker, forget

    def init(self, frame: Image, box_xywh: Sequence[float]) -> None:
        """See ``Tracker``."""
        self.tracker.init(frame, box_xywh)

    def update(self, frame: Image) -> TrackResult:
        """See ``Tracker``."""
        if self.tracker.target is not None:
            self.forget(self.tracker.target)
        return self.tracker.update(frame)


def ablations(path: Path, device: str) -> dict[str, VideoTracker]:
    """Trackers with the weights of ``path``, by the part removed; nothing in the first one.

    Raises as ``load_checkpoint`` does.
    """

    def tracker(change: Callable[[SPMTrack], None] = lambda _: None) -> Tracker:
        checkpoint = load_checkpoint(path)
        change(checkpoint.model)
        model, config = checkpoint.model, checkpoint.model_config
        engine = torch_engine(model, config, choose_device(device))
        return Tracker(engine, checkpoint.tracker_config)

    return {
        "": tracker(),
        "template alone": Forgetful(tracker(), keep_the_template),
        "no state token": Forgetful(tracker(), drop_the_state),
        "no routing": tracker(average_the_experts),
    }


def keep_the_template(target: Target) -> None:
    """Forget all later frames: the template is all three reference frames."""
    assert isinstance(target.references, ReferenceBuffer)
    target.references.frames = target.references.entries = 1


def drop_the_state(target: Target) -> None:
    """Forget the target state token: every frame is like the first."""
    target.state_token = 0 * target.state_token


@torch.no_grad()
def average_the_experts(model: nn.Module) -> None:
    """Zero the routers: all experts get the same weight, so that their mean is applied."""
    for module in model.modules():
        if isinstance(module, TMoELinear):
            module.router.zero_()


if __name__ == "__main__":
    run_command(lambda: typer.run(ablation))
