"""How long one pass of the network takes, layout by layout; see docs/speed.md.

    python test/speed.py nano --threads 2
    python test/speed.py b --precision bfloat16 --rounds 7

``b`` has random weights, which cost the same as trained ones. All layouts take turns in one
process, so that what else the computer does falls on all of them. The plain ViT has the blocks of
the trunk and as many tokens, and neither experts, embeddings nor a head.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from published_layout import published_layout
from timm.models import VisionTransformer
from torch import nn

from spmtrack_core.config import ModelConfig
from spmtrack_core.data.scene import scene
from spmtrack_core.model.fused import fuse
from spmtrack_core.model.spmtrack import SPMTrack, build_spmtrack
from spmtrack_core.model.weights import PRECISIONS, in_precision, load_checkpoint, load_tensors
from spmtrack_core.tracking.tracker import find_weights, load_tracker


def network(size: str) -> tuple[SPMTrack, ModelConfig]:
    """``nano`` as bundled, or ``b`` with random weights."""
    if size == "nano":
        model, config, *_ = load_checkpoint(find_weights("nano"))
    else:
        torch.manual_seed(0)
        config = ModelConfig(trunk="vit_base_patch14_dinov2")
        model = build_spmtrack(config)
        for name, parameter in model.named_parameters():
            if name.endswith("experts"):
                nn.init.normal_(parameter, std=0.02)
    return model.eval().requires_grad_(False), config


def layouts(
    model: SPMTrack, config: ModelConfig, dtype: torch.dtype
) -> dict[str, Callable[[], object]]:
    """One pass of each layout as a function without arguments."""
    search = torch.randn(1, 3, *config.search_hw)
    references = torch.randn(1, 3, 3, *config.template_hw)
    masks = (torch.rand(1, 3, *config.template_grid_hw) > 0.5).float()
    state = torch.randn(1, 1, config.embed_dim)
    fused = fuse(model, dtype)
    slots = torch.stack(
        [fused.embed_references(references[:, i], masks[:, i]) for i in range(3)], 1
    )
    if dtype is not torch.float32:
        load_tensors(model, in_precision(model.state_dict(), model, dtype), "network")
    published = published_layout(model)
    vit = VisionTransformer(
        img_size=config.search_hw, patch_size=config.patch_size, embed_dim=config.embed_dim,
        depth=len(fused.blocks), num_heads=fused.blocks[0].heads, init_values=1.0,
        class_token=False, global_pool="", num_classes=0,
    ).eval().requires_grad_(False)  # fmt: skip
    tokens = torch.randn(1, 1 + slots.shape[1] * slots.shape[2] + search.shape[2] * search.shape[3]
                         // config.patch_size**2, config.embed_dim)  # fmt: skip

    def autocast(function: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                return function()

        return run

    return {
        "published": autocast(lambda: published(search, references, masks, state)),
        "plain": autocast(lambda: model(search, references, masks, state)),
        "fused": lambda: fused(search, slots, state),
        "plain ViT": autocast(lambda: vit.norm(vit.blocks(tokens))),
    }


def measure(functions: dict[str, Callable[[], object]], rounds: int, clock) -> dict[str, float]:
    """Median seconds of each function; they take turns, the first two rounds do not count."""
    seen: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 2):
        for name, function in functions.items():
            start = clock()
            function()
            seen[name].append(clock() - start)
    return {name: statistics.median(times[2:]) for name, times in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("size", choices=("nano", "b"))
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--track", action="store_true", help="whole frames of the built-in scene")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # one thread's own time does not see what else runs
    clock = time.thread_time if arguments.threads == 1 else time.perf_counter
    if arguments.track:
        tracker, sequence = load_tracker("nano", "cpu", precision=arguments.precision), scene()
        first, *frames = itertools.islice(sequence, arguments.rounds + 3)
        tracker.init(first, sequence.boxes_xywh[0])
        rest = iter(frames)
        took = measure({"a frame": lambda: tracker.update(next(rest))}, arguments.rounds, clock)
    else:
        with torch.inference_mode():
            passes = layouts(*network(arguments.size), PRECISIONS[arguments.precision])
            took = measure(passes, arguments.rounds, clock)
    for name, seconds in took.items():
        print(f"{name:10} {1e3 * seconds:9.2f} ms  {1 / seconds:8.2f} /s")


if __name__ == "__main__":
    main()
