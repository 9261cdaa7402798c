"""How fast the networks are here, against what this machine multiplies at best.

Networks have random numbers in the real sizes, but for bundled weights: speed does not depend on
the numbers. Times are medians over repetitions, after a warm-up, everything waited for.
"""

from __future__ import annotations

import copy
import itertools
import logging
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.files import write_beside
from spmtrack_core.geometry.crop import context_crop
from spmtrack_core.geometry.image import Image, crop_image, normalize
from spmtrack_core.model.fused import fuse
from spmtrack_core.model.spmtrack import Prediction, SPMTrack, build_spmtrack
from spmtrack_core.model.tmoe import TMoELinear
from spmtrack_core.model.trunk import build_trunk
from spmtrack_core.model.weights import PRECISIONS, load_checkpoint
from spmtrack_core.tracking.cuda_engine import CapturedGraph
from spmtrack_core.tracking.host_engine import HostEngine
from spmtrack_core.tracking.loading import find_weights
from spmtrack_core.tracking.postprocess import select_box
from spmtrack_core.tracking.preprocess import crop_numbers
from spmtrack_core.tracking.references import REFERENCES
from spmtrack_core.tracking.tracker import Tracker

LOG = logging.getLogger(__name__)
SIZES = {
    "spmtrack_b": "vit_base_patch14_dinov2",
    "spmtrack_l": "vit_large_patch14_dinov2",
    "spmtrack_g": "vit_giant_patch14_dinov2",
}
FRAME_HW = (480, 640)


def measure(
    name: str,
    device: torch.device,
    precisions: tuple[str, ...],
    batches: tuple[int, ...],
    seconds: float,
) -> Iterator[dict[str, Any]]:
    """Rows for one network: a size of ``SIZES``, or bundled weights or a checkpoint's path.

    Each row has ``model``, ``layout``, ``precision``, ``batch``, ``median_ms`` and ``p95_ms`` of a
    pass. Layouts: ``fused``, as the tracker runs it, and on CUDA also recorded as a ``graph``;
    ``plain``, as training does; ``published``, expert by expert; ``vit``, the trunk alone on as
    many tokens; ``tracker``, a whole frame of 640x480, with ``crop_ms``, ``network_ms``,
    ``choice_ms`` and on CUDA ``upload_ms`` of it. Rows measured on CUDA have ``memory_bytes``,
    weights and all. ``seconds`` is spent on each. Raises ``ValueError`` and ``FileNotFoundError``
    as ``load_checkpoint`` does. What fails, for memory or as a graph, is a warning, and left out.
    """
    model, config, tracker_config = network(name, device)
    flops = flop(config)
    for precision in precisions:
        about = {"model": name, "precision": precision}
        part = "the network"
        try:
            for layout, run in layouts(model, config, PRECISIONS[precision], device):
                for batch in batches if layout in ("fused", "graph") else (1,):
                    part = f"{layout} of {batch}"
                    try:
                        inputs = example(config, batch, device)
                        times = timed(partial(run, *inputs), device, seconds)
                    except RuntimeError as error:
                        LOG.warning("%s, %s, %s: %s", name, precision, part, error)
                        continue
                    count = {"flop": None if layout == "vit" else batch * flops}
                    yield about | {"layout": layout, "batch": batch} | count | times
            del run
            part = "tracker"
            tracker = Tracker(model, config, tracker_config, device, precision)
            yield about | {"layout": "tracker", "batch": 1} | frame_times(tracker, seconds)
        except RuntimeError as error:
            LOG.warning("%s, %s, after %s: %s", name, precision, part, error)


def network(name: str, device: torch.device) -> tuple[SPMTrack, ModelConfig, TrackerConfig]:
    """The network of ``name`` on the host, with its settings; ``device`` draws its numbers."""
    if name not in SIZES:
        checkpoint = load_checkpoint(find_weights(name))
        model, config = checkpoint.model, checkpoint.model_config
        tracker_config = checkpoint.tracker_config
        return model.eval(), config, tracker_config
    config = ModelConfig(trunk=SIZES[name])
    torch.manual_seed(0)
    with device:
        model = build_spmtrack(config)
    for module in model.modules():
        if isinstance(module, TMoELinear):  # zero at the start of a training
            nn.init.normal_(module.experts, std=0.02)
    return model.cpu().eval().requires_grad_(False), config, TrackerConfig()


def layouts(
    model: SPMTrack, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Names and functions of search, references, masks and state token; one at a time exists."""
    half = dtype is not torch.float32
    autocast = partial(torch.autocast, device.type, dtype if half else None, enabled=half)

    def under_autocast(function: nn.Module, *inputs: Tensor) -> Any:
        with autocast():
            return function(*inputs)

    fused: Any = fuse(model, dtype).to(device)
    references, masks = example(config, 16, device)[1:3]
    tokens = fused.embed_references(references.flatten(0, 1), masks.flatten(0, 1))
    tokens = tokens.unflatten(0, (16, REFERENCES))  # (16, R, Nz, C): embedded when they enter
    del references, masks
    yield "fused", partial(_fused_pass, fused, tokens)
    if device.type == "cuda":
        recorded: dict[int, CapturedGraph] = {}
        yield "graph", partial(_recorded_pass, recorded, fused, tokens)
        del recorded
    del fused, tokens
    plain = copy.deepcopy(model).to(device)
    yield "plain", partial(under_autocast, plain)
    for module in plain.modules():
        if isinstance(module, TMoELinear):
            module.forward = partial(one_expert_after_another, module)  # type: ignore[method-assign]
    yield "published", partial(under_autocast, plain)
    for module in plain.modules():  # each is held by the function it was given
        module.__dict__.pop("forward", None)
    del plain, module
    with device:
        vit = PlainViT(config)
    for block in vit.trunk.blocks:  # no cast in every pass, which the fused layout has not either
        for linear in (block.attn.qkv, block.attn.proj, block.mlp):
            linear.to(dtype)
    yield "vit", partial(under_autocast, vit)


def _fused_pass(network: nn.Module, tokens: Tensor, search: Tensor, *others: Tensor) -> Any:
    return network(search, tokens[: len(search)], others[-1])


def _recorded_pass(
    recorded: dict[int, CapturedGraph], network: nn.Module, tokens: Tensor, *inputs: Tensor
) -> Any:
    """As ``_fused_pass``, recorded at the first pass of a batch size; all inputs are copied."""
    batch, nothing = len(inputs[0]), np.zeros(1)
    others = inputs[0], tokens[:batch], inputs[-1]
    if batch not in recorded:
        recorded.clear()
        recorded[batch] = CapturedGraph(
            lambda _, *given: tuple(network(*given)), nothing, others, tokens.device
        )
    return recorded[batch](nothing, *others)


def one_expert_after_another(part: TMoELinear, x: Tensor) -> Tensor:
    """A map as the published code computes it: a loop over experts, nothing in one product."""
    weights = F.linear(x, part.router).softmax(-1)  # (B, N, E)
    mixed: Tensor | int = 0
    for expert in range(part.experts.shape[1]):
        down = part.down[expert if len(part.down) > 1 else 0]
        out = F.linear(F.linear(x, down), part.experts[:, expert])  # (B, N, out)
        mixed = mixed + weights[..., expert, None] * out
    if part.shared is not None:
        mixed = mixed + F.linear(F.linear(x, part.down[0]), part.shared)
    return F.linear(x, part.weight, part.bias) + part.scaling * mixed


class PlainViT(nn.Module):
    """The trunk of timm without experts, on as many tokens as SPMTrack has."""

    others: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = build_trunk(config).eval().requires_grad_(False)
        rows, columns = config.template_grid_hw
        others = 1 + REFERENCES * rows * columns
        self.register_buffer("others", torch.randn(1, others, self.trunk.embed_dim))

    def forward(self, search: Tensor, *_: Tensor) -> Tensor:
        tokens = self.trunk.patch_embed(search) + self.trunk.pos_embed  # (B, Nx, C)
        tokens = torch.cat((self.others.expand(len(search), -1, -1), tokens), 1)  # (B, T, C)
        for block in self.trunk.blocks:
            tokens = block(tokens)
        return self.trunk.norm(tokens)


def example(config: ModelConfig, batch: int, device: torch.device) -> tuple[Tensor, ...]:
    """Search, references, masks and state token of ``batch`` targets."""
    with torch.device("meta"):
        width = build_trunk(config).embed_dim
    random = torch.Generator().manual_seed(0)
    shapes = ((3, *config.search_hw), (REFERENCES, 3, *config.template_hw))
    images = [torch.randn(batch, *shape, generator=random).to(device) for shape in shapes]
    masks = torch.ones(batch, REFERENCES, *config.template_grid_hw, device=device)
    return *images, masks, torch.zeros(batch, 1, width, device=device)


def flop(config: ModelConfig) -> int:
    """Floating-point operations of one pass of the plain layout; a multiply-add is two."""
    with torch.device("meta"):
        model = build_spmtrack(config).eval()
        inputs = example(config, 1, torch.device("meta"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return int(counter.get_total_flops())


def best_rate(device: torch.device, precision: str, seconds: float) -> float:
    """Floating-point operations per second of a plain product of matrices of 8192 (CPU: 2048)."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(PRECISIONS[precision]) for _ in range(2))
    return 2 * side**3 / timed(lambda: a @ b, device, seconds)["median_ms"] * 1000


@torch.inference_mode()
def timed(run: Callable[[], Any], device: torch.device, seconds: float) -> dict[str, float]:
    """Median and 95th percentile, ms, of as many runs as fit into ``seconds``, at least three."""
    cuda = device.type == "cuda"
    wait = partial(torch.cuda.synchronize, device) if cuda else lambda: None
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(3 if cuda else 1):
        run()
    wait()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        run()
        wait()
        times.append(1000 * (time.perf_counter() - started))
    found = {"median_ms": float(np.median(times)), "p95_ms": float(np.percentile(times, 95))}
    return found | ({"memory_bytes": torch.cuda.max_memory_allocated(device)} if cuda else {})


def frame_times(tracker: Tracker, seconds: float) -> dict[str, float]:
    """A whole frame of 640x480, from image to box, and the stages of it, each by itself."""
    frames = np.random.default_rng(0).integers(0, 255, (8, *FRAME_HW, 3)).astype(np.uint8)
    turn, cuda = itertools.cycle(frames), tracker.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(tracker.device)
    tracker.warm_up()
    # a recorded step takes all its memory when it is recorded
    memory = {"memory_bytes": torch.cuda.max_memory_allocated(tracker.device)} if cuda else {}
    tracker.init(frames[0], (300, 200, 60, 80))
    row = timed(lambda: tracker.update(next(turn)), tracker.device, seconds) | memory
    with tracker.engine.stream():
        for name, stage in stages(tracker, frames[0]).items():
            row[f"{name}_ms"] = timed(stage, tracker.device, seconds / 4)["median_ms"]
    return row


@torch.inference_mode()
def stages(tracker: Tracker, frame: Image) -> dict[str, Callable[[], Any]]:
    """Upload, search crop, network and choice of the box for one target, as in the engine."""
    target, engine, search_hw = tracker.target, tracker.engine, tracker.model_config.search_hw
    assert target is not None
    crop = context_crop(
        (300, 200, 360, 280), tracker.config.search_area_factor, FRAME_HW, search_hw
    )
    search = example(tracker.model_config, 1, tracker.device)[0]
    network: Any = tracker.model
    inputs = search, *target.references.gather(tracker.config.reference_rule), target.state_token
    prediction = network(*inputs)
    choose = partial(select_box, window=engine.window, search_hw=search_hw,
                     window_weight=tracker.config.window_weight)  # fmt: skip
    if isinstance(engine, HostEngine):
        return {
            "crop": lambda: normalize(crop_image(frame, crop, search_hw, target.background)),
            "network": lambda: network(*inputs),
            "choice": lambda: choose(prediction),
        }
    numbers = crop_numbers(FRAME_HW, crop, target.background)[None]  # (1, 12)
    parts = (
        ("crop", lambda numbers: (engine.crops(numbers, search_hw),), ()),
        ("network", lambda _, *given: tuple(network(*given)), inputs),
        ("choice", lambda _, *given: choose(Prediction(*given)), tuple(prediction)),
    )
    found: dict[str, Callable[[], Any]] = {"upload": lambda: engine.set_frame(frame)}
    for name, function, others in parts:
        if engine.may_capture:
            function = CapturedGraph(function, numbers, others, tracker.device)
            found[name] = partial(function, numbers, *others)
        else:
            sent = torch.from_numpy(numbers).to(tracker.device)
            found[name] = partial(function, sent, *others)
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
    }


def table(rows: list[dict[str, Any]], rates: dict[str, float]) -> Table:
    """Rows for the terminal; ``rates`` is ``best_rate`` by precision."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("model", "layout", "precision", "batch", "ms", "95 %", "fps", "TFLOP/s",
                  "of best"):  # fmt: skip
        shown.add_column(title, justify="left" if title in ("model", "layout") else "right")
    for row in rows:
        fps = 1000 * row["batch"] / row["median_ms"]
        rate = row["flop"] / row["median_ms"] * 1000 if row.get("flop") else None
        shown.add_row(
            row["model"], row["layout"], row["precision"], str(row["batch"]),
            f"{row['median_ms']:.1f}", f"{row['p95_ms']:.1f}", f"{fps:.1f}",
            f"{rate / 1e12:.2f}" if rate else "",
            f"{rate / rates[row['precision']]:.0%}" if rate else "",
        )  # fmt: skip
    return shown


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Frames per second of every row with one target, as a PNG."""
    single = [row for row in rows if row["batch"] == 1]
    figure = Figure(figsize=(9, 0.6 + 0.28 * len(single)), layout="constrained")
    axes = figure.subplots()
    labels = [f"{row['model']}, {row['layout']}, {row['precision']}" for row in single]
    colours = ["C0" if row["layout"] in ("fused", "graph", "tracker") else "0.7" for row in single]
    bars = axes.barh(labels[::-1], [1000 / r["median_ms"] for r in single[::-1]],
                     color=colours[::-1])  # fmt: skip
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set(xlabel="frames per second", xscale="log", title=title)
    write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=120))
